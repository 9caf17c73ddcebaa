"""Dynamics: what a planner or a policy rolls forward."""
