"""Training: the loop, its checkpoints, several processes, the device and the recorder."""
