"""Metrics of ranks, one a file: a pure function of ranks to gains."""
