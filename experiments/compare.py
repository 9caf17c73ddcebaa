"""`python -m experiments.compare`: see planil_jax.evaluation.compare."""

from planil_jax.cli import app
from planil_jax.evaluation import compare

if __name__ == "__main__":
    compare.define_flags()
    app.run(compare.main, config="experiments/configs/compare_navigation.py")
