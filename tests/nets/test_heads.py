"""Policies, against densities and slopes computed by hand in double precision."""

import functools
import math
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.base import EnvSpec, UsageError
from planil_jax.nets import heads, mlp

BOUNDS = [(-2.0, 2.0), (0.0, 1.0), (-0.5, 3.0)]
SMALL = heads.Config(network=mlp.Config(hidden=(4,), activation="tanh"))
DISCRETE = EnvSpec("choices", ("a",), (0.0,) * 4, (1.0,) * 4, 5, 0.1, discrete=True)


@functools.cache
def functions(low: tuple[float, ...], high: tuple[float, ...]):
    """`sample`, `log_prob` and `mode` of a policy within these bounds, compiled."""
    policy = heads.make(SMALL, (3,), low, high)
    return jax.jit(policy.sample), jax.jit(policy.log_prob), jax.jit(policy.mode)


def squashed(mean, std) -> heads.TanhNormal:
    return heads.TanhNormal(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))


def change_of_variables(action, mean, std, low, high) -> float:
    """log p(u) - log |da/du| of one entry, u found by inverting the squashing."""
    scaled = (action - (low + high) / 2) / ((high - low) / 2)
    u = math.atanh(scaled)
    slope = (high - low) / 2 * (1 - scaled**2)
    return math.log(NormalDist(mean, std).pdf(u)) - math.log(slope)


# -------------------------------------------------------------------------------- density


@pytest.mark.parametrize(("low", "high"), BOUNDS)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.6), (0.8, 0.3), (-0.5, 0.8)])
def test_the_density_integrates_to_one(low, high, mean, std):
    """By quadrature on even steps of u, which crowd near the bounds; within 1e-4."""
    u = np.linspace(-4.0, 4.0, 8001)
    actions = (low + high) / 2 + (high - low) / 2 * np.tanh(u)
    log_prob = functions((low,), (high,))[1]
    many = squashed(np.full((len(u), 1), mean), np.full((len(u), 1), std))
    density = np.exp(np.float64(log_prob(many, jnp.float32(actions)[:, None])))
    np.testing.assert_allclose(np.trapezoid(density, actions), 1.0, atol=1e-4)


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_the_density_is_that_of_the_change_of_variables(low, high):
    log_prob = functions((low,), (high,))[1]
    for mean, std in ((0.0, 0.6), (1.5, 0.2), (-0.7, 2.0)):
        for share in (0.02, 0.3, 0.5, 0.9, 0.99):
            action = low + share * (high - low)
            expected = change_of_variables(action, mean, std, low, high)
            found = log_prob(squashed([mean], [std]), jnp.float32([action]))
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_the_log_density_is_the_sum_over_action_entries():
    low, high = (-2.0, 0.0, -0.5), (2.0, 1.0, 3.0)
    mean, std, action = (0.3, -0.6, 1.1), (0.6, 0.2, 1.5), (-1.0, 0.3, 2.0)
    parts = zip(action, mean, std, low, high, strict=True)
    expected = sum(change_of_variables(*part) for part in parts)
    found = functions(low, high)[1](squashed(mean, std), jnp.float32(action))
    assert found.shape == ()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_leading_axes_are_kept():
    sample, log_prob, mode = functions((-2.0, 0.0), (2.0, 1.0))
    many = squashed(np.zeros((4, 3, 2)), np.ones((4, 3, 2)))
    actions, log_probs = sample(many, jax.random.key(0))
    assert actions.shape == mode(many).shape == (4, 3, 2)
    assert log_probs.shape == log_prob(many, actions).shape == (4, 3)


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_the_density_of_a_sample_is_the_density_of_its_action(low, high):
    """Away from the bounds, where single precision recovers u from a; within 0.01."""
    sample, log_prob, _ = functions((low,), (high,))
    many = squashed(np.full((400, 1), 0.4), np.full((400, 1), 0.5))
    actions, log_probs = sample(many, jax.random.key(1))
    np.testing.assert_allclose(log_prob(many, actions), log_probs, atol=0.01)
    assert np.ptp(log_probs) > 1.0  # the densities differ


