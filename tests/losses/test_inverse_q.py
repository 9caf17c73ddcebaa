"""Identities of inverse soft Q-learning, in small tables with exact values.

P is `[S, A, S]`, policies `[S, A]`; occupancies are (1 - γ) Σ γ^t P(s_t, a_t).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from planil_jax.losses import inverse_q

pytestmark = pytest.mark.fast

STATES, ACTIONS, GAMMA, BETA, ALPHA = 6, 3, 0.9, 0.7, 0.5
RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(STATES), (STATES, ACTIONS))
START = RNG.dirichlet(np.ones(STATES))
REWARD = RNG.normal(size=(STATES, ACTIONS))


def random_policy(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(ACTIONS), STATES)


def occupancy(policy: np.ndarray) -> np.ndarray:
    """`[S, A]`, adding up to 1."""
    flow = np.einsum("sa,sat->st", policy, P)
    states = np.linalg.solve(np.eye(STATES) - GAMMA * flow.T, (1 - GAMMA) * START)
    return states[:, None] * policy


def soft_value(q: np.ndarray, policy: np.ndarray) -> np.ndarray:
    return np.sum(policy * (q - BETA * np.log(policy)), axis=1)


def soft_evaluation(reward: np.ndarray, policy: np.ndarray) -> np.ndarray:
    """Q `[S, A]` of a policy, exactly."""
    flow = np.einsum("sa,sat->st", policy, P)
    soft_reward = np.sum(policy * (reward - BETA * np.log(policy)), axis=1)
    value = np.linalg.solve(np.eye(STATES) - GAMMA * flow, soft_reward)
    return reward + GAMMA * P @ value


def decoded(q: np.ndarray, policy: np.ndarray) -> np.ndarray:
    """r of every state and action, in expectation over the next state."""
    next_values = np.broadcast_to(soft_value(q, policy), P.shape)
    rewards = inverse_q.decoded_rewards(
        jnp.asarray(q[..., None]), jnp.asarray(next_values), jnp.zeros(P.shape, bool), GAMMA
    )
    return np.sum(P * np.asarray(rewards), axis=2)


def test_the_discounted_gain_of_value_is_that_of_the_start_whatever_the_policy():
    """E_ρ[V - γ P V] = (1 - γ) E_{p_0} V, for any V: both forms of the term c agree."""
    for seed in range(3):
        value = np.random.default_rng(seed).normal(size=STATES)
        rho = occupancy(random_policy(seed))
        gain = np.sum(rho * (value[:, None] - GAMMA * P @ value))
        np.testing.assert_allclose(gain, (1 - GAMMA) * START @ value, rtol=1e-10)


def test_a_decoded_reward_evaluates_to_the_critic_that_it_was_decoded_from():
    policy, q = random_policy(1), RNG.normal(size=(STATES, ACTIONS))
    reward = decoded(q, policy)
    np.testing.assert_allclose(soft_evaluation(reward, policy), q, rtol=1e-5, atol=1e-5)


def test_decoding_gives_back_the_reward_that_a_critic_evaluates():
    policy = random_policy(2)
    found = decoded(soft_evaluation(REWARD, policy), policy)
    np.testing.assert_allclose(found, REWARD, rtol=1e-5, atol=1e-5)


def test_a_terminal_step_has_no_next_value():
    rewards = inverse_q.decoded_rewards(
        jnp.array([2.0, 2.0]), jnp.array([10.0, 10.0]), jnp.array([False, True]), GAMMA
    )
    np.testing.assert_allclose(rewards, [2.0 - 9.0, 2.0])


def test_the_optimal_rewards_are_a_ratio_of_densities_within_four_alpha():
    """r = 4 α (ρ_E - ρ_π) / (ρ_E + ρ_π): found by descent on the loss itself.

    Here c = E_π[r] of the learner, which is its value where Q is evaluated exactly.
    """
    expert, learner = (occupancy(random_policy(seed)).ravel() for seed in (3, 4))
    count = 4000
    # Samples in the proportions of the two densities, up to rounding.
    drawn = [
        np.repeat(np.arange(expert.size), np.round(count * rho).astype(int))
        for rho in (expert, learner)
    ]
    size = min(map(len, drawn))
    rng = np.random.default_rng(5)
    rows = [jnp.asarray(rng.permutation(states)[:size]) for states in drawn]

    @jax.jit
    def descend(reward):
        def loss(reward):
            start = jnp.mean(reward[rows[1]])
            return inverse_q.inverse_soft_q(reward[rows[0]], reward[rows[1]], start, ALPHA)

        return jax.lax.fori_loop(0, 3000, lambda _, r: r - 2.0 * jax.grad(loss)(r), reward)

    found = descend(jnp.zeros(expert.size))
    shares = [np.bincount(states, minlength=expert.size) / size for states in rows]
    wanted = 4 * ALPHA * (shares[0] - shares[1]) / (shares[0] + shares[1])
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    assert np.abs(found).max() <= 4 * ALPHA
    assert np.abs(found).max() > 2 * ALPHA  # so that the bound matters


def test_the_gradient_is_that_of_squared_errors_to_plus_and_minus_four_alpha():
    """IQ-Learn with c = E_π[r] is SQIL with rewards ±4α, up to a constant."""
    expert, learner = RNG.normal(size=8), RNG.normal(size=8)

    def inverse(expert, learner):
        return inverse_q.inverse_soft_q(expert, learner, jnp.mean(learner), ALPHA)

    def squared(expert, learner):
        bound = 4 * ALPHA
        up, down = jnp.mean((expert - bound) ** 2), jnp.mean((learner + bound) ** 2)
        return (up + down) / (8 * ALPHA)

    arguments = jnp.asarray(expert), jnp.asarray(learner)
    found = jax.grad(inverse, (0, 1))(*arguments)
    wanted = jax.grad(squared, (0, 1))(*arguments)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_the_loss_equals_its_formula(alpha):
    found = inverse_q.inverse_soft_q(
        jnp.array([1.0, 3.0]), jnp.array([-1.0, 1.0]), jnp.array(0.25), alpha
    )
    squares = (1.0 + 9.0 + 1.0 + 1.0) / 4
    np.testing.assert_allclose(found, -2.0 + 0.25 + squares / (4 * alpha))


# ------------------------------------------------------- what its minimum is, in the table


def soft_optimal(reward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """V* `[S]` and the policy `[S, A]` of soft value iteration."""
    value = np.zeros(STATES)
    for _ in range(2000):
        q = reward + GAMMA * P @ value
        value = BETA * np.log(np.sum(np.exp(q / BETA), axis=1))
    return value, np.exp((q - value[:, None]) / BETA)


def minimised(rho: np.ndarray, alpha: float) -> np.ndarray:
    """Q `[S, A]` of the least loss on an expert's occupancy, with V of Q's own policy.

    Every state and action stands in the batch as often as it is visited; without a penalty,
    whose squares do not allow that, once and weighed, so that flows are conserved exactly.
    The learner's steps are the expert's: the penalty is on these alone.
    """
    count = np.round(200_000 * rho).astype(int).reshape(-1)
    rows = np.repeat(np.arange(STATES * ACTIONS), count)
    begin = jnp.asarray((1 - GAMMA) * START)

    def loss(q):
        q = q.reshape(STATES, ACTIONS)
        value = BETA * jax.nn.logsumexp(q / BETA, axis=1)
        next_values = jnp.asarray(P) @ value
        no = jnp.zeros(q.shape, bool)
        rewards = inverse_q.decoded_rewards(q, next_values, no, GAMMA)
        samples = rewards.reshape(-1)[rows]
        if np.isinf(alpha):
            samples = (rewards * rho * rho.size).reshape(-1)
        return inverse_q.inverse_soft_q(samples, samples, begin @ value, alpha)

    loss_and_gradient = jax.jit(jax.value_and_grad(loss))
    found = optimize.minimize(
        lambda q: tuple(np.asarray(x, np.float64) for x in loss_and_gradient(q)),
        np.zeros(STATES * ACTIONS),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-7, "maxiter": 2000},
    )
    return found.x.reshape(STATES, ACTIONS)


def policy_of(q: np.ndarray) -> np.ndarray:
    return np.asarray(jax.nn.softmax(jnp.asarray(q) / BETA, axis=1))


def test_without_a_penalty_the_reward_is_recovered_up_to_a_potential():
    """π_Q = π_E, and r_Q - r = Δ - γ P Δ with Δ = V_Q - V*: not the reward itself."""
    with jax.enable_x64(True):
        best, expert = soft_optimal(REWARD)
        q = minimised(occupancy(expert), alpha=np.inf)
        value = BETA * np.log(np.sum(np.exp(q / BETA), axis=1))
        gap = value - best
    np.testing.assert_allclose(policy_of(q), expert, atol=1e-3)
    found = q - GAMMA * P @ value - REWARD
    np.testing.assert_allclose(found, gap[:, None] - GAMMA * P @ gap, atol=1e-2)
    assert np.abs(found).max() > 0.5


def test_the_policy_s_bias_falls_as_alpha_grows():
    """So π_Q = π_E is no test of a critic that was trained at α = 0.5."""
    _, expert = soft_optimal(REWARD)
    rho, off = occupancy(expert), []
    with jax.enable_x64(True):
        for alpha in (0.5, 5.0, 50.0):
            off.append(np.abs(policy_of(minimised(rho, alpha)) - expert).max())
    assert off[0] > 0.05 and off[0] > 3 * off[1] > 9 * off[2]
