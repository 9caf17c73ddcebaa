import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.losses import adversarial, returns

pytestmark = pytest.mark.fast

lambda_returns = jax.jit(returns.lambda_returns)
advantages = jax.jit(returns.advantages)


def trajectory(seed: int, length: int = 12, cuts: tuple = (), terminals: tuple = ()):
    """Rewards, next values, discounts and cut of a random trajectory, all `[T]`."""
    rng = np.random.default_rng(seed)
    cut = np.isin(np.arange(length), (*cuts, *terminals))
    discounts = np.where(np.isin(np.arange(length), terminals), 0.0, 0.9)
    rewards, next_values = rng.normal(size=(2, length))
    return rewards, next_values, discounts, cut


def mixture(rewards, next_values, discounts, cut, td_lambda: float) -> np.ndarray:
    """The forward view: every n-step return of the episode, weighed (1 - λ) λ^(n - 1).

    What weight remains after the last step of the episode goes to its longest return.
    """
    mixed = []
    for t in range(len(rewards)):
        end = next((s for s in range(t, len(cut)) if cut[s]), len(cut) - 1)
        total, discount, reward_sum = 0.0, 1.0, 0.0
        for n, s in enumerate(range(t, end + 1), start=1):
            reward_sum += discount * rewards[s]
            discount *= discounts[s]
            weight = td_lambda ** (n - 1) * (1.0 if s == end else 1 - td_lambda)
            total += weight * (reward_sum + discount * next_values[s])
        mixed.append(total)
    return np.array(mixed)


