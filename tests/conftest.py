"""What takes long to compile is compiled once a session, by whichever test comes first."""

import jax
import pytest


@pytest.fixture(scope="session", autouse=True)
def compile_cache(tmp_path_factory) -> dict[str, str]:
    """Environment variables that share compiled programs with processes of a test."""
    cache = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("xla")),
        "jax_persistent_cache_min_compile_time_secs": 0.3,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in cache.items():
        jax.config.update(name, value)
    return {name.upper(): str(value) for name, value in cache.items()}
