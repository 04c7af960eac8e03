"""The teacher that answers with a title, as in the paper."""
