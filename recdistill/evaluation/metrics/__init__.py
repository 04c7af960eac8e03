"""Metrics, one a file: pure functions of ranks to gains, or of all lists to a number (``of="lists"``)."""
