"""The reward that a run learned beside the task's: are they of one mind about steps?

Pearson's correlation over steps of the run's own episodes, of random actions, and of both;
a reward is recovered up to its scale and a potential at best.
"""

from typing import Any

import jax
import numpy as np

from experiments import experiment, figures, runs
from experiments.methods import METHODS
from planil_jax.base import Agent, UsageError
from planil_jax.training import loop, run

PICTURE = "rewards.png"


def compare(trained: runs.Run, episodes: int) -> dict[str, Any]:
    """Correlations of each seed; writes rewards.png into the run's directory.

    Raises:
      UsageError: the method learns no reward.
    """
    method = METHODS[trained.experiment.method]
    if method.reward is None:
        raise UsageError(
            f"{trained.experiment.method} learns no reward to compare; --rewards is for "
            f"{', '.join(name for name, row in METHODS.items() if row.reward)}."
        )
    env = trained.env
    reward = method.reward(env.spec, trained.experiment.agent, trained.demos.entries)
    keys = jax.random.split(jax.random.key(run.EVALUATION_SEED), episodes)

    def one_seed(params, settings):
        def of_agent(agent: Agent, acting):
            steps, alive = loop.evaluate(agent, env, acting, keys)
            of_step = jax.vmap(jax.vmap(lambda *step: reward(params, *step)))
            learned = of_step(steps.obs, steps.action, steps.next_obs)
            return learned, steps.reward, alive

        own = of_agent(trained.make_agent(env, settings), params)
        return own, of_agent(experiment.make_random(env), ())

    told = runs.over_seeds(one_seed, trained)
    found: dict[str, Any] = {"episodes": episodes}
    pairs = {}
    for name, (learned, task, alive) in zip(("own", "random"), told, strict=True):
        pairs[name] = [
            (np.asarray(of_seed)[still], np.asarray(true)[still])
            for of_seed, true, still in zip(learned, task, np.asarray(alive), strict=True)
        ]
        found[name] = [_correlation(*pair) for pair in pairs[name]]
    both = [
        tuple(np.concatenate(sides) for sides in zip(own, other, strict=True))
        for own, other in zip(pairs["own"], pairs["random"], strict=True)
    ]
    found["both"] = [_correlation(*pair) for pair in both]
    drawn = figures.rewards({name: each[0] for name, each in pairs.items()})
    drawn.savefig(trained.directory / PICTURE, dpi=110)
    return found


def table(found: dict[str, Any]) -> str:
    """The correlations, for reading."""
    lines = ["learned reward against the task's, Pearson's correlation; each seed"]
    for name, title in (
        ("own", "its own steps"),
        ("random", "steps of random actions"),
        ("both", "both"),
    ):
        each = " ".join(f"{value:8.3f}" for value in found[name])
        lines.append(f"  {title:23} {each}")
    return "\n".join(lines)


def _correlation(learned: np.ndarray, task: np.ndarray) -> float | None:
    """None where one of them never varies."""
    if min(np.ptp(learned), np.ptp(task)) < 1e-9:
        return None
    return float(np.corrcoef(learned, task)[0, 1])
