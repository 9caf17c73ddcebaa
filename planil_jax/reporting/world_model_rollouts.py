"""What a world model predicts of an episode.

Of the first evaluation episode of a run's first seed, up to OBSERVED + AHEAD steps:

    reconstruction   decoded from beliefs that read all observations so far
    open loop        decoded from beliefs that read the first OBSERVED steps, and after that
                     the actions alone
    imagination      the same, under actions that the policy chooses in imagination
"""

from typing import NamedTuple

import jax
import numpy as np

from planil_jax import runs
from planil_jax.base import Params
from planil_jax.reporting import views
from planil_jax.training import loop

OBSERVED, AHEAD = 5, 45  # steps that the model reads, and steps that it predicts after them


class Rollouts(NamedTuple):
    """Observations `[T, O]` as the model reads them, or frames `[T, H, W, 3]` uint8."""

    observed: np.ndarray
    reconstruction: np.ndarray
    open_loop: np.ndarray  # equals `reconstruction` in the first OBSERVED steps
    imagination: np.ndarray
    period: float  # seconds a step
    names: tuple[str, ...]  # of observation entries; (): frames


def of(trained: runs.Run) -> Rollouts | None:
    """The rollouts of a run's world model; None: its method has none."""
    world_model = runs.shows(trained).world_model
    if world_model is None:
        return None
    spec, agent = trained.env.spec, trained.make_agent(trained.env, {})
    length = min(OBSERVED + AHEAD, spec.episode_length)

    @jax.jit
    def predict(params: Params, key: jax.Array):
        steps, _ = loop.evaluate(agent, trained.env, params, views.evaluation_keys(1))
        obs, actions = steps.obs[0, :length], steps.action[0, :length]
        return world_model(params, obs, actions, OBSERVED, key)

    first = jax.tree.map(lambda leaf: leaf[0], trained.params)
    observed, again, ahead, alone = map(np.asarray, predict(first, jax.random.key(0)))
    if spec.image:
        again, ahead, alone = map(_frames, (again, ahead, alone))
    return Rollouts(
        observed=observed,
        reconstruction=again,
        open_loop=ahead,
        imagination=alone,
        period=spec.control_period,
        names=spec.observation_names,
    )


def _frames(decoded: np.ndarray) -> np.ndarray:
    """Frames of 0 to 255 from what a model decodes, [-0.5, 0.5]."""
    return np.clip(255 * (decoded + 0.5), 0, 255).astype(np.uint8)
