"""The reward that a run learned beside the task's: are they of one mind about steps?

Pearson's correlation over steps of the run's own episodes, of random actions, of both, and
of graded hands between: HANDS tells at which share of steps an action is random. Over
graded hands also from episode to episode, by sums. A demonstrator's equal does much the
same at every step, so that a correlation of its own steps says little. A reward is
recovered up to its scale and a potential at best.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax import experiment, runs
from planil_jax.base import Agent, Environment, EnvState, UsageError
from planil_jax.reporting import figures
from planil_jax.training import loop, run

PICTURE = "rewards.png"
HANDS = (0.0, 0.25, 0.5, 0.75, 1.0)
PICTURED = ("own", "graded", "sums")  # of the first seed
_GROUPS = ([0], [-1], [0, -1], slice(None))
SORTS = {
    "own": "its own steps",
    "random": "steps of random actions",
    "both": "both",
    "graded": "steps of graded hands",
    "sums": "episodes of graded hands",
}


def compare(trained: runs.Run, episodes: int) -> dict[str, Any]:
    """Correlations of each seed; writes rewards.png into the run's directory.

    Raises:
      UsageError: the method learns no reward.
    """
    env = trained.env
    reward = runs.shows(trained).reward
    if reward is None:
        raise UsageError(
            f"{trained.experiment.method} recovers no reward to compare with the task's: "
            "leave out --rewards."
        )
    keys = jax.random.split(jax.random.key(run.EVALUATION_SEED), episodes)

    def one_seed(params, settings):
        agent = trained.make_agent(env, settings)

        def of_hand(share):
            steps, alive = loop.evaluate(_shaky(agent, env, share), env, params, keys)
            of_step = jax.vmap(jax.vmap(lambda *step: reward(params, *step)))
            learned = of_step(steps.obs, steps.action, steps.next_obs)
            return learned, steps.reward, alive

        return jax.lax.map(of_hand, jnp.array(HANDS))  # [hands, B, L] each

    found: dict[str, Any] = {"episodes": episodes, "hands": HANDS}
    found |= {sort: [] for sort in SORTS}
    clouds: dict[str, Any] = {}
    for told in zip(*map(np.asarray, runs.over_seeds(one_seed, trained)), strict=True):
        pairs = dict(zip(SORTS, _pairs(*told), strict=True))
        for sort, pair in pairs.items():
            found[sort].append(_correlation(*pair))
        clouds = clouds or {SORTS[sort]: pairs[sort] for sort in PICTURED}
    figures.rewards(clouds).savefig(trained.directory / PICTURE, dpi=110)
    return found


def _shaky(agent: Agent, env: Environment, share: jax.Array) -> Agent:
    """At a share of the steps its action is a random one."""
    random = experiment.make_random(env)

    def act(params, carry, state: EnvState, key: jax.Array, explore: bool):
        chosen, carry = agent.act(params, carry, state, key, explore)
        chance_key, random_key = jax.random.split(jax.random.fold_in(key, 1))
        other, _ = random.act((), (), state, random_key, explore)
        shakes = jax.random.bernoulli(chance_key, share)
        return jnp.where(shakes, other, chosen), carry

    return agent._replace(act=act)


def _pairs(learned: np.ndarray, task: np.ndarray, alive: np.ndarray) -> list[tuple]:
    """What is compared, in the order of SORTS; all are `[hands, B, L]`."""
    steps = [(learned[hands][alive[hands]], task[hands][alive[hands]]) for hands in _GROUPS]
    return [*steps, ((learned * alive).sum(-1).ravel(), (task * alive).sum(-1).ravel())]


def table(found: dict[str, Any]) -> str:
    """The correlations, for reading."""
    lines = ["learned reward against the task's, Pearson's correlation; each seed"]
    for sort, title in SORTS.items():
        each = " ".join(
            "    none" if value is None else f"{value:8.3f}" for value in found[sort]
        )
        lines.append(f"  {title:25} {each}")
    return "\n".join(lines)


def _correlation(learned: np.ndarray, task: np.ndarray) -> float | None:
    """None where one of them never varies."""
    if min(np.ptp(learned), np.ptp(task)) < 1e-9:
        return None
    return float(np.corrcoef(learned, task)[0, 1])
