"""What is kept for validation and test: a way each."""
