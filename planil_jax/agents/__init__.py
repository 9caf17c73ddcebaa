"""Algorithms, one file each: Config, State, make(...) -> Agent."""
