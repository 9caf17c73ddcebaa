"""The correlation of the recovered reward with the task's reward.

Pearson's correlation over steps of the run's policy, of random actions, of both, and of
policies of graded quality. A policy of graded quality takes a random action at a share of
its steps; RANDOM_SHARES lists the shares. Sums over its episodes are correlated as well. A
good policy does much the same at every step, so its steps alone say little. A reward can be
recovered only up to its scale and a potential.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax import runs
from planil_jax.base import Agent, Environment, EnvState, UsageError
from planil_jax.evaluation import expert_policies
from planil_jax.training import loop, run

RANDOM_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SORTS = {
    "policy": "steps of the policy",
    "random": "steps of random actions",
    "policy_and_random": "both",
    "graded": "steps of policies of graded quality",
    "graded_episodes": "episodes of policies of graded quality",
}
PICTURED = ("policy", "graded", "graded_episodes")  # in the picture of the first seed
_SHARES_OF = ([0], [-1], [0, -1], slice(None))  # indices of RANDOM_SHARES for each sort

Pair = tuple[np.ndarray, np.ndarray]  # recovered rewards and the task's, [P] each


class Comparison(NamedTuple):
    """How the recovered reward of a run agrees with the task's."""

    found: dict[str, Any]  # for JSON: correlations of every seed, by sort
    pairs: dict[str, Pair]  # of the first seed, by the titles of PICTURED


def compare(trained: runs.Run, episodes: int) -> Comparison:
    """Correlations between the recovered reward and the task's, of each seed.

    Args:
      episodes: of each of the policies of graded quality.

    Raises:
      UsageError: the method recovers no reward.
    """
    if runs.shows(trained).reward is None:
        raise UsageError(
            f"{trained.experiment.method} recovers no reward to compare with the task's: "
            "leave out --rewards."
        )
    found: dict[str, Any] = {"episodes": episodes, "random_shares": RANDOM_SHARES}
    found |= {sort: [] for sort in SORTS}
    pictured: dict[str, Pair] = {}
    for rewards in zip(*_rewards(trained, episodes), strict=True):
        pairs = dict(zip(SORTS, _pairs(*rewards), strict=True))
        for sort, pair in pairs.items():
            found[sort].append(_correlation(*pair))
        pictured = pictured or {SORTS[sort]: pairs[sort] for sort in PICTURED}
    return Comparison(found, pictured)


def table(found: dict[str, Any]) -> str:
    """The correlations as text."""
    lines = ["recovered reward against the task's, Pearson's correlation; each seed"]
    width = max(map(len, SORTS.values()))
    for sort, title in SORTS.items():
        row = " ".join(
            "    none" if value is None else f"{value:8.3f}" for value in found[sort]
        )
        lines.append(f"  {title:{width}} {row}")
    return "\n".join(lines)


def _rewards(trained: runs.Run, episodes: int) -> tuple[np.ndarray, ...]:
    """Recovered rewards, the task's, and whether the step counts, `[S, shares, B, L]`."""
    env, reward = trained.env, runs.shows(trained).reward
    assert reward is not None  # as compare checks
    keys = jax.random.split(jax.random.key(run.EVALUATION_SEED), episodes)

    def one_seed(params, settings):
        agent = trained.make_agent(env, settings)

        def graded(share):
            policy = with_random_actions(agent, env, share)
            steps, alive = loop.evaluate(policy, env, params, keys)
            of_steps = jax.vmap(jax.vmap(lambda *step: reward(params, *step)))
            recovered = of_steps(steps.obs, steps.action, steps.next_obs)
            return recovered, steps.reward, alive

        return jax.lax.map(graded, jnp.array(RANDOM_SHARES))

    return tuple(map(np.asarray, runs.over_seeds(one_seed, trained)))


def with_random_actions(agent: Agent, env: Environment, share: jax.Array) -> Agent:
    """The agent with uniformly random actions at a share of its steps."""
    random = expert_policies.make_random(env)

    def act(params, carry, state: EnvState, key: jax.Array, explore: bool):
        action, carry = agent.act(params, carry, state, key, explore)
        chance_key, random_key = jax.random.split(jax.random.fold_in(key, 1))
        random_action, _ = random.act((), (), state, random_key, explore)
        is_random = jax.random.bernoulli(chance_key, share)
        return jnp.where(is_random, random_action, action), carry

    return agent._replace(act=act)


def _pairs(recovered: np.ndarray, task: np.ndarray, alive: np.ndarray) -> list[Pair]:
    """The pairs to correlate, in the order of SORTS; arguments are `[shares, B, L]`."""
    steps = [(recovered[at][alive[at]], task[at][alive[at]]) for at in _SHARES_OF]
    return [*steps, ((recovered * alive).sum(-1).ravel(), (task * alive).sum(-1).ravel())]


def _correlation(recovered: np.ndarray, task: np.ndarray) -> float | None:
    """Pearson's correlation; None where one of the two is constant."""
    if min(np.ptp(recovered), np.ptp(task)) < 1e-9:
        return None
    return float(np.corrcoef(recovered, task)[0, 1])
