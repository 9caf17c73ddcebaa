"""What a world model makes of an episode, of an untrained one."""

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax import envs
from planil_jax.agents import cmil
from planil_jax.models import rssm
from planil_jax.nets import heads, mlp, normalise
from planil_jax.nets import rssm as networks
from planil_jax.reporting import figures, world_model_rollouts

SMALL = mlp.Config(hidden=(8,), activation="elu")
CONFIG = cmil.Config(
    model=rssm.Config(
        network=networks.Config(deter=8, stoch=4, hidden=8, heads=2), vectors=SMALL
    ),
    policy=heads.Config(network=SMALL, std_of_state=True),
    discriminator=SMALL,
    critic=SMALL,
)
STEPS = world_model_rollouts.SEEN + 4


def test_a_dream_leaves_what_was_seen_when_it_is_shown_no_more():
    spec = envs.make("pendulum").spec
    parts = cmil.make_parts(spec, CONFIG)

    @jax.jit
    def dream(key, later):
        model_key, policy_key, obs_key = jax.random.split(key, 3)
        params = cmil.InferenceParams(
            parts.model.init(model_key), parts.policy.init(policy_key), normalise.init(3)
        )
        obs = jax.random.normal(obs_key, (STEPS, 3))
        obs = obs.at[world_model_rollouts.SEEN :].add(later)
        actions = jnp.linspace(-1, 1, STEPS)[:, None]
        return world_model_rollouts._dreamt(parts, params, obs, actions, key)

    again, ahead, alone = dream(jax.random.key(0), 0.0)
    assert again.shape == ahead.shape == alone.shape == (STEPS, 3)
    for other in (ahead, alone):
        np.testing.assert_allclose(
            other[: world_model_rollouts.SEEN],
            again[: world_model_rollouts.SEEN],
            rtol=1e-5,
            atol=1e-6,
        )
        assert (
            np.abs(
                other[world_model_rollouts.SEEN :] - again[world_model_rollouts.SEEN :]
            ).max()
            > 1e-4
        )
    changed = dream(jax.random.key(0), 1.0)
    assert np.abs(changed[0] - again).max() > 1e-4
    np.testing.assert_array_equal(changed[1], ahead)  # which did not look
    np.testing.assert_array_equal(changed[2], alone)


def test_dreams_are_drawn():
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    seconds = np.arange(3.0)
    rows = {"seen": frames, "open loop": frames}
    assert len(figures.dreamt_frames(rows, seconds).axes) == 6
    lines = {"seen": np.zeros((5, 2)), "open loop": np.ones((5, 2))}
    assert len(figures.dream(["x", "y"], lines, 0.1).axes) == 2
    assert len(figures.strips(np.stack([frames] * 2), seconds, 4).axes) == 6
