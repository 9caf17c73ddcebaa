"""What a world model makes of an episode: seen again, foreseen, and imagined.

Of the first episode of evaluation of a run's first seed, up to where its look ahead ends:

    reconstructed   decoded from beliefs that saw everything so far
    open loop       decoded from beliefs that saw the first steps, and then actions alone
    imagined        the same, under actions that the policy takes in its imagination
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import runs
from planil_jax.agents import cmil
from planil_jax.models.rssm import Belief
from planil_jax.training import loop, run

SEEN, AHEAD = 5, 45  # steps that are observed, and then not


class Dream(NamedTuple):
    """Observations `[T, O]` as the model reads them, or frames `[T, H, W, 3]` uint8."""

    seen: np.ndarray
    reconstructed: np.ndarray
    open_loop: np.ndarray  # the same as `reconstructed` for the first SEEN
    imagined: np.ndarray
    period: float  # seconds a step
    names: tuple[str, ...]  # of observation entries; (): frames


def of(trained: runs.Run) -> Dream | None:
    """The dream of a run; None: its method has no world model."""
    config, env = trained.experiment.agent, trained.env
    if not isinstance(config, cmil.Config):
        return None
    parts = cmil.make_parts(env.spec, config)
    agent = trained.make_agent(env, {})
    steps = min(SEEN + AHEAD, env.spec.episode_length)

    @jax.jit
    def dream(params: cmil.Acting, key: jax.Array):
        keys = jax.random.split(jax.random.key(run.EVALUATION_SEED), 1)
        rolled, _ = loop.evaluate(agent, env, params, keys)
        obs = parts.look(params.moments, parts.frame(rolled.obs[0, :steps]))
        actions = parts.unit(rolled.action[0, :steps])
        return obs, *_dreamt(parts, params, obs, actions, key)

    first = jax.tree.map(lambda leaf: leaf[0], trained.params)
    seen, *made = (np.asarray(each) for each in dream(first, jax.random.key(0)))
    if env.spec.image:
        made = [_picture(each) for each in made]
    spec = env.spec
    again, ahead, alone = made
    return Dream(seen, again, ahead, alone, spec.control_period, spec.observation_names)


def _dreamt(
    parts: cmil.Parts, params: cmil.Acting, obs: jax.Array, actions: jax.Array, key
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Reconstructed, open loop and imagined, of obs `[T, ...]` and actions `[T, U]`."""
    model = parts.model
    before = jnp.concatenate([jnp.zeros_like(actions[:1]), actions[:-1]])

    def one(belief: Belief, step):
        action, encoded, told = step
        observed = model.observe_step(
            params.model,
            belief,
            action,
            encoded,
            jnp.zeros((), bool),
            jnp.zeros((), jnp.int32),
            None,
        )
        foreseen = Belief(observed.belief.deter, observed.prior.mean)
        belief = jax.tree.map(lambda a, b: jnp.where(told, a, b), observed.belief, foreseen)
        return belief, belief

    encoded = model.encode(params.model, obs)
    begin, count = model.start(), obs.shape[0]
    everything = (before, encoded, jnp.ones((count,), bool))
    beginning = (before, encoded, jnp.arange(count) < SEEN)
    all_seen = jax.lax.scan(one, begin, everything)[1]
    some_seen = jax.lax.scan(one, begin, beginning)[1]

    def follow(features: jax.Array, key: jax.Array):
        return parts.policy.mode(parts.policy.apply(params.policy, features)), ()

    start = jax.tree.map(lambda leaf: leaf[SEEN - 1], all_seen)
    own = model.imagine(params.model, start, follow, count - SEEN, key).belief
    dreamt = jax.tree.map(
        lambda known, own: jnp.concatenate([known[: SEEN - 1], own]), all_seen, own
    )
    decoded = [
        model.decode(params.model, model.features(belief))
        for belief in (all_seen, some_seen, dreamt)
    ]
    return decoded[0], decoded[1], decoded[2]


def _picture(decoded: np.ndarray) -> np.ndarray:
    """Frames of 0 to 255 of what a model draws."""
    return np.clip(255 * (decoded + 0.5), 0, 255).astype(np.uint8)
