"""The one training loop, and checkpoints that survive a kill."""
