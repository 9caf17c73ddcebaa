"""`python -m experiments.compare`: see planil_jax.cli.compare."""

from planil_jax.cli import app, compare

if __name__ == "__main__":
    compare.define_flags()
    app.run(compare.main)
