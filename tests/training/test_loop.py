import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax import struct

from planil_jax import envs
from planil_jax.agents import scripted
from planil_jax.base import Agent, Environment
from planil_jax.envs import point_mass, probes
from planil_jax.models import simulator
from planil_jax.planners import mppi
from planil_jax.training import loop

CONFIG = loop.Config(num_envs=6, steps=7, rounds=2, resets=3)


@struct.dataclass
class State:
    params: jax.Array  # [] added to every action
    updates: jax.Array  # [] int32


def counter(env: Environment) -> Agent:
    """Acts by its carry, the count of acts before this one, which shows where it was wiped.

    While it explores the count is positive, otherwise negative.
    """

    def act(params, carry, state, key, explore):
        count = carry if explore else -carry
        action = jnp.full((env.spec.action_size,), params + count, jnp.float32)
        return action, carry + jnp.float32(1.0)

    def update(state, rollout, demos, key, round_):
        metrics = {
            "test/round": jnp.float32(round_),
            "test/action": jnp.mean(rollout.action),
            "test/key": jax.random.uniform(key),
        }
        return State(state.params + 100.0, state.updates + 1), metrics

    return Agent(
        init=lambda key: State(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)),
        carry=lambda: jnp.zeros((), jnp.float32),
        act=act,
        update=update,
    )


@functools.cache
def collected(name: str = "point_mass", rollouts: int = 2):
    """`rollouts` of 7 steps, one after another, with episodes of 5: `[2 T, E]` as numpy."""
    env = {
        "point_mass": point_mass.make(episode_length=5),
        "terminal": probes.countdown(5),
        "truncated": probes.countdown(5, endless=True),
    }[name]
    agent = counter(env)

    @jax.jit
    def run(key):
        first_key, *keys = jax.random.split(key, rollouts + 1)
        started = loop.init(agent, env, CONFIG, first_key)
        states, carry, parts = started.env, started.carry, []
        for key in keys:
            states, carry, rollout = loop.collect(
                agent, env, CONFIG, started.agent.params, states, carry, key
            )
            parts.append(rollout)
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

    return jax.tree.map(np.array, run(jax.random.key(0)))


@functools.cache
def evaluated(name: str, length: int, keys: int = 4, shift: float = 0.0):
    """Transitions and alive `[B, L]` of `length` steps, also after the task's end."""
    env = envs.make(name)
    env = env._replace(spec=env.spec._replace(episode_length=length))
    run = functools.partial(loop.evaluate, counter(env), env)
    keys = jax.random.split(jax.random.key(1), keys)
    return jax.tree.map(np.array, jax.jit(run)(jnp.float32(shift), keys))


# -------------------------------------------------------------------------------- collect


def test_the_successor_is_the_true_one_where_an_episode_ends_too():
    """`next_obs` follows from obs and action by the physics, in every step."""
    rollout = collected()
    push = np.clip(rollout.action, -1, 1)
    velocity = rollout.obs[..., 2:] + 0.1 * push
    position = rollout.obs[..., :2] + 0.1 * velocity
    expected = np.concatenate([position, velocity], axis=-1)
    np.testing.assert_allclose(rollout.next_obs, expected, atol=1e-6)
    assert rollout.truncated.sum() == 2 * CONFIG.num_envs  # in 14 steps


def test_an_episode_goes_on_from_its_successor_and_a_new_one_starts_elsewhere():
    """Also from one rollout to the next."""
    rollout = collected()
    ended = rollout.truncated[:-1]
    goes_on = (rollout.obs[1:] == rollout.next_obs[:-1]).all(-1)
    np.testing.assert_array_equal(goes_on, ~ended)
    np.testing.assert_array_equal(rollout.obs[1:][ended][:, 2:], 0.0)  # at rest, as resets
    np.testing.assert_array_equal(rollout.truncated[:, 0], np.arange(1, 15) % 5 == 0)


def test_restarts_are_drawn_from_a_bank_that_is_new_in_every_rollout():
    rollout = collected()
    starts = rollout.obs[1:][rollout.truncated[:-1]]  # [2 E, O]: one a rollout
    first, second = starts[: CONFIG.num_envs], starts[CONFIG.num_envs :]
    for starts in (first, second):
        assert 1 < len(np.unique(starts, axis=0)) <= CONFIG.resets
    assert not set(map(tuple, first)) & set(map(tuple, second))
    assert not set(map(tuple, rollout.obs[0])) & set(map(tuple, starts))


def test_the_carry_is_wiped_at_a_restart_and_at_no_other_time():
    rollout = collected()
    expected = np.broadcast_to(np.arange(14)[:, None, None] % 5, rollout.action.shape)
    np.testing.assert_array_equal(rollout.action, expected)


@pytest.mark.parametrize("name", ["terminal", "truncated"])
def test_a_terminal_end_and_one_by_time_are_kept_apart_and_both_restart(name):
    rollout = collected(name)
    steps = np.arange(14)
    ends = np.broadcast_to((steps % 5 == 4)[:, None], (14, CONFIG.num_envs))
    other = {"terminal": "truncated", "truncated": "terminal"}[name]
    np.testing.assert_array_equal(getattr(rollout, name), ends)
    assert not getattr(rollout, other).any()
    np.testing.assert_array_equal(rollout.obs[:, 0, 0], 5 - steps % 5)
    np.testing.assert_array_equal(rollout.next_obs[:, 0, 0], 4 - steps % 5)
    np.testing.assert_array_equal(rollout.action[:, 0, 0], steps % 5)  # carries wiped


