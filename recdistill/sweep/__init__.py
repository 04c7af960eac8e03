"""A sweep: the search space and its file, the study, its workers, the answer at the end, the figures."""
