import math
import typing
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from planil_jax.losses import adversarial

pytestmark = pytest.mark.fast

# -------------------------------------------------------------------------- cross-entropy


@pytest.mark.parametrize(("experts", "learners"), [(4, 4), (1, 7)])
def test_the_cross_entropy_of_zero_logits_is_two_log_two(experts, learners):
    loss = adversarial.cross_entropy(jnp.zeros(experts), jnp.zeros(learners))
    np.testing.assert_allclose(loss, 2 * math.log(2), rtol=1e-6)


def test_the_cross_entropy_is_the_one_computed_by_hand():
    # softplus(-1) = 0.313262, softplus(-3) = 0.048587, softplus(2) = 2.126928
    loss = adversarial.cross_entropy(jnp.array([1.0, 3.0]), jnp.array([2.0]))
    np.testing.assert_allclose(loss, (0.313262 + 0.048587) / 2 + 2.126928, rtol=1e-6)


def test_descent_raises_expert_logits_and_lowers_the_learner_s():
    """The gradient of a logit l is -σ(-l) / n of an expert, σ(l) / n of a learner."""
    expert, learner = jnp.array([-2.0, 0.0, 5.0]), jnp.array([1.0, -1.0])
    rising, falling = jax.grad(adversarial.cross_entropy, (0, 1))(expert, learner)
    np.testing.assert_allclose(rising, [-0.880797 / 3, -0.5 / 3, -0.006693 / 3], atol=1e-6)
    np.testing.assert_allclose(falling, [0.731059 / 2, 0.268941 / 2], atol=1e-6)


def test_the_cross_entropy_of_huge_logits_is_finite():
    huge = jnp.array([1e4, -1e4])
    loss, gradients = jax.value_and_grad(adversarial.cross_entropy, (0, 1))(huge, huge)
    np.testing.assert_allclose(loss, 1e4, rtol=1e-6)
    np.testing.assert_allclose(gradients, [[0.0, -0.5], [0.5, 0.0]], atol=1e-6)


@pytest.mark.parametrize("shape", [(), (3, 1)])
@pytest.mark.parametrize("loss_fn", [adversarial.cross_entropy, adversarial.accuracy])
def test_logits_that_are_not_one_list_are_refused(loss_fn, shape):
    for pair in ((jnp.zeros(shape), jnp.zeros(3)), (jnp.zeros(3), jnp.zeros(shape))):
        with pytest.raises(AssertionError):
            loss_fn(*pair)


def quantiles(mean: float, std: float, count: int) -> np.ndarray:
    """`count` points of a normal density, all of the same probability mass."""
    density = NormalDist(mean, std)
    return np.array([density.inv_cdf((i + 0.5) / count) for i in range(count)])


@jax.jit
def _slopes(c, expert, learner):
    def loss(c):
        return adversarial.cross_entropy(expert @ c, learner @ c)

    return jax.grad(loss)(c), jax.hessian(loss)(c)


def best_coefficients(expert, learner) -> np.ndarray:
    """The minimiser of the loss over logits c₀ + c₁ x + c₂ x², by Newton's method."""

    def features(x):
        return jnp.asarray(np.stack([np.ones_like(x), x, x**2], axis=-1), jnp.float32)

    expert, learner = features(expert), features(learner)

    c = np.zeros(3)
    for _ in range(12):
        gradient, hessian = _slopes(jnp.float32(c), expert, learner)
        c -= np.linalg.solve(np.float64(hessian), np.float64(gradient))
    return c


@pytest.mark.parametrize("learners", [4000, 1000])
def test_the_best_logit_is_the_log_ratio_of_the_densities(learners):
    """Expert N(1, 1), learner N(-½, 1½²): log p_E - log p_π is a quadratic in x.

    It is so whatever the sizes of the two batches. The points leave out the outermost
    tails, which moves the coefficients by less than 0.02.
    """
    found = best_coefficients(quantiles(1.0, 1.0, 4000), quantiles(-0.5, 1.5, learners))
    constant = -0.5 + 0.25 / (2 * 2.25) + math.log(1.5)
    expected = [constant, 1 + 0.5 / 2.25, -0.5 + 1 / (2 * 2.25)]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_of_equal_densities_the_best_logit_is_zero():
    same = quantiles(0.3, 1.0, 4000)
    np.testing.assert_allclose(best_coefficients(same, same), 0.0, atol=1e-4)


# ------------------------------------------------------------------------------- accuracy


@pytest.mark.parametrize(
    ("expert", "learner", "accuracy"),
    [
        ([2.0, 1.0], [-1.0], 1.0),
        ([-2.0, -1.0], [1.0], 0.0),
        ([0.0, 0.0], [0.0], 0.5),
        ([1.0, 1.0, 1.0, -1.0], [1.0], 0.375),  # classes weigh alike, whatever their sizes
    ],
)
def test_the_accuracy_is_the_one_counted_by_hand(expert, learner, accuracy):
    found = adversarial.accuracy(jnp.array(expert), jnp.array(learner))
    np.testing.assert_allclose(found, accuracy)


