"""Blind replay: the actions of a demonstration from other starts, whatever is observed.

Where it returns as much as the demonstrator, imitating needs no observations, and a task
says little about a method that imitates.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax.base import Demonstrations, Environment, EnvState, UsageError
from planil_jax.data.dataset import Demos

STARTS = 8  # of each demonstration


class BlindReplay(NamedTuple):
    """What blind replay returned, beside what was recorded."""

    returns: np.ndarray  # [N, R] of demonstration n from start r
    recorded: np.ndarray  # [N], nan where unknown; [0]: all are unknown
    environment: str

    def __str__(self) -> str:
        mean, spread = self.returns.mean(), self.returns.std()
        count, starts = self.returns.shape
        known = self.recorded[np.isfinite(self.recorded)]
        beside = f"; recorded {known.mean():.4g} ± {known.std():.4g}" if len(known) else ""
        return (
            f"blind replay of {count} demonstrations from {starts} starts each of "
            f"{self.environment}: return {mean:.4g} ± {spread:.4g}{beside}"
        )


def blind_replay(
    demos: Demos, env: Environment, loaded: Demonstrations, *, seed: int = 0
) -> BlindReplay:
    """Replays the actions of each demonstration from STARTS starts of the environment.

    An episode ends with the task, or with the demonstration.

    Args:
      demos: for what they returned.
      loaded: the same, laid out as the environment takes them.
      seed: of the starts, which are the same for every demonstration.

    Raises:
      UsageError: the demonstrations hold no actions.
    """
    if loaded.actions is None:
        raise UsageError(
            "blind replay repeats actions, and these demonstrations hold observations "
            "only: leave out replay (--replay)."
        )
    keys = jax.random.split(jax.random.key(seed), STARTS)

    def step(carry: tuple[EnvState, jax.Array], taken: tuple[jax.Array, jax.Array]):
        state, alive = carry
        action, recorded = taken
        state, transition = env.step(state, action)
        alive = alive & recorded
        reward = jnp.where(alive, transition.reward, 0.0)
        ended = transition.terminal | transition.truncated
        return (state, alive & ~ended), reward

    def episode(actions: jax.Array, length: jax.Array, key: jax.Array) -> jax.Array:
        recorded = jnp.arange(len(actions)) < length
        carry = env.reset(key), jnp.ones((), bool)
        return jax.lax.scan(step, carry, (actions, recorded))[1].sum()

    from_starts = jax.vmap(episode, (None, None, 0))
    returns = jax.jit(jax.vmap(from_starts, (0, 0, None)))(
        loaded.actions, loaded.length, keys
    )
    return BlindReplay(np.asarray(returns), demos.returns, env.spec.name)
