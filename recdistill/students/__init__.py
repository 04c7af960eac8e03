"""Recommenders: a model a file, the item embedding that takes the teacher in, training, saving and serving."""
