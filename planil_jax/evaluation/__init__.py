"""Evaluation of runs, and what demonstrates."""
