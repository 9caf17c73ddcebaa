"""`python -m experiments.collect`: see planil_jax.cli.collect."""

from planil_jax.cli import app, collect

if __name__ == "__main__":
    collect.define_flags()
    app.run(collect.main)
