"""`python -m experiments.evaluate`: see planil_jax.cli.evaluate."""

from planil_jax.cli import app, evaluate

if __name__ == "__main__":
    evaluate.define_flags()
    app.run(evaluate.main)
