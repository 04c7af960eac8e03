"""Where interactions come from: a file of the house each, or a user's own."""
