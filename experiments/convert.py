"""`python -m experiments.convert`: see planil_jax.cli.convert."""

from planil_jax.cli import app, convert

if __name__ == "__main__":
    convert.define_flags()
    app.run(convert.main)