def test_samples_have_the_distribution_of_their_density():
    """Medians and quantiles pass through a monotone squashing; 20,000 samples, 0.03."""
    sample = functions((0.0,), (1.0,))[0]
    many = squashed(np.full((20_000, 1), 0.4), np.full((20_000, 1), 0.5))
    actions = np.array(sample(many, jax.random.key(2))[0])[:, 0]
    for share in (0.1, 0.5, 0.9):
        expected = 0.5 + 0.5 * math.tanh(NormalDist(0.4, 0.5).inv_cdf(share))
        np.testing.assert_allclose(np.quantile(actions, share), expected, atol=0.03)


@pytest.mark.parametrize("far", [-1e4, -30.0, 30.0, 1e4])
def test_far_out_actions_are_in_bounds_and_densities_and_gradients_finite(far):
    """Also at the bounds, where tanh saturates."""
    policy = heads.make(SMALL, (3,), (0.0,), (1.0,))

    @jax.jit
    def both(mean, edge):
        def value(mean):
            one = heads.TanhNormal(mean, jnp.full((1,), 0.6))
            action, log_prob = policy.sample(one, jax.random.key(0))
            at_edge = policy.log_prob(heads.TanhNormal(mean / far, one.std), edge)
            return log_prob + at_edge, action

        return jax.value_and_grad(value, has_aux=True)(mean)

    (log_prob, action), gradient = both(jnp.full((1,), far), jnp.array([float(far > 0)]))
    assert action[0] == float(far > 0)
    assert np.isfinite(log_prob) and np.isfinite(gradient).all()


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_the_mode_is_the_squashed_mean(low, high):
    found = functions((low,), (high,))[2](squashed([0.7], [3.0]))
    expected = (low + high) / 2 + (high - low) / 2 * math.tanh(0.7)
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


# -------------------------------------------------------------------------------- network


