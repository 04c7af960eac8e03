"""A study: the same recommenders on several data sets, students and seeds, and what may be said of them.

A plan (`plan`) is a YAML file: data sets, students, seeds, and *rows*, each a step with options. A *cell* is one row
for one data set, student and seed; it is an ordinary run. What a finished cell measured is kept (`cells`) as a JSON
file with the ranks of its test samples beside it, so that a study goes on, and its report (`report`) is written, where
the MLflow store is not at hand. Rows are compared (`comparisons`) by the samples that both ranked.
"""
