"""Gates: from a sequence's state to the mixing weights of the experts, one a file."""
