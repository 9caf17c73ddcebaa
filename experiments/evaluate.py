"""`python -m experiments.evaluate`: see planil_jax.evaluation.evaluate."""

from planil_jax.cli import app
from planil_jax.evaluation import evaluate

if __name__ == "__main__":
    evaluate.define_flags()
    app.run(evaluate.main)
