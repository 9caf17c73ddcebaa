"""`python -m experiments.report`: see planil_jax.cli.report."""

from planil_jax.cli import app, report

if __name__ == "__main__":
    report.define_flags()
    app.run(report.main)
