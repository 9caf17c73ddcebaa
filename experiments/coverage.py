"""`python -m experiments.coverage`: see planil_jax.evaluation.coverage."""

from planil_jax.cli import app
from planil_jax.evaluation import coverage

if __name__ == "__main__":
    coverage.define_flags()
    app.run(coverage.main)
