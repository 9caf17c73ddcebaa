"""What tests of formats read sources with."""

import pytest

from planil_jax import envs
from planil_jax.base import UsageError
from planil_jax.data import formats

SPEC = envs.make("point_mass").spec  # acts every 0.1 s


def read(path, count=None, spec=SPEC, **options):
    return formats.read(str(path), spec, count, formats.Options(**options))


def refused(path, **options):
    """The sentence about a source, which begins with its path."""
    with pytest.raises(UsageError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message
