"""`python -m experiments.expert`: see planil_jax.cli.expert."""

from planil_jax.cli import app, expert

if __name__ == "__main__":
    app.run_command(expert)
