import sys
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

# The toy is shared by the tests here, and by the processes that they kill.
sys.path.insert(0, str(Path(__file__).parent))

_CACHE = {
    "jax_compilation_cache_dir": "",
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture(scope="session")
def compile_cache(tmp_path_factory):
    """Environment variables that share compiled programs between tests and processes."""
    cache = _CACHE | {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("xla"))}
    return {name.upper(): str(value) for name, value in cache.items()}


@pytest.fixture(scope="module", autouse=True)
def _compile_each_program_once(compile_cache):
    before = {name: getattr(jax.config, name) for name in _CACHE}
    cache = _CACHE | {
        "jax_compilation_cache_dir": compile_cache["JAX_COMPILATION_CACHE_DIR"]
    }
    for settings in (cache, before):
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if settings is cache:
            yield
