"""Interactions in, next-item samples out: sources, splits, fingerprint, batches, pinned downloads."""
