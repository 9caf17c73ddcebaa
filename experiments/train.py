"""`python -m experiments.train`: see planil_jax.cli.train."""

from planil_jax.cli import app, train

if __name__ == "__main__":
    train.define_flags()
    app.run(train.main, config="experiments/configs/navigation.py")
