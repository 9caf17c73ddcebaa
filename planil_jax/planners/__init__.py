"""Planners: they climb a score and do not know what is scored."""
