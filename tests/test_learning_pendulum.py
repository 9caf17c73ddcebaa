"""Imitation of swing-ups, and of a demonstrator who never swings up.

All returns are means over the same 20 starts, of the last parameters. The pendulum never
ends early, so no form of reward wins by its bias.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.agents import adversarial, bc, ppo
from planil_jax.base import Agent, Demonstrations, Task
from planil_jax.data import demos as demonstrations
from planil_jax.evaluation import collect, expert_policies
from planil_jax.models import simulator
from planil_jax.training import loop, run

pytestmark = pytest.mark.optimised
ENV = envs.make("pendulum")
EPISODES = 20
STARTS = jax.random.split(jax.random.key(run.EVALUATION_SEED), EPISODES)
GAIFO = adversarial.Config(
    form="gaifo",
    learner=ppo.Config(
        discount=0.98, learning_rate=1e-3, lr_half_life=20, epochs=5, minibatches=16
    ),
    lr_half_life=20,
)
# 32,000 steps an epoch
ROLLOUTS = loop.Config(num_envs=32, steps=200, rounds=5)


def controller(act) -> Agent:
    """An agent that learns nothing: `act(obs, key)` to `[1]`."""

    def of_state(params, carry, state, key, explore):
        return act(state.obs, key), carry

    return Agent(lambda key: (), lambda: (), of_state, lambda *_: None)


def random_action(obs, key) -> jax.Array:
    return jax.random.uniform(key, (1,), jnp.float32, -2.0, 2.0)


def damping(obs, key) -> jax.Array:
    """Brakes until the pendulum hangs still."""
    return jnp.clip(-obs[2:], -2.0, 2.0)


def return_of(agent: Agent) -> float:
    return float(jax.jit(lambda keys: run.mean_return(agent, ENV, keys, ()))(STARTS))


def trained(agent: Agent, rollouts: loop.Config, steps: int, demos, seeds: int = 2):
    """Returns `[S]` after so many steps a seed."""
    config = run.Config(
        total_steps=steps, evaluate_every=None, evaluation_episodes=EPISODES
    )
    *_, last = run.train(agent, ENV, rollouts, config, demos, (0, seeds))
    assert last.step == steps
    return last.metrics["eval/return"]


def gaifo() -> Agent:
    return adversarial.make(
        Task.of(ENV.spec, dynamics=simulator.prior_or_physics(ENV), observed=(0, 1, 2)),
        GAIFO,
    )


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> Demonstrations:
    """Four episodes of the scripted expert."""
    path = str(tmp_path_factory.mktemp("pendulum") / "pendulum.npz")
    collect.collect("pendulum", path, 4, seed=1, actions=True)
    return demonstrations.load(path, ENV.spec)


@pytest.fixture(scope="module")
def expert() -> float:
    return return_of(expert_policies.make_expert("pendulum", ENV))


def test_gaifo_swings_up_like_the_expert_from_4_observation_only_demonstrations(
    demos, expert
):
    """Within 5% of the expert's gain over random actions; 320,000 steps."""
    random = return_of(controller(random_action))
    assert expert - random > 900
    found = trained(gaifo(), ROLLOUTS, 320_000, demos.replace(actions=None))
    assert found.min() > expert - 0.05 * (expert - random)


def test_cloning_the_same_demonstrations_does_not(demos, expert):
    """Though it reads the actions, which GAIfO does not."""
    agent = bc.make(Task.of(ENV.spec, observed=(0, 1, 2)), bc.Config())
    found = trained(agent, loop.Config(num_envs=1, steps=1, rounds=30), 30, demos)
    assert found.max() < expert - 200


def test_a_demonstrator_who_never_swings_up_is_imitated_likewise():
    """Within 5% of the demonstrator's return, which is worse than a random policy's."""
    brakes = return_of(controller(damping))
    assert brakes < return_of(controller(random_action)) - 400
    keys = jax.random.split(jax.random.key(5), 4)
    steps, _ = jax.jit(lambda k: loop.evaluate(controller(damping), ENV, (), k))(keys)
    demos = Demonstrations(
        obs=jnp.concatenate([steps.obs[:, :1], steps.next_obs], axis=1),
        actions=None,
        length=jnp.full((4,), ENV.spec.episode_length, jnp.int32),
        terminal=jnp.zeros((4,), bool),
        observed=(0, 1, 2),
    )
    found = trained(gaifo(), ROLLOUTS, 96_000, demos)
    np.testing.assert_allclose(found, brakes, rtol=0.05)
