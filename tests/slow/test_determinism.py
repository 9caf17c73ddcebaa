"""Every method gives the same numbers again: in another process, on fewer cores, by `map`.

Bit for bit where the same operations run; within 1e-5 after an epoch where products are
batched or shared among cores otherwise. Each process compiles anew.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.training import seeds
from tests import test_agents as contracts
from tests import tiny

ROOT = Path(__file__).parents[2]
SEEDS = (5, 6)
TOLERANCE = 1e-5
ONE_EPOCH = """
import sys
import jax
import numpy as np
from tests import test_agents as contracts, tiny
name, path = sys.argv[1:]
jax.config.update("jax_enable_compilation_cache", False)
np.savez(path, *contracts.raw(tiny.train(name, seed=5, count=1)))
"""


def one_epoch(name: str, path: Path, cores: str = "") -> list[np.ndarray]:
    """The state and the metrics after an epoch in a process of its own."""
    before = ["taskset", "-c", cores] if cores else []
    subprocess.run(
        [*before, sys.executable, "-c", ONE_EPOCH, name, str(path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        timeout=600,
    )
    with np.load(path) as arrays:
        return [arrays[key] for key in arrays.files]


def over_seeds(name: str, seeds_by: str, *numbers: int) -> list[np.ndarray]:
    """State and metrics `[S]` after an epoch of some seeds, as a run trains them."""
    made = tiny.bench(name)
    states = [made.init(jax.random.key(number)) for number in numbers]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    reward = (jnp.float32(1.0), jnp.float32(0.0))

    def epoch(state):
        return made.epoch.__wrapped__(made.demos, jnp.int32(0), reward, state)

    return contracts.raw(jax.jit(seeds.over(epoch, seeds_by, mesh=None))(states))


def assert_near(found, wanted):
    for left, right in zip(found, wanted, strict=True):
        if right.dtype.kind == "f":
            np.testing.assert_allclose(left, right, rtol=TOLERANCE, atol=TOLERANCE)
        else:
            np.testing.assert_array_equal(left, right)


@pytest.fixture(autouse=True)
def programs_of_one_method():
    yield
    tiny.drop_programs()


@pytest.mark.parametrize("name", tiny.AGENTS)
def test_two_processes_agree_bit_for_bit_and_one_core_agrees_within_rounding(
    name, tmp_path
):
    first = one_epoch(name, tmp_path / "first.npz")
    again = one_epoch(name, tmp_path / "again.npz")
    assert [x.tobytes() for x in first] == [x.tobytes() for x in again]
    core = str(min(os.sched_getaffinity(0)))
    assert_near(one_epoch(name, tmp_path / "core.npz", core), first)


@pytest.mark.parametrize("name", tiny.AGENTS)
def test_a_seed_among_others_equals_that_seed_alone(name):
    """Bit for bit by `map`, and within rounding under `vmap`."""
    by_map, by_vmap = (over_seeds(name, seeds_by, *SEEDS) for seeds_by in ("map", "vmap"))
    for i, seed in enumerate(SEEDS):
        alone = over_seeds(name, "map", seed)
        assert [x[i].tobytes() for x in by_map] == [x[0].tobytes() for x in alone]
        assert_near([x[i] for x in by_vmap], [x[0] for x in alone])


@pytest.mark.parametrize("name", tiny.AGENTS)
def test_epochs_after_the_first_are_not_traced_again(name):
    made = tiny.bench(name)
    tiny.train(name, count=1)
    traced = len(made.traces)
    tiny.train(name, count=5)
    assert traced > 0 and len(made.traces) == traced
