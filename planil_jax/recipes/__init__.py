"""Settings tuned for a method in an environment, by name."""
