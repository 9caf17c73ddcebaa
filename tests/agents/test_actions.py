"""The scaling of actions, and acting by a policy."""

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax.agents.common import actions
from planil_jax.base import EnvSpec, EnvState
from planil_jax.nets import heads

SPEC = EnvSpec("line", ("a",), (0.0, -2.0), (4.0, 2.0), 100, 0.1)


def test_the_bounds_become_minus_one_and_one_and_back():
    scaling = actions.make_scaling(SPEC)
    given = jnp.array([[0.0, -2.0], [1.0, 0.0], [4.0, 2.0]])
    scaled = scaling.to_unit_interval(given)
    np.testing.assert_allclose(scaled, [[-1.0, -1.0], [-0.5, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(scaling.from_unit_interval(scaled), given)


def test_a_policy_acts_by_a_sample_where_it_explores_and_else_by_its_mode():
    low, high = SPEC.action_low, SPEC.action_high
    policy = heads.make(heads.Config(), (1,), low, high)
    params, state = policy.init(jax.random.key(0)), EnvState((), jnp.ones(1), jnp.int32(0))
    key = jax.random.key(1)
    distribution = policy.apply(params, state.obs)
    sampled, carry = actions.act_by_policy(policy, params, "carry", state, key, True)
    mode, _ = actions.act_by_policy(policy, params, "carry", state, key, False)
    np.testing.assert_array_equal(sampled, policy.sample(distribution, key)[0])
    np.testing.assert_array_equal(mode, policy.mode(distribution))
    assert carry == "carry" and np.abs(sampled - mode).max() > 1e-3
