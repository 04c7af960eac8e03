"""Which of several evaluated runs is better, by how much, and whether it was luck: tables, plots, one page."""
