"""The teacher that ranks the whole catalogue."""
