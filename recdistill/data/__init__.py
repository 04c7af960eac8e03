"""Interactions in, next-item samples out: sources, frames, splits, fingerprint, batches, pinned downloads."""