@pytest.mark.parametrize("td_lambda", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize(
    "ends",
    [
        {},
        {"cuts": (5,)},
        {"terminals": (5,)},
        {"cuts": (0, 7), "terminals": (3, 8)},
        {"cuts": (11,)},
        {"terminals": (11,)},
    ],
)
def test_lambda_returns_are_the_mixture_of_n_step_returns(td_lambda, ends):
    for seed in range(3):
        case = trajectory(seed, **ends)
        expected = mixture(*case, td_lambda)
        np.testing.assert_allclose(lambda_returns(*case, td_lambda), expected, atol=1e-5)


def test_at_lambda_zero_they_are_one_step_returns():
    rewards, next_values, discounts, cut = case = trajectory(0, cuts=(4,), terminals=(8,))
    expected = rewards + discounts * next_values
    np.testing.assert_allclose(lambda_returns(*case, 0.0), expected, atol=1e-6)


def test_at_lambda_one_they_are_discounted_sums_that_bootstrap_at_the_last_step():
    rewards, next_values, discounts, cut = case = trajectory(0)
    powers = 0.9 ** np.arange(13)
    expected = [
        powers[: 12 - t] @ rewards[t:] + powers[12 - t] * next_values[-1] for t in range(12)
    ]
    np.testing.assert_allclose(lambda_returns(*case, 1.0), expected, atol=1e-5)


def test_a_cut_by_time_bootstraps_and_a_terminal_does_not():
    """One reward of 1 a step, γ = 0.5, V = 10 everywhere, λ = 1; an end after step 1."""
    ones, tens = jnp.ones(4), jnp.full(4, 10.0)
    cut = jnp.array([False, True, False, False])
    halves = jnp.full(4, 0.5)
    truncated = lambda_returns(ones, tens, halves, cut, 1.0)
    np.testing.assert_allclose(truncated, [1 + 0.5 * 6, 6, 1 + 0.5 * 6, 6])
    terminal = lambda_returns(ones, tens, halves.at[1].set(0.0), cut, 1.0)
    np.testing.assert_allclose(terminal, [1.5, 1, 1 + 0.5 * 6, 6])


def test_nothing_flows_back_over_a_cut():
    case = [jnp.asarray(part) for part in trajectory(1, cuts=(4,))]
    jacobian = np.array(jax.jit(jax.jacrev(returns.lambda_returns))(*case, 0.95))
    np.testing.assert_array_equal(jacobian[:5, 5:], 0.0)
    assert (jacobian[0, :5] > 0.1).all() and (jacobian[5, 5:] > 0.1).all()


@pytest.mark.parametrize(
    ("form", "going_on", "ending"),
    [
        ("logit", 0.0, 0.0),
        ("gail_pos", 69.3147, 0.693147),
        ("gail_neg", -69.3147, -0.693147),
        ("prob", 50.0, 0.5),
        ("neg_prob", -50.0, -0.5),
    ],
)
def test_the_values_of_going_on_and_of_ending_at_a_logit_of_zero(form, going_on, ending):
    """The bias of each reward form where episodes may end: γ = 0.99, no absorbing state."""
    rewards = adversarial.REWARDS[form](jnp.zeros(5))
    values = jnp.full(5, going_on)  # of going on for ever
    cut = jnp.array([False] * 4 + [True])
    discounts = jnp.full(5, 0.99)
    on = lambda_returns(rewards, values, discounts, cut, 0.95)
    np.testing.assert_allclose(on, going_on, rtol=1e-4)
    end = lambda_returns(rewards, values, discounts.at[-1].set(0.0), cut, 0.95)
    np.testing.assert_allclose(end[-1], ending, rtol=1e-4)


@pytest.mark.parametrize("form", adversarial.REWARDS)
def test_an_end_in_an_absorbing_state_is_worth_as_much_as_going_on(form):
    """The absorbing state's logit is zero. Its reward is paid for ever, discounted."""
    rewards = adversarial.REWARDS[form](jnp.zeros(5))
    for_ever = jnp.full(5, float(rewards[0]) / (1 - 0.99))
    discounts = jnp.full(5, 0.99)  # never 0: the absorbing state follows the end
    ended = jnp.array([False, False, True, False, True])
    ending = lambda_returns(rewards, for_ever, discounts, ended, 0.95)
    going_on = lambda_returns(rewards, for_ever, discounts, jnp.zeros(5, bool), 0.95)
    np.testing.assert_allclose(ending, for_ever, rtol=1e-4)
    np.testing.assert_allclose(ending, going_on, rtol=1e-4)


@pytest.mark.parametrize("part", range(4))
def test_parts_of_unequal_length_or_rank_are_refused(part):
    case = [jnp.asarray(part) for part in trajectory(0)]
    for wrong in (case[part][:-1], case[part][:, None], case[part][0]):
        with pytest.raises(AssertionError):
            returns.lambda_returns(*case[:part], wrong, *case[part + 1 :], 0.95)


# ----------------------------------------------------------------------------- advantages


def sums_of_td_errors(
    rewards, values, next_values, discounts, cut, td_lambda
) -> np.ndarray:
    """Σ_k (Π γλ) δ_{t+k} up to the end of the episode or of the rollout, `[T]`."""
    errors = rewards + discounts * next_values - values
    sums = []
    for t in range(len(rewards)):
        total, weight = 0.0, 1.0
        for s in range(t, len(rewards)):
            total += weight * errors[s]
            weight *= discounts[s] * td_lambda
            if cut[s]:
                break
        sums.append(total)
    return np.array(sums)


@pytest.mark.parametrize("td_lambda", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize(
    "ends",
    [
        {},
        {"cuts": (5,)},
        {"terminals": (5,)},
        {"cuts": (0, 7), "terminals": (3, 8)},
        {"cuts": (11,)},
        {"terminals": (11,)},
    ],
)
def test_advantages_are_the_discounted_sums_of_td_errors(td_lambda, ends):
    """Values agree from step to step, except where a cut separates two episodes."""
    for seed in range(3):
        rewards, next_values, discounts, cut = trajectory(seed, **ends)
        values = np.random.default_rng(100 + seed).normal(size=12)
        same = np.append(values[1:], next_values[-1])
        next_values = np.where(cut, next_values, same)
        case = rewards, values, next_values, discounts, cut
        found, targets = advantages(*case, td_lambda)
        expected = sums_of_td_errors(*case, td_lambda)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_allclose(targets, expected + values, atol=1e-5)


def test_the_true_values_leave_no_advantage():
    """One reward a step for ever is worth 1 / (1 - γ), and k steps before an end less."""
    ones, worth = np.ones(6), np.full(6, 10.0)
    cut = np.isin(np.arange(6), (2,))
    found, _ = advantages(ones, worth, worth, np.full(6, 0.9), cut, 0.95)
    np.testing.assert_allclose(found, 0.0, atol=1e-5)
    left = (1 - 0.9 ** np.arange(6, -1, -1)) / (1 - 0.9)
    discounts = np.append(np.full(5, 0.9), 0.0)
    cut = np.isin(np.arange(6), (5,))
    found, _ = advantages(ones, left[:-1], left[1:], discounts, cut, 0.95)
    np.testing.assert_allclose(found, 0.0, atol=1e-5)


@pytest.mark.parametrize("part", range(5))
def test_advantages_of_parts_of_unequal_length_or_rank_are_refused(part):
    rewards, next_values, discounts, cut = map(jnp.asarray, trajectory(0))
    case = [rewards, next_values, next_values, discounts, cut]
    for wrong in (case[part][:-1], case[part][:, None], case[part][0]):
        with pytest.raises(AssertionError):
            returns.advantages(*case[:part], wrong, *case[part + 1 :], 0.95)
