"""What takes long to compile is compiled once a session, and as quickly as can be.

Programs are dropped after each module, as a process would keep them all; workers share what
was compiled through a directory of the session. XLA compiles for a CPU in two thirds of the
time without its fusion emitters; XLA reads XLA_FLAGS once, when JAX first computes. None of
this holds for tests/slow, whose programs run for long.
"""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator

import jax
import jaxlib
import pytest

FLAG = "--xla_cpu_use_fusion_emitters"
KNOWS_IT = jaxlib.__version__.startswith("0.10.")  # XLA ends a process for an unknown flag
SLOW = any("tests/slow" in argument for argument in sys.argv)
if KNOWS_IT and not SLOW and FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAG}=false".strip()


def compile_quickly(wanted: bool = True) -> None:
    """Leaves out what makes programs faster, or does it again."""
    jax.config.update("jax_disable_most_optimizations", wanted)


compile_quickly()  # what test modules compute while they are imported, too


def drop_programs() -> None:
    """Gives the memory of all compiled programs back; glibc alone would keep it."""
    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)


@pytest.fixture(scope="session", autouse=True)
def compile_cache(tmp_path_factory) -> dict[str, str]:
    """Environment variables by which processes of a test compile alike, and share it."""
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    options = {
        "jax_compilation_cache_dir": os.environ.get("PLANIL_TEST_CACHE")
        or str(session / "xla"),
        # Single operations too, of which modules repeat thousands: reading one costs a
        # third of compiling it.
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_disable_most_optimizations": True,
    }
    for name, value in options.items():
        jax.config.update(name, value)
    return {name.upper(): str(value) for name, value in options.items()}


@pytest.fixture(scope="module", autouse=True)
def programs(request, compile_cache) -> Iterator[None]:
    """Optimises programs of modules marked so; others run for less time than it takes.

    Afterwards all are dropped.
    """
    compile_quickly(request.node.get_closest_marker("optimised") is None)
    yield
    drop_programs()
