"""What a world model makes of an episode: seen again, foreseen, and imagined.

Of the first episode of evaluation of a run's first seed, up to where its look ahead ends:

    reconstructed   decoded from beliefs that saw everything so far
    open loop       decoded from beliefs that saw the first steps, and then actions alone
    imagined        the same, under actions that the policy takes in its imagination
"""

from typing import NamedTuple

import jax
import numpy as np

from planil_jax import runs
from planil_jax.base import Params
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
    rollouts = runs.shows(trained).world_model
    if rollouts is None:
        return None
    env, agent = trained.env, trained.make_agent(trained.env, {})
    steps = min(SEEN + AHEAD, env.spec.episode_length)

    @jax.jit
    def dream(params: Params, key: jax.Array):
        keys = jax.random.split(jax.random.key(run.EVALUATION_SEED), 1)
        rolled, _ = loop.evaluate(agent, env, params, keys)
        return rollouts(params, rolled.obs[0, :steps], rolled.action[0, :steps], SEEN, key)

    first = jax.tree.map(lambda leaf: leaf[0], trained.params)
    seen, *made = (np.asarray(each) for each in dream(first, jax.random.key(0)))
    if env.spec.image:
        made = [_picture(each) for each in made]
    spec = env.spec
    again, ahead, alone = made
    return Dream(seen, again, ahead, alone, spec.control_period, spec.observation_names)


def _picture(decoded: np.ndarray) -> np.ndarray:
    """Frames of 0 to 255 of what a model draws."""
    return np.clip(255 * (decoded + 0.5), 0, 255).astype(np.uint8)