@pytest.mark.parametrize("of_state", [False, True])
def test_a_new_policy_has_the_std_of_its_config_and_a_mean_at_the_centre(of_state):
    config = heads.Config(network=SMALL.network, std=0.35, std_of_state=of_state)
    policy = heads.make(config, (3, 2), (0.0, -2.0), (1.0, 2.0))
    params = jax.jit(policy.init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    inputs = [jnp.asarray(rng.normal(size=(6, size)), jnp.float32) for size in (3, 2)]
    output = policy.apply(params, *inputs)
    assert output.mean.shape == output.std.shape == (6, 2)
    np.testing.assert_allclose(output.std, 0.35, rtol=0.02)
    np.testing.assert_allclose(output.mean, 0.0, atol=0.05)


@pytest.mark.parametrize("of_state", [False, True])
def test_the_std_depends_on_the_input_only_if_std_of_state_is_set(of_state):
    config = heads.Config(network=SMALL.network, std_of_state=of_state)
    policy = heads.make(config, (3,), (-1.0,), (1.0,))
    shapes = jax.eval_shape(policy.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
    output = policy.apply(params, jnp.asarray(rng.normal(size=(6, 3)), jnp.float32))
    assert np.ptp(output.mean) > 0.1
    assert (np.ptp(output.std) > 0.01) == of_state


def test_the_std_is_between_its_bounds_and_rises_with_its_parameter():
    config = heads.Config(network=SMALL.network, std=0.6, std_low=0.05, std_high=2.0)
    policy = heads.make(config, (3,), (-1.0,), (1.0,))
    apply = jax.jit(policy.apply)
    params = jax.jit(policy.init)(jax.random.key(0))
    stds = []
    for raw in (-1e3, -3.0, 0.0, 3.0, 1e3):
        params["params"]["raw_std"] = jnp.full((1,), raw)
        stds.append(float(apply(params, jnp.ones((3,))).std[0]))
    np.testing.assert_allclose([stds[0], stds[2], stds[4]], [0.05, 0.6, 2.0], rtol=1e-5)
    assert (np.diff(stds) > 0).all()


@pytest.mark.parametrize(
    "bounds", [{"std_low": 0.6}, {"std_high": 0.6}, {"std": 9.0}, {"std_low": 0.0}]
)
def test_a_std_outside_its_bounds_is_refused(bounds):
    config = heads.Config(**{"std": 0.6} | bounds)
    with pytest.raises(UsageError, match="must lie between std_low and std_high"):
        heads.bounded_std(config, jnp.zeros(()))


# -------------------------------------------------------------------------------- choices


CHOICES = heads.make_for(DISCRETE, SMALL, (3,), temperature=0.7)
LOGITS = jnp.array([0.5, -1.0, 1.2, 0.0])


def softmax(x) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


def test_choices_are_one_hot_and_have_the_frequencies_of_the_softmax():
    """Four standard errors of 20,000 draws are at most 0.015."""
    many = heads.Categorical(jnp.broadcast_to(LOGITS, (20_000, 4)))
    actions, log_probs = jax.jit(CHOICES.sample)(many, jax.random.key(0))
    assert set(np.unique(actions)) == {0.0, 1.0}
    np.testing.assert_array_equal(actions.sum(-1), 1.0)
    wanted = softmax(np.asarray(LOGITS, float))
    np.testing.assert_allclose(actions.mean(0), wanted, atol=0.015)
    np.testing.assert_allclose(log_probs, np.log(wanted)[actions.argmax(-1)], rtol=1e-5)


def test_the_gradient_of_a_choice_is_that_of_the_softmax_at_its_temperature():
    """J = (diag p - p pᵀ) / τ, of p = softmax((logit + ξ) / τ)."""
    noise = jax.random.gumbel(jax.random.key(1), (4,))

    def chosen(logits):
        return CHOICES.rsample(heads.Categorical(logits), noise)

    p = softmax(np.asarray(LOGITS + noise, float) / 0.7)
    wanted = (np.diag(p) - np.outer(p, p)) / 0.7
    np.testing.assert_allclose(jax.jacobian(chosen)(LOGITS), wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(chosen(LOGITS), np.eye(4)[np.argmax(LOGITS + noise)])


def test_the_mode_is_the_likeliest_choice():
    given = heads.Categorical(jnp.stack([LOGITS, -LOGITS]))
    np.testing.assert_array_equal(CHOICES.mode(given), np.eye(4)[[2, 1]])


def test_log_probabilities_of_choices_are_the_log_softmax():
    given = heads.Categorical(jnp.broadcast_to(LOGITS, (4, 4)))
    found = CHOICES.log_prob(given, jnp.eye(4))
    np.testing.assert_allclose(found, np.log(softmax(np.asarray(LOGITS))), rtol=1e-5)


def test_inverse_noise_reproduces_the_choice_and_has_the_distribution_of_noise():
    """For the policy's own choices. The mean of a Gumbel is 0.577 and its
    deviation π / √6, within four standard errors of 20,000 draws."""
    act_key, noise_key = jax.random.split(jax.random.key(2))
    many = heads.Categorical(jnp.broadcast_to(LOGITS, (20_000, 4)))
    actions, _ = CHOICES.sample(many, act_key)
    drawn = CHOICES.noise(noise_key, actions.shape)
    found = CHOICES.inverse_noise(many, actions, drawn)
    np.testing.assert_array_equal(CHOICES.rsample(many, found), actions)
    np.testing.assert_allclose(found.mean(0), np.euler_gamma, atol=0.04)
    np.testing.assert_allclose(found.std(0), math.pi / math.sqrt(6), atol=0.05)
    pairs = np.corrcoef(np.asarray(found).T)[np.triu_indices(4, 1)]
    np.testing.assert_allclose(pairs, 0.0, atol=0.03)


def test_inverse_noise_reproduces_a_bounded_action():
    policy = heads.make(SMALL, (3,), (-2.0,), (1.0,))
    given, action = squashed([[0.4]], [[0.5]]), jnp.array([[0.7]])
    noise = policy.inverse_noise(given, action, jnp.zeros((1, 1)))
    np.testing.assert_allclose(policy.rsample(given, noise), action, rtol=1e-5)


def test_a_new_policy_over_choices_is_nearly_uniform():
    policy = heads.make_for(DISCRETE, SMALL, (3, 2))
    params = jax.jit(policy.init)(jax.random.key(0))
    output = policy.apply(params, jnp.ones((6, 3)), jnp.ones((6, 2)))
    np.testing.assert_allclose(output.logits, np.zeros((6, 4)), atol=0.05)