# -------------------------------------------------------------------------------- rewards

# Of D = σ(l), in double precision, where D is neither 0 nor 1.
FORMS = {
    "logit": lambda d: math.log(d) - math.log(1 - d),
    "gail_pos": lambda d: -math.log(1 - d),
    "gail_neg": lambda d: math.log(d),
    "prob": lambda d: d,
    "neg_prob": lambda d: -(1 - d),
}
RANGES = {
    "logit": (-math.inf, math.inf),
    "gail_pos": (0.0, math.inf),
    "gail_neg": (-math.inf, 0.0),
    "prob": (0.0, 1.0),
    "neg_prob": (-1.0, 0.0),
}


def test_every_reward_of_the_table_is_tested_here_and_a_choice_of_configurations():
    assert set(adversarial.REWARDS) == set(FORMS) == set(RANGES)
    assert set(adversarial.REWARDS) == set(typing.get_args(adversarial.Reward))


@pytest.mark.parametrize("form", FORMS)
def test_a_reward_is_what_its_formula_in_probabilities_says(form):
    for logit in (-6.0, -2.0, 0.0, 1.0, 6.0):
        expected = FORMS[form](1 / (1 + math.exp(-logit)))
        found = adversarial.REWARDS[form](jnp.float32(logit))
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("form", "rewards"),
    [
        ("logit", [-2.0, 0.0, 3.0]),
        ("gail_pos", [0.126928, 0.693147, 3.048587]),
        ("gail_neg", [-2.126928, -0.693147, -0.048587]),
        ("prob", [0.119203, 0.5, 0.952574]),
        ("neg_prob", [-0.880797, -0.5, -0.047426]),
    ],
)
def test_a_reward_is_the_one_in_the_table(form, rewards):
    found = adversarial.REWARDS[form](jnp.array([-2.0, 0.0, 3.0]))
    np.testing.assert_allclose(found, rewards, atol=1e-6)


@pytest.mark.parametrize("form", adversarial.REWARDS)
def test_a_higher_logit_has_a_higher_reward(form):
    rewards = adversarial.REWARDS[form](jnp.linspace(-8.0, 8.0, 200))
    assert (jnp.diff(rewards) > 0).all()


@pytest.mark.parametrize("form", adversarial.REWARDS)
def test_a_reward_is_in_its_range_and_finite_with_its_gradient_at_huge_logits(form):
    low, high = RANGES[form]
    logits = jnp.array([-1e4, -30.0, 0.0, 30.0, 1e4])
    rewards = adversarial.REWARDS[form](logits)
    gradients = jax.vmap(jax.grad(adversarial.REWARDS[form]))(logits)
    assert ((low <= rewards) & (rewards <= high)).all()
    assert jnp.isfinite(rewards).all() and jnp.isfinite(gradients).all()


@pytest.mark.parametrize("form", adversarial.REWARDS)
def test_a_reward_is_called_biased_where_a_logit_of_zero_is_not_worth_zero(form):
    """γ = 0.99: going on for ever at a logit of 0 is worth a hundred times one step."""
    at_zero = float(adversarial.REWARDS[form](jnp.float32(0.0)))
    going_on = {"gail_pos": 69.3, "prob": 50.0, "gail_neg": -69.3, "neg_prob": -50.0}
    value = at_zero / (1 - 0.99)
    np.testing.assert_allclose(value, going_on.get(form, 0.0), atol=0.02)
    assert (form in adversarial.BIASES) == (at_zero != 0.0)
    if at_zero > 0:
        assert "staying alive" in adversarial.BIASES[form]
    if at_zero < 0:
        assert "early end" in adversarial.BIASES[form]


# ------------------------------------------------------------------------ density quotient


def test_descent_finds_the_log_ratio_of_densities():
    """20,000 points each of N(1, 1) and of N(-½, 1½²), full batch; within 2e-3.

    Points are quantiles, by which the coefficients stray by less than 2e-4.
    """
    shares = (np.arange(20_000) + 0.5) / 20_000

    def features(x):
        return jnp.asarray(np.stack([np.ones_like(x), x, x**2], axis=-1), jnp.float32)

    expert = features(stats.norm.ppf(shares, 1.0, 1.0))
    learner = features(stats.norm.ppf(shares, -0.5, 1.5))
    tx = optax.adam(optax.cosine_decay_schedule(0.1, 300))

    def step(running, _):
        c, opt_state = running
        slope = jax.grad(lambda c: adversarial.cross_entropy(expert @ c, learner @ c))(c)
        updates, opt_state = tx.update(slope, opt_state)
        return (optax.apply_updates(c, updates), opt_state), None

    start = jnp.zeros(3)
    run = jax.jit(lambda c: jax.lax.scan(step, (c, tx.init(c)), None, 300)[0][0])
    constant = -0.5 + 0.25 / (2 * 2.25) + math.log(1.5)
    expected = [constant, 1 + 0.5 / 2.25, -0.5 + 1 / (2 * 2.25)]
    np.testing.assert_allclose(run(start), expected, atol=2e-3)


