"""Counted operations against those that XLA counts in the compiled plan."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from benchmarks import latent as benchmark
from planil_jax.base import EnvState, Task
from planil_jax.nets import latent as networks
from planil_jax.planners import mppi

WIDE = 128


@pytest.mark.parametrize("name", benchmark.CONFIGS)
def test_the_counted_operations_are_those_of_the_program(name):
    """Within 10%: XLA also counts normalisation, activations and samples."""
    module, config = benchmark.CONFIGS[name]
    config = dataclasses.replace(
        config,
        network=networks.Config(latent=WIDE, encoder=(32,), hidden=(WIDE, WIDE)),
        planner=mppi.Config(
            samples=64, horizon=3, iterations=2, elites=8, sampling="gaussian"
        ),
        planning=dataclasses.replace(config.planning, proposals=4),
        replay=dataclasses.replace(config.replay, capacity=3),
    )
    agent = module.make(Task.of(benchmark.SPEC), config)
    params = jax.eval_shape(lambda key: agent.init(key).params, jax.random.key(0))
    obs = jax.ShapeDtypeStruct((benchmark.OBSERVATIONS,), jnp.float32)

    def act(params, obs, key):
        state = EnvState((), obs, jnp.zeros((), jnp.int32))
        return agent.act(params, agent.carry(), state, key, False)

    key = jax.eval_shape(lambda: jax.random.key(0))
    lowered = jax.jit(act).lower(params, obs, key)
    counted = lowered.cost_analysis()["flops"]
    ours = benchmark.operations(name, config)
    assert 0.9 < ours / counted < 1.02
