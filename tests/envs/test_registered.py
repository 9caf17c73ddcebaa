"""The environments that are registered; making all of them takes long."""

import jax

from planil_jax import envs


def test_every_registered_name_makes_an_environment_of_that_name():
    for name in envs.names():
        if name.endswith("/*"):
            continue
        env = envs.make(name)
        assert env.spec.name == name
        state = jax.eval_shape(env.reset, jax.random.key(0))
        assert state.obs.shape == (env.spec.observation_size,)
