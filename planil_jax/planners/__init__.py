"""Planners: they maximise a score function and know nothing else of the task."""
