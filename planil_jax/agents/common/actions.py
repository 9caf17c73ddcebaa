"""Actions in units of [-1, 1], and acting by a policy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from planil_jax.base import EnvSpec, EnvState, Params
from planil_jax.nets import heads


class Scaling(NamedTuple):
    """Between the environment's units, low to high, and [-1, 1]."""

    to_unit_interval: Callable[[jax.Array], jax.Array]  # [..., U], low to high -> [-1, 1]
    from_unit_interval: Callable[[jax.Array], jax.Array]  # [..., U], [-1, 1] -> low to high


def make_scaling(spec: EnvSpec) -> Scaling:
    """The scaling of an environment's actions.

    u = (2 a - low - high) / (high - low),   a = low + (high - low) (u + 1) / 2
    """
    low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)
    return Scaling(
        to_unit_interval=lambda action: (2 * action - low - high) / (high - low),
        from_unit_interval=lambda scaled: low + (high - low) * (scaled + 1) / 2,
    )


def from_distribution(
    policy: heads.Policy, distribution: Any, key: jax.Array, explore: bool
) -> jax.Array:
    """A sample of a policy's distribution where it explores, else its mode, `[..., U]`."""
    return policy.sample(distribution, key)[0] if explore else policy.mode(distribution)


def act_by_policy(
    policy: heads.Policy,
    params: Params,
    carry: Any,
    state: EnvState,
    key: jax.Array,
    explore: bool,
) -> tuple[jax.Array, Any]:
    """`Agent.act` of a policy of observations: `functools.partial(act_by_policy, policy)`.

    Returns:
      The action `[U]` in the environment's units, and the carry as it was.
    """
    distribution = policy.apply(params, state.obs)
    return from_distribution(policy, distribution, key, explore), carry
