"""Recipes without one of their choices, or with another, for comparisons."""
