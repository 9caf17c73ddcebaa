"""`python -m experiments.convert`: see planil_jax.evaluation.convert."""

from planil_jax.cli import app
from planil_jax.evaluation import convert

if __name__ == "__main__":
    convert.define_flags()
    app.run(convert.main)
