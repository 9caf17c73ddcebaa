"""`python -m experiments.film`: see planil_jax.reporting.film."""

from planil_jax.cli import app
from planil_jax.reporting import film

if __name__ == "__main__":
    film.define_flags()
    app.run(film.main)
