"""`python -m experiments.coverage`: see planil_jax.cli.coverage."""

from planil_jax.cli import app, coverage

if __name__ == "__main__":
    coverage.define_flags()
    app.run(coverage.main)
