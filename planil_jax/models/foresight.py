"""Plans, scored step by step along the states that a model predicts.

    z_0 = start(state),   z_{t+1} = step(z_t, a_t),   s_t = observe(z_t)
    scores = [f(s_0, a_0, s_1), ..., f(s_{H-1}, a_{H-1}, s_H), g(s_H)]

Where a model has members (`observe` gives [M, O]), every score is the mean over them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from planil_jax.base import Dynamics, EnvState, Params

StepScore = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def score_plan(
    dynamics: Dynamics,
    params: Params,
    state: EnvState,
    key: jax.Array,
    horizon: int,
    step_score: StepScore,
    final_score: Callable[[jax.Array], jax.Array] | None = None,
) -> Callable[[jax.Array], jax.Array]:
    """A function of actions `[H, U]` to scores `[H]`, or `[H + 1]` with a final one.

    Args:
      params: of the model.
      state: where plans start.
      key: of the model's noise, the same for all plans.
      step_score: (obs [..., O], action [U], next_obs [..., O]) -> [...].
      final_score: obs [..., O] -> [...].
    """
    start = dynamics.start(params, state)
    first = (start, dynamics.observe(params, start))
    keys = jax.random.split(key, horizon)

    # Scores are computed inside the scan. After it, the activations of all steps, plans and
    # environments together would not fit into a processor's cache.
    def step(carry, inputs):
        z, obs = carry
        action, step_key = inputs
        z = dynamics.step(params, z, action, step_key)
        next_obs = dynamics.observe(params, z)
        return (z, next_obs), jnp.mean(step_score(obs, action, next_obs))

    def score(actions: jax.Array) -> jax.Array:
        (_, last_obs), step_scores = jax.lax.scan(step, first, (actions, keys))
        if final_score is None:
            return step_scores
        return jnp.append(step_scores, jnp.mean(final_score(last_obs)))

    return score


def imagine(
    dynamics: Dynamics,
    params: Params,
    state: EnvState,
    key: jax.Array,
    actions: jax.Array,
) -> jax.Array:
    """The observations to which actions `[H, U]` lead, `[H + 1, O]`; of members the mean.

    The first is the observation of `state`; the key is of the model's noise.
    """

    def step(z, inputs):
        z = dynamics.step(params, z, *inputs)
        obs = dynamics.observe(params, z)
        return z, jnp.mean(obs.reshape(-1, obs.shape[-1]), axis=0)

    start = dynamics.start(params, state)
    keys = jax.random.split(key, actions.shape[0])
    predicted = jax.lax.scan(step, start, (actions, keys))[1]  # [H, O]
    return jnp.concatenate([state.obs[None], predicted])
