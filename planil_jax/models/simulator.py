"""The environment's own physics as a planner's model, or its prior where it has one."""

from planil_jax.base import Dynamics, Environment


def make(env: Environment) -> Dynamics:
    """A perfect model: the environment itself, restarted from the state that it is in."""
    return Dynamics(
        init=lambda key: (),
        start=lambda params, state: state,
        step=lambda params, state, action, key: env.step(state, action)[0],
        observe=lambda params, state: state.obs,
    )


def prior_or_physics(env: Environment) -> Dynamics:
    """The environment's prior model where it has one, else its own physics."""
    return env.prior or make(env)
