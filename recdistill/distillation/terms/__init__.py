"""Loss terms that are added to the objective, each with a weight of its own."""
