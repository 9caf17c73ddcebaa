"""How forward models are fitted: the loss by hand, and what each member learns from."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from planil_jax.agents.common import forward_model, learning
from planil_jax.base import EnvSpec, Fit, Transition
from planil_jax.models import ensemble
from planil_jax.nets import fit, forward, mlp, normalise

SPEC = EnvSpec("line", ("a", "b"), (-1.0,), (1.0,), 100, 0.1)
SCALE = np.array([2.0, 0.5])  # deviations of a change
OBS = np.random.default_rng(0).normal(size=(2, 4, 2)).astype(np.float32)  # [H + 1, B, O]
ACTIONS = np.random.default_rng(1).uniform(-1, 1, (1, 4, 1)).astype(np.float32)


@functools.cache
def learner() -> forward_model.Learner:
    """Two members; networks without hidden layers."""
    network = forward.Config(network=mlp.Config(hidden=()))
    return forward_model.make(SPEC, ensemble.Config(network=network, members=2), 0.1)


def model(biases=(0.0, 1.0)) -> ensemble.ModelParams:
    """Member m predicts the change 0.3 + biases[m], in deviations SCALE, of each entry."""
    params = jax.jit(learner().ensemble.dynamics.init)(jax.random.key(0))
    networks = jax.tree.map(jnp.zeros_like, params.networks)
    networks["params"]["mean"]["bias"] = jnp.array([[bias, bias] for bias in biases])
    count = jnp.float32(9)
    change = normalise.Moments(count, jnp.full((2,), 0.3), jnp.asarray(SCALE**2))
    return ensemble.ModelParams(networks, params.obs, jax.tree.map(jnp.float32, change))


def predicted(bias: float) -> np.ndarray:
    """`[B, O]` by a member of this bias."""
    return OBS[0] + 0.3 + SCALE * bias


def test_the_loss_is_half_the_mean_squared_error_of_each_member_on_its_part():
    """Both deviations are 1, in which errors are; the first half of B is member 0's."""
    found = forward_model.loss(learner(), model(), OBS, ACTIONS)
    first = (OBS[1, :2] - predicted(0.0)[:2]) / SCALE
    second = (OBS[1, 2:] - predicted(1.0)[2:]) / SCALE
    expected = 0.5 * np.mean([np.mean(first**2), np.mean(second**2)])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_member_learns_from_its_part_alone():
    def slopes(obs) -> np.ndarray:
        """`[M, O]` of the biases."""

        def loss(networks):
            params = model().replace(networks=networks)
            return forward_model.loss(learner(), params, obs, ACTIONS)

        return jax.grad(loss)(model().networks)["params"]["mean"]["bias"]

    changed = OBS.copy()
    changed[1, 2:] += 1.0  # of member 1's part
    before, after = slopes(OBS), slopes(changed)
    np.testing.assert_allclose(after[0], before[0], rtol=1e-6)
    assert np.all(np.abs(after[1] - before[1]) > 0.1)


def test_the_loss_pulls_predictions_towards_what_followed():
    """A step of Adam moves a bias by the learning rate, against the sign of its error."""
    params = model()
    fitted, metrics = jax.jit(functools.partial(forward_model.step, learner()))(
        learner().fit.init(params.networks), params, OBS, ACTIONS
    )
    biases = params.networks["params"]["mean"]["bias"]
    moved = fitted.params["params"]["mean"]["bias"] - biases
    first = np.sign(np.mean(OBS[1, :2] - predicted(0.0)[:2], axis=0))
    second = np.sign(np.mean(OBS[1, 2:] - predicted(1.0)[2:], axis=0))
    np.testing.assert_allclose(moved, 0.1 * np.stack([first, second]), rtol=1e-3)
    expected = forward_model.loss(learner(), params, OBS, ACTIONS)
    np.testing.assert_allclose(metrics["model/loss"], expected, rtol=1e-5)


def test_sequences_and_actions_of_other_ranks_are_refused():
    with pytest.raises(AssertionError):
        forward_model.loss(learner(), model(), OBS[..., None], ACTIONS)


def test_fresh_errors_are_those_of_the_members_mean_in_deviations_of_a_change():
    rollout = Transition(
        obs=OBS[0].reshape(2, 2, 2),
        action=ACTIONS.reshape(2, 2, 1),
        next_obs=OBS[1].reshape(2, 2, 2),
        reward=jnp.zeros((2, 2)),
        terminal=jnp.zeros((2, 2), bool),
        truncated=jnp.zeros((2, 2), bool),
    )
    metrics = forward_model.fresh_errors(learner(), model(), rollout)
    mean = (predicted(0.0) + predicted(1.0)) / 2
    errors = np.sqrt(np.mean((OBS[1] - mean) ** 2, axis=0)) / SCALE  # [O]
    np.testing.assert_allclose(metrics["model/fresh_error"], errors.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["model/worst_error"], errors.max(), rtol=1e-5)


def test_a_gradient_step_goes_down_the_loss_of_its_arguments_by_the_learning_rate():
    """Of x w², whose slope at w = 3 and x = 2 is 12."""
    optimizer = fit.make(optax.sgd(0.1))

    def loss_fn(params, x):
        loss = x * params**2
        return loss, {"loss": loss}

    start = optimizer.init(jnp.float32(3.0))
    fitted, metrics = learning.gradient_step(optimizer, start, loss_fn, jnp.float32(2.0))
    assert isinstance(fitted, Fit)
    np.testing.assert_allclose(fitted.params, 3.0 - 0.1 * 12.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], 18.0, rtol=1e-6)
