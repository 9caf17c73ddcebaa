"""`python -m experiments.demo`: see planil_jax.cli.demo."""

from planil_jax.cli import app, demo

if __name__ == "__main__":
    app.run_command(demo)
