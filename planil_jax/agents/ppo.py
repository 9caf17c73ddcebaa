"""PPO for the task's reward: an expert that can demonstrate, and no imitator.

In a round:

    1. act: a ~ π(·|s)
    2. improve π and V on the rollout and the task's rewards: steps 2 to 4 of common/ppo.py,
       whose equations and numbers stand there beside the functions

Demonstrations are ignored.

Source: Schulman et al. 2017, Proximal Policy Optimization, arXiv 1707.06347, Algorithm 1.
Departures: those of common/ppo.py.
"""

import functools

import jax

from planil_jax.agents.common import ppo
from planil_jax.base import Agent, Metrics, Needs, Task, Transition

Config = ppo.Config
NEEDS = Needs(demonstrations=False)
State = ppo.State


def make(task: Task, config: Config) -> Agent:
    """PPO for the rewards of this task."""
    components = ppo.build(task.spec, config)
    return Agent(
        init=functools.partial(ppo.init, components),
        carry=lambda: (),
        act=functools.partial(ppo.act, components),
        update=functools.partial(update, components),
        reads_rewards=True,
    )


def update(
    components: ppo.Components,
    state: State,
    rollout: Transition,
    demos,
    key: jax.Array,
    round_: jax.Array,
) -> tuple[State, Metrics]:
    """Step 2, on a rollout `[T, E]`."""
    del demos, round_
    return ppo.improve(components, state, rollout, rollout.reward, key)
