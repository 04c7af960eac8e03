"""Sources: where interactions come from. One a file."""
