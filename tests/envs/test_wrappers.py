import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.base import UsageError
from planil_jax.envs import navigation, pendulum, point_mass, probes, wrappers
from planil_jax.models import simulator

STEPS = 12


@functools.cache
def made(name: str):
    """One environment a name, so that every environment is compiled once."""
    point = point_mass.make(episode_length=10)
    return {
        "point": lambda: point,
        "repeated": lambda: wrappers.action_repeat(point, 3),
        "masked": lambda: wrappers.mask(point, (2, 0)),
        "noisy": lambda: wrappers.observation_noise(point, 0.5),
        "delayed": lambda: wrappers.action_delay(point, 2),
        "trembling": lambda: wrappers.tremble(point, 0.3),
        "choices": lambda: wrappers.choices(pendulum.make(), 5),
        "all": lambda: wrappers.observation_noise(
            wrappers.tremble(
                wrappers.action_delay(
                    wrappers.mask(wrappers.action_repeat(navigation.make(), 2), (0, 1, 4)),
                    1,
                ),
                0.1,
            ),
            0.05,
        ),
    }[name]()


@functools.cache
def roller(name: str):
    env = made(name)

    def roll(key, actions):
        def step(state, action):
            next_state, transition = env.step(state, action)
            return next_state, (next_state, transition)

        start = env.reset(key)
        return start, *jax.lax.scan(step, start, actions)[1]

    return jax.jit(jax.vmap(roll))


def roll(name: str, actions=None, seed: int = 0):
    """Starts `[2]`, states and transitions `[2, T]` of two episodes."""
    if actions is None:
        size = (2, STEPS, made(name).spec.action_size)
        actions = np.random.default_rng(1).uniform(-1, 1, size)
    keys = jax.random.split(jax.random.key(seed), 2)
    return roller(name)(keys, jnp.asarray(actions, jnp.float32))


ACTIONS = np.random.default_rng(0).uniform(-1, 1, (2, STEPS, 2)).astype(np.float32)


# --------------------------------------------------------------------------- all wrappers


WRAPPED = ("repeated", "masked", "noisy", "delayed", "trembling", "choices", "all")


@pytest.mark.parametrize("name", WRAPPED)
def test_a_step_keeps_the_dtypes_of_the_state_and_none_is_weak(name):
    env = made(name)
    start = jax.eval_shape(env.reset, jax.random.key(0))
    action = jax.ShapeDtypeStruct((env.spec.action_size,), jnp.float32)
    next_state, transition = jax.eval_shape(env.step, start, action)
    leaves = jax.tree.leaves((start, next_state, transition))
    assert jax.tree.structure(start) == jax.tree.structure(next_state)
    for before, after in zip(
        jax.tree.leaves(start), jax.tree.leaves(next_state), strict=True
    ):
        assert (before.shape, before.dtype) == (after.shape, after.dtype)
    assert not any(leaf.weak_type for leaf in leaves)
    assert (start.obs.shape, start.time.dtype) == (
        (env.spec.observation_size,),
        jnp.int32,
    )
    assert (transition.terminal.dtype, transition.truncated.dtype) == (bool, bool)


@pytest.mark.parametrize("name", WRAPPED)
def test_a_transition_holds_the_agent_s_observations_before_and_after(name):
    start, states, rollout = roll(name)
    observed = jnp.concatenate([start.obs[:, None], states.obs], axis=1)
    np.testing.assert_array_equal(rollout.obs, observed[:, :-1])
    np.testing.assert_array_equal(rollout.next_obs, observed[:, 1:])


@pytest.mark.parametrize("name", ["repeated", "noisy", "delayed", "trembling"])
def test_an_episode_starts_in_the_same_state_as_without_the_wrapper(name):
    start, _, _ = roll(name, ACTIONS)
    plain, _, _ = roll("point", ACTIONS)
    np.testing.assert_array_equal(start.sim.inner.obs, plain.obs)


@pytest.mark.parametrize("name", ["delayed", "trembling", "repeated"])
def test_a_transition_records_the_chosen_action(name):
    _, _, rollout = roll(name, ACTIONS)
    np.testing.assert_array_equal(rollout.action, ACTIONS)


# ------------------------------------------------------------------------- action_repeat


