"""Pure functions of arrays and callables; each with its equation and its source."""
