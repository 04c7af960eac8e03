"""Splits: which items are kept for validation and test. One a file."""
