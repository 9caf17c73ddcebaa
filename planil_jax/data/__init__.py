"""Demonstrations and replay."""
