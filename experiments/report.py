"""`python -m experiments.report`: see planil_jax.reporting.report."""

from planil_jax.cli import app
from planil_jax.reporting import report

if __name__ == "__main__":
    report.define_flags()
    app.run(report.main)