# ---------------------------------------------------------------------------------- epoch


@functools.cache
def epoch():
    """The state before an epoch and after it, and its metrics; its first round is 4."""
    env = point_mass.make(episode_length=5)
    agent = counter(env)
    before = jax.jit(functools.partial(loop.init, agent, env, CONFIG))(jax.random.key(0))
    run = jax.jit(functools.partial(loop.epoch, agent, env, CONFIG))
    return before, *run(toy.demonstrations(), jnp.int32(4), before)


def test_an_epoch_counts_its_rounds_from_the_first_and_averages_metrics_over_them():
    _, _, metrics = epoch()
    np.testing.assert_allclose(metrics["test/round"], (4 + 5) / 2)
    # The reward at rest within a unit square lies between -2 and 0; the loop reports it.
    assert -3.0 < metrics["train/reward"] < 0.0


def test_an_update_acts_from_the_next_round_on():
    """14 counts, 0 to 4 and again, seven a round; the second round adds 100 to them."""
    _, after, metrics = epoch()
    counts = np.arange(14) % 5
    np.testing.assert_allclose(metrics["test/action"], (counts.mean() + 50.0), rtol=1e-5)
    assert after.agent.updates == 2 and after.agent.params == 200.0


def test_an_epoch_returns_a_new_key_and_unfinished_episodes():
    before, after, _ = epoch()
    assert (jax.random.key_data(before.key) != jax.random.key_data(after.key)).any()
    np.testing.assert_array_equal(after.env.time, 14 % 5)
    np.testing.assert_array_equal(after.carry, 14 % 5)


def test_the_steps_of_an_epoch_are_those_of_all_environments_and_rounds():
    assert CONFIG.steps_per_epoch == 6 * 7 * 2


def planning(env: Environment) -> Agent:
    """An agent whose carry is a plan."""
    config = scripted.Config(planner=mppi.Config(samples=4, horizon=3))
    agent = scripted.make(env, simulator.prior_or_physics(env), config)
    return agent._replace(init=counter(env).init)


def kinds(tree) -> dict[str, tuple]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path): (leaf.shape, leaf.dtype, leaf.weak_type)
        for path, leaf in leaves
    }


def before_and_after(agent: Agent, env: Environment, config: loop.Config):
    before = jax.eval_shape(
        functools.partial(loop.init, agent, env, config), jax.random.key(0)
    )
    run = functools.partial(loop.epoch, agent, env, config)
    return before, jax.eval_shape(run, toy.demonstrations(), jnp.int32(0), before)[0]


@pytest.mark.parametrize("make_fn", [counter, planning])
@pytest.mark.parametrize("name", ["navigation", "pendulum", "point_mass"])
def test_an_epoch_gives_back_the_shapes_and_types_that_init_gave(name, make_fn):
    env = envs.make(name)
    before, after = before_and_after(make_fn(env), env, CONFIG)
    assert kinds(after) == kinds(before)
    assert all(leaf.shape[0] == CONFIG.num_envs for leaf in jax.tree.leaves(before.env))


@pytest.mark.parametrize("env", [probes.one_step(), probes.countdown(4), toy.environment()])
def test_an_epoch_of_a_probe_gives_back_the_shapes_and_types_that_init_gave(env):
    before, after = before_and_after(counter(env), env, CONFIG)
    assert kinds(after) == kinds(before)


def test_a_weakly_typed_leaf_is_noticed_by_these_tests():
    before, after = before_and_after(toy.agent(weak=True), toy.environment(), toy.LOOP)
    assert kinds(after) != kinds(before)


# ------------------------------------------------------------------------------- evaluate


def test_steps_after_a_terminal_one_are_not_alive():
    transitions, alive = evaluated("probe/countdown", 8)
    np.testing.assert_array_equal(alive, [[True] * 5 + [False] * 3] * 4)
    np.testing.assert_array_equal((alive * transitions.reward).sum(1), 5.0)


def test_an_episode_that_ends_at_once_has_one_step_alive_and_returns_its_coin():
    transitions, alive = evaluated("probe/one_step", 3, keys=16)
    np.testing.assert_array_equal(alive, [[True, False, False]] * 16)
    returns = (alive * transitions.reward).sum(1)
    np.testing.assert_array_equal(returns, transitions.obs[:, 0, 0])
    assert set(returns) == {-1.0, 1.0}


def test_an_evaluated_episode_has_the_length_of_the_environment():
    transitions, alive = evaluated("point_mass", 9)
    assert transitions.obs.shape == (4, 9, 4) and alive.all()
    np.testing.assert_array_equal(transitions.obs[:, 1:], transitions.next_obs[:, :-1])


def test_evaluation_does_not_explore_and_starts_with_a_fresh_carry():
    transitions, _ = evaluated("point_mass", 9)
    expected = np.broadcast_to(-np.arange(9)[None, :, None], (4, 9, 2))
    np.testing.assert_array_equal(transitions.action, expected)


def test_the_same_keys_give_the_same_starts_to_different_agents():
    one, _ = evaluated("point_mass", 9)
    other, _ = evaluated("point_mass", 9, shift=0.5)
    np.testing.assert_array_equal(one.obs[:, 0], other.obs[:, 0])
    assert (one.next_obs[:, -1] != other.next_obs[:, -1]).any(1).all()
    assert len(np.unique(one.obs[:, 0], axis=0)) == 4  # every key has another start
