"""Recipes without one of their choices: what a comparison is made with, not what to take."""
