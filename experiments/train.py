"""`python -m experiments.train`: see planil_jax.cli.train."""

from planil_jax.cli import app, train

if __name__ == "__main__":
    app.run_command(train)
