"""Loss terms that join the objective with a weight of their own."""