# ------------------------------------------------------------------------ gradient penalty


penalty = jax.jit(adversarial.gradient_penalty, static_argnums=0)


def linear(x: jax.Array) -> jax.Array:
    return x @ jnp.array([3.0, 4.0])


@pytest.mark.parametrize("norm", [0.0, 1.0, 0.4])
@pytest.mark.parametrize("batch", [1, 7])
def test_of_a_linear_logit_the_penalty_is_its_slope_s_whatever_the_batch(norm, batch):
    """‖(3, 4)‖ = 5 is the slope at every sample."""
    rng = np.random.default_rng(batch)
    expert, learner = np.float32(rng.normal(size=(2, batch, 2)))
    found = penalty(linear, expert, learner, jax.random.key(0), norm)
    np.testing.assert_allclose(found, (5.0 - norm) ** 2, rtol=1e-5)


def test_the_slope_of_a_tree_is_that_of_all_its_leaves():
    rng = np.random.default_rng(0)
    expert, learner = (
        {
            "obs": np.float32(rng.normal(size=(5, 2))),
            "action": np.float32(rng.normal(size=(5, 1))),
        }
        for _ in range(2)
    )

    def logit(x):
        return x["obs"] @ jnp.array([2.0, 3.0]) + x["action"][0] * 6.0

    found = penalty(logit, expert, learner, jax.random.key(0), 1.0)
    np.testing.assert_allclose(found, (7.0 - 1.0) ** 2, rtol=1e-5)


def test_the_penalty_averages_over_samples_and_not_over_their_slopes():
    """Slopes of 5 and -5 would vanish if they were averaged first."""
    expert = np.float32([[1.0], [-1.0]])
    found = penalty(lambda x: 5.0 * jnp.abs(x[0]), expert, expert, jax.random.key(0), 0.0)
    np.testing.assert_allclose(found, 25.0, rtol=1e-5)


def test_the_penalty_is_taken_everywhere_between_the_classes_and_nowhere_else():
    """Of l = x² / 2 the slope is x: between 2 and 4, its mean square is 28 / 3, within 4%.

    All entries of one sample share one mixture: on the diagonal, x and y stay equal.
    """
    count = 4000
    low, high = np.full((count, 1), 2.0, np.float32), np.full((count, 1), 4.0, np.float32)
    for expert, learner in ((low, high), (high, low)):
        found = penalty(lambda x: x[0] ** 2 / 2, expert, learner, jax.random.key(3), 0.0)
        np.testing.assert_allclose(found, 28 / 3, rtol=0.04)
    pairs = {"obs": low, "action": low}, {"obs": high, "action": high}
    found = penalty(
        lambda x: (x["obs"][0] - x["action"][0]) ** 2, *pairs, jax.random.key(3), 0.0
    )
    np.testing.assert_allclose(found, 0.0, atol=1e-6)


def test_descent_on_the_penalty_brings_the_slope_to_its_norm():
    def loss(weight):
        ones = jnp.ones((3, 1))
        return adversarial.gradient_penalty(
            lambda x: weight * x[0], ones, -ones, jax.random.key(0), 2.0
        )

    slope = jax.jit(jax.grad(loss))
    slopes = [float(slope(jnp.float32(weight))) for weight in (1.0, 2.0, 3.0)]
    np.testing.assert_allclose(slopes, [-2.0, 0.0, 2.0], atol=1e-5)
    assert np.isfinite(slope(jnp.float32(0.0)))  # the square root is at 0


# -------------------------------------------------------------------------------- shaping


def test_shaping_is_the_one_computed_by_hand():
    found = adversarial.shaped(
        jnp.array([1.0, 1.0]),
        jnp.array([0.5, 0.5]),
        jnp.array([4.0, 4.0]),
        jnp.array([False, True]),
        0.9,
    )
    np.testing.assert_allclose(found, [1.0 + 3.6 - 0.5, 1.0 - 0.5], rtol=1e-6)


def test_the_discounted_sum_of_shaped_rewards_is_that_of_rewards_less_the_first_potential():
    """In an episode that ends for good, so that shaping prefers no policy."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rewards, potentials = rng.normal(size=8), rng.normal(size=9)
        terminal = np.arange(8) == 7
        found = adversarial.shaped(
            jnp.asarray(rewards, jnp.float32),
            jnp.asarray(potentials[:-1], jnp.float32),
            jnp.asarray(potentials[1:], jnp.float32),
            jnp.asarray(terminal),
            0.9,
        )
        weights = 0.9 ** np.arange(8)
        expected = weights @ rewards - potentials[0]
        np.testing.assert_allclose(weights @ np.float64(found), expected, atol=1e-5)
