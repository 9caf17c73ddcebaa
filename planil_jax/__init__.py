"""planil_jax: planning-based imitation learning in JAX."""

__version__ = "0.1.0"
