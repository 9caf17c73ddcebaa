"""MAIL swings up from four demonstrations, and the horizon that it needs for that; some
minutes on two cores.

All returns are means over the same 20 starts, of the last parameters. The pendulum never
ends early, so no form of cost wins by its bias.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.agents import bc, mail, sac
from planil_jax.base import Agent, Demonstrations, Task, Transition
from planil_jax.data import demos as demonstrations
from planil_jax.evaluation import collect, expert_policies
from planil_jax.training import loop, run

ENV = envs.make("pendulum")
EPISODES = 20
STARTS = jax.random.split(jax.random.key(run.EVALUATION_SEED), EPISODES)
ROLLOUTS = loop.Config(num_envs=1, steps=100, rounds=10)  # 1000 steps an epoch


class Expert(NamedTuple):
    """SAC on the task's reward, after 20,000 steps."""

    demos: Demonstrations  # 4 episodes
    value: float  # its return
    floor: float  # return of random actions

    def loss(self, returns: np.ndarray) -> np.ndarray:
        """How far returns are below the expert's, as a share of its gain over chance."""
        return (self.value - returns) / (self.value - self.floor)


def controller(act) -> Agent:
    """An agent that learns nothing: `act(obs, key)` to `[1]`."""

    def act_on_state(params, carry, state, key, explore):
        return act(state.obs, key), carry

    return Agent(lambda key: (), lambda: (), act_on_state, lambda *_: None)


def return_of(agent: Agent, params=()) -> float:
    returns = jax.jit(lambda keys, params: run.mean_return(agent, ENV, keys, params))
    return float(returns(STARTS, params))


def recorded(steps: Transition) -> Demonstrations:
    """Four whole episodes, of transitions `[4, L]`."""
    return Demonstrations(
        obs=jnp.concatenate([steps.obs[:, :1], steps.next_obs], axis=1),
        actions=steps.action,
        length=jnp.full((4,), ENV.spec.episode_length, jnp.int32),
        terminal=jnp.zeros((4,), bool),
        observed=(0, 1, 2),
    )


def train(
    agent: Agent, rollouts: loop.Config, steps: int, demos, seeds: int, env=ENV
) -> run.Epoch:
    """The last epoch, after `steps` steps a seed; one seed after another, which is
    faster on a CPU."""
    config = run.Config(
        total_steps=steps,
        evaluate_every=None,
        evaluation_episodes=EPISODES,
        seeds_by="map",
    )
    *_, last = run.train(agent, env, rollouts, config, demos, (0, seeds))
    assert last.step == steps
    return last


def returns_of_mail(demos: Demonstrations, steps: int, seeds: int, **options) -> np.ndarray:
    """MAIL's returns `[S]`."""
    config = dataclasses.replace(mail.Config(), **options)
    agent = mail.make(Task.of(ENV.spec, num_envs=ROLLOUTS.num_envs), config)
    return train(agent, ROLLOUTS, steps, demos, seeds).metrics["eval/return"]


@pytest.fixture(scope="module")
def expert(tmp_path_factory) -> Expert:
    agent = sac.make(Task.of(ENV.spec, num_envs=2), sac.Config())
    rollouts = loop.Config(num_envs=2, steps=100, rounds=5)
    last = train(agent, rollouts, 20_000, demonstrations.none(ENV.spec), 1)
    params = jax.tree.map(lambda leaf: leaf[0], last.state.agent.params)
    path = str(tmp_path_factory.mktemp("pendulum") / "pendulum.npz")
    expert = expert_policies.ExpertPolicy(ENV, agent, params, "sac")
    collect.record(expert, path, 4, seed=1, actions=True)

    def random(obs, key) -> jax.Array:
        return jax.random.uniform(key, (1,), jnp.float32, -2.0, 2.0)

    return Expert(
        demos=demonstrations.load(path, ENV.spec),
        value=return_of(agent, params),
        floor=return_of(controller(random)),
    )


@pytest.fixture(scope="module")
def imitated(expert) -> np.ndarray:
    """Three seeds."""
    return returns_of_mail(expert.demos, 10_000, 3)


def test_every_seed_swings_up_like_the_expert(expert, imitated):
    assert expert.value - expert.floor > 900
    assert expert.loss(imitated).max() < 0.05


def test_cloning_two_demonstrations_loses_three_times_as_much(expert):
    """From four whole episodes cloning sometimes loses as little as MAIL."""
    two = jax.tree.map(lambda leaf: leaf[:2], expert.demos)
    agent = bc.make(Task.of(ENV.spec, observed=(0, 1, 2)), bc.Config())
    rollouts = loop.Config(num_envs=1, steps=1, rounds=30)
    bc_returns = train(agent, rollouts, 30, two, 3).metrics["eval/return"]
    imitated = returns_of_mail(two, 10_000, 3)
    print("two demonstrations: MAIL", imitated, "BC", bc_returns)
    assert expert.loss(bc_returns).min() > 3 * expert.loss(imitated).max()


def test_a_horizon_of_a_quarter_of_a_second_is_too_short_to_swing_up(expert):
    """5 steps, where 25 suffice, reach less than half of the expert's gain over chance."""
    short = returns_of_mail(expert.demos, 10_000, 2, horizon=5)
    assert expert.loss(short).min() > 0.5


def test_a_demonstrator_that_never_swings_up_is_imitated_too():
    """Within 5% of its return, which is worse than that of random actions."""

    def damping(obs, key) -> jax.Array:
        return jnp.clip(-obs[2:], -2.0, 2.0)

    demonstrator = controller(damping)
    keys = jax.random.split(jax.random.key(5), 4)
    steps, _ = jax.jit(lambda keys: loop.evaluate(demonstrator, ENV, (), keys))(keys)
    demos = recorded(steps)
    np.testing.assert_allclose(
        returns_of_mail(demos, 6000, 2), return_of(demonstrator), rtol=0.05
    )


def test_choices_are_learned_from_an_expert_that_plans_them():
    """Five torques: both seeds lose at most 15% of the expert's gain over chance."""
    env = envs.make("pendulum:choices=5")
    expert = expert_policies.make_expert("pendulum:choices=5", env)
    reached, floor = (
        float(jax.jit(lambda keys, a=a: run.mean_return(a, env, keys, ()))(STARTS))
        for a in (expert, expert_policies.make_random(env))
    )
    assert reached - floor > 900
    keys = jax.random.split(jax.random.key(1), 4)
    steps, _ = jax.jit(lambda keys: loop.evaluate(expert, env, (), keys))(keys)
    agent = mail.make(Task.of(env.spec, num_envs=ROLLOUTS.num_envs), mail.Config())
    last = train(agent, ROLLOUTS, 6000, recorded(steps), 2, env)
    assert ((reached - last.metrics["eval/return"]) / (reached - floor)).max() < 0.15
