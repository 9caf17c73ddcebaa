"""The loop, runs, checkpoints and reports."""
