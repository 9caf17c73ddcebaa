"""Evaluation of trained runs, and the expert policies that demonstrate."""
