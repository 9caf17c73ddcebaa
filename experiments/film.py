"""`python -m experiments.film`: see planil_jax.cli.film."""

from planil_jax.cli import app, film

if __name__ == "__main__":
    film.define_flags()
    app.run(film.main)
