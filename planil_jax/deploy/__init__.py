"""A trained agent at work outside of training."""
