"""`python -m experiments.collect`: see planil_jax.evaluation.collect."""

from planil_jax.cli import app
from planil_jax.evaluation import collect

if __name__ == "__main__":
    collect.define_flags()
    app.run(collect.main)