def test_a_repeated_step_is_that_many_steps_under_one_action():
    start, _, rollout = roll("repeated", ACTIONS)
    _, _, plain = roll("point", np.repeat(ACTIONS[:, : STEPS // 3], 3, axis=1))
    for step in range(3):  # 9 of 10 inner steps
        inner = slice(3 * step, 3 * step + 3)
        np.testing.assert_allclose(rollout.obs[:, step], plain.obs[:, 3 * step], rtol=1e-6)
        np.testing.assert_allclose(
            rollout.next_obs[:, step], plain.next_obs[:, 3 * step + 2], rtol=1e-5
        )
        np.testing.assert_allclose(
            rollout.reward[:, step], plain.reward[:, inner].sum(1), rtol=1e-5
        )
        assert not rollout.truncated[:, step].any()


def test_repeats_after_the_end_of_an_episode_are_skipped():
    _, states, rollout = roll("repeated", ACTIONS)
    _, _, plain = roll("point", np.repeat(ACTIONS[:, : STEPS // 3], 3, axis=1))
    # The episode of 10 ends with the first step of the fourth repeat.
    assert rollout.truncated[:, 3].all()
    np.testing.assert_allclose(rollout.next_obs[:, 3], plain.next_obs[:, 9], rtol=1e-5)
    np.testing.assert_allclose(rollout.reward[:, 3], plain.reward[:, 9], rtol=1e-5)
    np.testing.assert_array_equal(states.time[0], np.arange(1, STEPS + 1))


def test_a_terminal_step_within_a_repeat_is_recorded_with_the_reward_until_then():
    env = wrappers.action_repeat(probes.countdown(5), 3)
    state, rollout = env.reset(jax.random.key(0)), []
    for _ in range(2):
        state, transition = env.step(state, jnp.zeros((1,)))
        rollout.append(transition)
    assert [float(t.reward) for t in rollout] == [3.0, 2.0]
    assert [bool(t.terminal) for t in rollout] == [False, True]
    assert [float(t.next_obs[0]) for t in rollout] == [2.0, 0.0]


def test_a_repeat_rescales_the_episode_and_the_period():
    spec = made("repeated").spec
    assert spec.episode_length == 4  # 10 steps are 3 + 3 + 3 + 1
    np.testing.assert_allclose(spec.control_period, 0.3)


def test_the_prior_repeats_its_step():
    plain = navigation.make()
    env = wrappers.action_repeat(plain, 3)
    action, key = jnp.array([0.7, -0.5]), jax.random.key(0)
    z = env.prior.step((), env.prior.start((), env.reset(key)), action, key)
    expected = plain.prior.start((), plain.reset(key))
    for _ in range(3):
        expected = plain.prior.step((), expected, action, key)
    np.testing.assert_allclose(
        env.prior.observe((), z), plain.prior.observe((), expected), rtol=1e-5
    )


# ---------------------------------------------------------------------------------- mask


def test_a_masked_observation_holds_the_chosen_entries_in_the_chosen_order():
    start, _, rollout = roll("masked", ACTIONS)
    plain_start, _, plain = roll("point", ACTIONS)
    np.testing.assert_array_equal(start.obs, plain_start.obs[:, [2, 0]])
    np.testing.assert_allclose(rollout.next_obs, plain.next_obs[..., [2, 0]], rtol=1e-6)
    np.testing.assert_allclose(rollout.reward, plain.reward, rtol=1e-6)
    assert made("masked").spec.observation_names == ("x velocity [m/s]", "x [m]")


def test_functions_of_the_whole_observation_are_none_after_masking():
    plain = navigation.make()
    part = wrappers.mask(plain, (0, 1))
    whole = wrappers.mask(plain, range(7))
    assert part.success is None and part.expert_cost is None
    assert whole.success is plain.success and whole.expert_cost is plain.expert_cost


def test_the_prior_of_a_masked_environment_starts_from_the_whole_state():
    plain = navigation.make()
    env = wrappers.mask(plain, (4, 0))
    action, key = jnp.array([0.7, -0.5]), jax.random.key(2)
    state, full = env.reset(key), plain.reset(key)
    for _ in range(3):
        state, full = env.step(state, action)[0], plain.step(full, action)[0]
    z = env.prior.step((), env.prior.start((), state), action, key)
    expected = plain.prior.step((), plain.prior.start((), full), action, key)
    masked = plain.prior.observe((), expected)[jnp.array([4, 0])]
    np.testing.assert_allclose(env.prior.observe((), z), masked, rtol=1e-5)
    assert env.prior.recover is None and plain.prior.recover is not None


# ----------------------------------------------------------------------------- the rest


def same(found, wanted) -> None:
    """Equal but for the rounding of two programs, which fuse operations differently."""
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_noise_has_the_given_std_and_changes_neither_reward_nor_state():
    noise = []
    for seed in range(20):
        start, states, rollout = roll("noisy", ACTIONS, seed)
        _, plain_states, plain = roll("point", ACTIONS, seed)
        same(rollout.reward, plain.reward)
        same(states.sim.inner.obs, plain_states.obs)
        noise += [states.obs - plain_states.obs, (start.obs - start.sim.inner.obs)[:, None]]
    noise = np.concatenate([draws.ravel() for draws in noise])  # 2080 draws
    # Five standard errors: 0.5 / √2080 of the mean, 0.5 / √4160 of the deviation.
    assert abs(noise.mean()) < 0.055 and abs(noise.std() - 0.5) < 0.04
    assert len(np.unique(noise)) > 0.99 * len(noise)


def test_the_prior_of_a_noisy_environment_starts_from_the_noisy_observation():
    env = wrappers.observation_noise(wrappers.mask(navigation.make(), (4, 0)), 0.5)
    state = env.reset(jax.random.key(0))
    z = env.prior.start((), state)
    np.testing.assert_array_equal(env.prior.observe((), z), state.obs)
    hidden = navigation.make().reset(jax.random.key(0))
    np.testing.assert_array_equal(z.y, hidden.sim.y)


def test_a_delayed_action_takes_effect_after_the_given_steps():
    _, _, rollout = roll("delayed", ACTIONS)
    late = np.concatenate([np.zeros((2, 2, 2), np.float32), ACTIONS[:, :-2]], axis=1)
    _, _, plain = roll("point", late)
    same(rollout.next_obs, plain.next_obs)
    same(rollout.reward, plain.reward)


@pytest.mark.parametrize(("low", "high", "idle"), [(0.5, 1.0, 0.5), (-2.0, -1.0, -1.0)])
def test_the_first_delayed_actions_are_the_bounded_action_nearest_to_zero(low, high, idle):
    env = point_mass.make()
    env = env._replace(
        spec=env.spec._replace(action_low=(low,) * 2, action_high=(high,) * 2)
    )
    queue = wrappers.action_delay(env, 3).reset(jax.random.key(0)).sim.memory
    np.testing.assert_array_equal(queue, np.full((3, 2), idle))


def test_tremble_takes_random_actions_with_the_given_probability():
    slips, total, sizes = 0, 0, []
    for seed in range(40):
        start, states, _ = roll("trembling", ACTIONS, seed)
        velocity = jnp.concatenate([start.obs[:, None], states.obs], axis=1)[..., 2:]
        done = np.diff(velocity, axis=1) / 0.1
        slipped = np.abs(done - ACTIONS).max(-1) > 1e-4
        slips, total = slips + slipped.sum(), total + slipped.size
        sizes.append(done[slipped].ravel())
    sizes = np.concatenate(sizes)
    # 960 actions: 0.3 within five standard errors of 0.0148.
    assert abs(slips / total - 0.3) < 0.075
    assert sizes.min() < -0.9 and 0.9 < sizes.max() and (np.abs(sizes) < 1.0001).all()
    assert abs(sizes.mean()) < 0.12  # five standard errors of 1 / √3 / √576


@pytest.mark.parametrize("choice", range(5))
def test_a_choice_acts_like_its_action_and_is_recorded_one_hot(choice):
    """Torques -2, -1, 0, 1 and 2; the largest entry is the choice."""
    plain, env = pendulum.make(), made("choices")
    key, torque = jax.random.key(choice), jnp.array([choice - 2.0])
    relaxed = jnp.full(5, 0.2).at[choice].set(0.9)
    next_state, transition = env.step(env.reset(key), relaxed)
    wanted, plain_transition = plain.step(plain.reset(key), torque)
    np.testing.assert_array_equal(next_state.obs, wanted.obs)
    np.testing.assert_array_equal(transition.reward, plain_transition.reward)
    np.testing.assert_array_equal(transition.action, np.eye(5)[choice])
    cost = env.expert_cost(transition.obs, relaxed, transition.next_obs)
    assert cost == plain.expert_cost(transition.obs, torque, transition.next_obs)


def test_choices_are_in_the_specification_and_states_are_not_wrapped():
    spec, env = made("choices").spec, made("choices")
    assert spec.discrete and spec.action_form == "one of 5 choices"
    assert (spec.action_low, spec.action_high) == ((0.0,) * 5, (1.0,) * 5)
    assert isinstance(env.reset(jax.random.key(0)).sim, pendulum.Pendulum)
    assert env.recover is pendulum.recover


def test_the_gradient_in_a_choice_is_that_of_the_sum_of_levels():
    """The speed gains 0.15 of the torque; the torques are -2 to 2."""
    env = made("choices")
    state = env.reset(jax.random.key(0))
    slope = jax.grad(lambda action: env.step(state, action)[0].sim.speed)(jnp.eye(5)[1])
    np.testing.assert_allclose(slope, 0.15 * np.arange(-2.0, 3.0), rtol=1e-5)


def test_prior_and_demonstrator_convert_choices():
    line = pendulum.make()
    prior = simulator.make(line)
    line = line._replace(prior=prior, demonstrator=lambda state: jnp.array([0.6]))
    env, key = wrappers.choices(line, 5), jax.random.key(0)
    state = env.reset(key)
    predicted = env.prior.step((), state, jnp.eye(5)[4], key)
    np.testing.assert_array_equal(predicted.obs, line.step(state, jnp.array([2.0]))[0].obs)
    np.testing.assert_array_equal(env.demonstrator(state), np.eye(5)[3])


def test_tremble_with_probability_1_makes_all_choices_equally_likely():
    """Uniform vectors: a largest entry is any of 5; four standard errors are 0.036."""
    env = made("choices")
    random = jax.random.uniform(jax.random.key(0), (2000, 5))
    state = env.reset(jax.random.key(0))
    transitions = jax.vmap(lambda action: env.step(state, action)[1])(random)
    np.testing.assert_allclose(transitions.action.mean(0), 0.2, atol=0.036)


@pytest.mark.parametrize("seed", range(2))
def test_a_perfect_model_predicts_a_wrapped_environment(seed):
    """Delays, slips and noise come from keys in the state, so even they are predicted."""
    env = made("all")
    action, key = jnp.array([0.9, 0.3]), jax.random.key(seed)
    step = jax.jit(env.step)
    once, twice = env.reset(key), env.reset(key)
    for _ in range(2):
        once, transition = step(once, action)
        twice, again = step(twice, action)
        np.testing.assert_array_equal(transition.next_obs, again.next_obs)


@pytest.mark.parametrize(
    ("wrap", "named"),
    [
        (lambda env: wrappers.action_repeat(env, 0), "action_repeat must be a whole"),
        (lambda env: wrappers.action_delay(env, -1), "action_delay must be a whole"),
        (lambda env: wrappers.tremble(env, 1.5), r"tremble must be in \[0, 1\], not 1.5"),
        (
            lambda env: wrappers.observation_noise(env, -1.0),
            "noise must be >= 0",
        ),
        (lambda env: wrappers.choices(env, 1), "choices must be a whole number >= 2"),
        (
            lambda env: wrappers.choices(wrappers.choices(env, 3), 3),
            "option choices wants .* 1 continuous number, but here it is one of 3 choices",
        ),
        (
            lambda env: wrappers.choices(point_mass.make(), 3),
            "'point_mass': option choices wants .*, but here it is 2 continuous numbers",
        ),
        (lambda env: wrappers.mask(env, (0, 0)), r"0 to 2, not '0\+0'"),
        (lambda env: wrappers.mask(env, ()), "observe must be different entries"),
        (lambda env: wrappers.mask(env, (-1,)), "observe must be different entries"),
    ],
)
def test_an_impossible_value_is_refused_by_name(wrap, named):
    with pytest.raises(UsageError, match=named):
        wrap(pendulum.make())


def test_a_demonstrator_acts_on_the_noisy_observation():
    point = point_mass.make()._replace(demonstrator=lambda state: state.obs[:2])
    noisy = wrappers.observation_noise(point, 0.5)
    late = wrappers.action_delay(noisy, 2)
    for env in (noisy, late):
        state = env.reset(jax.random.key(0))
        np.testing.assert_array_equal(env.demonstrator(state), state.obs[:2])
    truth = noisy.reset(jax.random.key(0)).sim.inner.obs
    assert not np.allclose(truth[:2], state.obs[:2])
    assert wrappers.tremble(point_mass.make(), 0.5).demonstrator is None
