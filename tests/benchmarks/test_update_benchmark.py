import jax
import jax.numpy as jnp
import optax
import pytest

from benchmarks import seeds, timing, update
from planil_jax.nets import fit
from planil_jax.training import loop

SHAPE = loop.Config(num_envs=2, steps=4, rounds=1, resets=2)


def test_an_update_is_timed_beside_its_rollout():
    sizes = {"hidden": (4,), "batch": 4, "gradient_steps": 3, "capacity": 20}
    settings = seeds.small("sac", "pendulum", SHAPE, sizes)
    row = update.measure(settings, 0.0)
    assert row["gradient_steps"] == 9  # 3 for each of policy, critics and temperature
    assert row["gradient_steps_per_second"] == pytest.approx(9 / row["update_seconds"])
    assert 0 < row["update_seconds"] < row["update_compile_seconds"]
    assert 0 < row["collect_seconds"] < row["collect_compile_seconds"]
    assert row["update_to_collect"] > 0
    assert update.line(row).startswith("sac ")


def test_gradient_steps_are_those_of_every_optimiser_and_of_no_schedule():
    def fitted(tx, steps):
        fitter = fit.make(tx)
        state = fitter.init(jnp.ones((2,)))
        for _ in range(steps):
            state = fitter.step(state, jnp.ones((2,)))
        return state

    exponential_decay = optax.exponential_decay(0.1, 2, 0.5)
    first = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(exponential_decay))
    state = {"a": fitted(first, 3), "b": [fitted(optax.adam(0.1), 2)], "c": jnp.array(7)}
    assert update.gradient_steps(state) == 5


def test_a_threaded_call_continues_from_the_last_state_and_keeps_no_copy():
    state = jnp.zeros((4,), jnp.float32)
    call, _ = timing.threaded(lambda x, y: (x + y, 2 * x), state, jnp.float32(3))
    call()
    after, output = call()
    assert after.tolist() == [6.0] * 4 and output.tolist() == [6.0] * 4
    assert state.is_deleted() and isinstance(after, jax.Array)
