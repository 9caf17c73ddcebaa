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

LARGE = 0.5  # an error that is one, in standard deviations of the observations
OBSERVED, AHEAD = 5, 45  # steps that the model reads, and steps that it predicts after them


class Rollouts(NamedTuple):
    """Observations `[T, O]` as the model reads them, or frames `[T, H, W, 3]` uint8.

    T is OBSERVED + AHEAD, or less where the episode ends before.
    """

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
        steps, alive = loop.evaluate(agent, trained.env, params, views.evaluation_keys(1))
        obs, actions = steps.obs[0, :length], steps.action[0, :length]
        return world_model(params, obs, actions, OBSERVED, key), alive[0, :length]

    first = jax.tree.map(lambda leaf: leaf[0], trained.params)
    found, alive = jax.device_get(predict(first, jax.random.key(0)))
    observed, again, ahead, alone = (values[alive] for values in found)
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


def errors(rollouts: Rollouts, predicted: np.ndarray) -> np.ndarray | None:
    """The error of a prediction at each step, `[T]`.

    It is the root mean square over entries or pixels, in units of the standard deviation of
    the observations over the episode: a constant, their mean, has an error of about 1.
    None: the observations do not change.
    """
    flat = (len(rollouts.observed), -1)
    observed = rollouts.observed.reshape(flat).astype(np.float64)
    deviation = np.sqrt(np.mean(np.var(observed, axis=0)))
    if deviation < 1e-6:
        return None
    wrong = predicted.reshape(flat).astype(np.float64) - observed
    return np.sqrt(np.mean(wrong**2, axis=1)) / deviation


def departure(rollouts: Rollouts) -> int | None:
    """Steps after the last one that was read until the open loop is off by more than LARGE.

    None: it never is, as far as the model predicts.
    """
    off = errors(rollouts, rollouts.open_loop)
    wrong = np.zeros(0, bool) if off is None else ~(off[OBSERVED:] <= LARGE)  # nan is wrong
    return int(np.argmax(wrong)) + 1 if wrong.any() else None


def verdict(rollouts: Rollouts) -> str:
    """How far the reconstruction and the open loop are from the observations, in words."""
    again = errors(rollouts, rollouts.reconstruction)
    ahead = errors(rollouts, rollouts.open_loop)
    if again is None or ahead is None:
        return "The observations of this episode do not change."
    if len(ahead) <= OBSERVED:
        return "The episode ended before there was anything to predict."
    parts = "entries" if rollouts.names else "pixels"
    sentence = (
        f"Errors are root mean squares over all {parts} at a step, in standard deviations "
        f"of these observations. The reconstruction is off by {np.mean(again):.2f} on "
        "average."
    )
    steps, all_steps = departure(rollouts), len(ahead) - OBSERVED
    if steps is None:
        return (
            f"{sentence} The open loop is off by {LARGE:g} at most for all of the "
            f"{_long(all_steps, rollouts.period)} that it predicts."
        )
    return (
        f"{sentence} The open loop is off by more than {LARGE:g} after "
        f"{_long(steps, rollouts.period)} of prediction, and by "
        f"{np.mean(ahead[OBSERVED:]):.2f} on average over all "
        f"{_long(all_steps, rollouts.period)}."
    )


def _long(steps: int, period: float) -> str:
    return f"{steps} {'step' if steps == 1 else 'steps'} ({steps * period:.2g} s)"


def _frames(decoded: np.ndarray) -> np.ndarray:
    """Frames of 0 to 255 from what a model decodes, [-0.5, 0.5]."""
    return np.clip(255 * (decoded + 0.5), 0, 255).astype(np.uint8)
