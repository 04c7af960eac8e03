"""One file an entry point: open the run, fetch inputs, build, define the objective, loop, log."""
