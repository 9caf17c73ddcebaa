"""`python -m experiments.inspect`: see planil_jax.cli.inspect."""

from planil_jax.cli import app, inspect

if __name__ == "__main__":
    app.run_command(inspect)
