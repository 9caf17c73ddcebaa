"""Tasks of Brax and of MuJoCo Playground: "brax/hopper/spring", "playground/CheetahRun".

The libraries' environments are taken as they are, without their wrappers, so that
observations are never replaced by those of the next episode, an end of the task and an end
of time stay apart, and time is counted here.

Both libraries act within [-1, 1] in every task. A Playground task repeats its action within
its step (`ctrl_dt / sim_dt`), as its own configuration says.

Departures: observations that come as a dictionary are represented by their "state" entry;
the libraries' metrics are dropped.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from planil_jax.base import (
    Environment,
    EnvSpec,
    EnvState,
    Transition,
    UsageError,
    did_you_mean,
)
from planil_jax.envs.mjcf import scale_physics

Cost: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
BACKENDS = ("generalized", "mjx", "positional", "spring")
IMPLS = ("jax", "warp")
DEFAULT_LENGTH = 1000  # control steps, where the library names no other
_STUBS = ("fast",)  # of Brax's own tests
# Costs of the scripted demonstrator, where a task's reward says nothing until it is solved:
# how far the pole's tip is below its highest, in lengths of the pole.
_COSTS: dict[str, Cost] = {"PendulumSwingup": lambda obs, action, next_obs: 1 - next_obs[1]}
# Rewards that lead to a task's own, where that is met too seldom to learn from it alone.
_SHAPED: dict[str, Callable[[Any, Any], jax.Array]] = {
    "HopperHop": lambda env, state: _rise_first(env, state),
}
_DOWNLOAD = (
    'python -c "from mujoco_playground._src import mjx_env; '
    'mjx_env.ensure_menagerie_exists()"'
)


def make_brax(
    task: str,
    episode_length: int = 0,
    mass: float = 1.0,
    friction: float = 1.0,
    gravity: float = 1.0,
) -> Environment:
    """A task of Brax, on the back end after its name or on Brax's own choice.

    Args:
      task: "hopper" or "hopper/spring"; back ends are BACKENDS.
      episode_length: control steps; 0 is the library's 1000.
      mass: factor of all masses and inertias; of masses alone on the spring and positional
        back ends, which keep to inertias of their own.
      friction: factor of all coefficients of friction.
      gravity: factor of gravity.
    """
    from brax import envs as brax_envs

    tasks = sorted(set(brax_envs._envs) - set(_STUBS))
    title, _, backend = task.partition("/")
    if title not in tasks:
        raise UsageError(
            f"Brax has no task {title!r}.{did_you_mean(title, tasks)} It has: "
            f"{', '.join(tasks)}."
        )
    if backend and backend not in BACKENDS:
        raise UsageError(
            f"Brax has no back end {backend!r}.{did_you_mean(backend, BACKENDS)} It has: "
            f"{', '.join(BACKENDS)}."
        )
    env = brax_envs.get_environment(title, **({"backend": backend} if backend else {}))
    scaled = (mass, friction, gravity) != (1.0, 1.0, 1.0)
    if scaled:
        if env.backend in ("spring", "positional"):
            mass = _spring_factor(f"brax/{task}", env.sys, mass)
        env.sys = _scaled_system(env.sys, mass, friction, gravity)
    continued = _continued(env, scaled)
    return _adapt(f"brax/{task}", env, episode_length or DEFAULT_LENGTH, continued)


def make_playground(
    task: str,
    episode_length: int = 0,
    impl: str = "jax",
    mass: float = 1.0,
    friction: float = 1.0,
    gravity: float = 1.0,
    shaped: bool = False,
) -> Environment:
    """A task of MuJoCo Playground.

    Args:
      task: as Playground names it: "CheetahRun".
      episode_length: control steps; 0 is the task's own.
      impl: which implementation of MJX steps the physics, of IMPLS.
      mass, friction, gravity: factors of all masses and inertias, of all coefficients of
        friction, and of gravity.
      shaped: pay by _SHAPED, to train an expert that then demonstrates the task itself.
    """
    name = f"playground/{task}"
    try:
        import mujoco_playground  # noqa: F401  says whether the extra is there
    except ImportError:
        raise UsageError(
            f"environment {name!r} needs MuJoCo Playground: "
            "pip install 'planil_jax[playground]'."
        ) from None
    if impl not in IMPLS:
        raise UsageError(
            f"environment {name!r}: option impl must be {' or '.join(IMPLS)}, not {impl!r}."
        )
    if shaped and task not in _SHAPED:
        raise UsageError(
            f"environment {name!r} has no other reward to be shaped by; leave out shaped. "
            f"Tasks that have: {', '.join(_SHAPED)}."
        )
    env, config = _load_playground(name, task, impl)
    if (mass, friction, gravity) != (1.0, 1.0, 1.0):
        from mujoco import mjx

        env._mj_model = scale_physics(env.mj_model, mass, friction, gravity)
        env._mjx_model = mjx.put_model(env._mj_model, impl=impl)
    length = episode_length or config.get("episode_length", DEFAULT_LENGTH)
    reward = (lambda state: _SHAPED[task](env, state)) if shaped else _own_reward
    adapted = _adapt(name, env, int(length), lambda state: state, reward)
    return adapted._replace(expert_cost=_COSTS.get(task))


def _own_reward(state: Any) -> jax.Array:
    return state.reward


def _rise_first(env: Any, state: Any) -> jax.Array:
    """A hopper's in [0, 1]: to rise to 0.7 m pays a fifth, speed up to 2 m/s the rest.

    Its own is 0 below 0.6 m, whatever else is done.
    """
    rise = jnp.clip(env._height(state.data) / 0.7, 0.0, 1.0)
    speed = jnp.clip(env._speed(state.data) / 2.0, 0.0, 1.0)
    return rise**2 * (1.0 + 4.0 * speed) / 5.0


def _scaled_system(system: Any, mass: float, friction: float, gravity: float) -> Any:
    """Brax's system with other physics: it holds them once for MJX and once for itself."""
    model = scale_physics(system.mj_model, mass, friction, gravity)
    fields = {
        "body_mass": model.body_mass,
        "body_inertia": model.body_inertia,
        "body_subtreemass": model.body_subtreemass,
        "body_invweight0": model.body_invweight0,
        "dof_invweight0": model.dof_invweight0,
        "dof_M0": model.dof_M0,
        "geom_friction": system.geom_friction * friction,
        "pair_friction": system.pair_friction * friction,
        "gravity": system.gravity * gravity,
        "opt.gravity": system.opt.gravity * gravity,
        "link.inertia.mass": system.link.inertia.mass * mass,
        "link.inertia.i": system.link.inertia.i * mass,
        "link.invweight": model.body_invweight0[1:, 0],
        "dof.invweight": model.dof_invweight0,
    }
    arrays = {
        name: jnp.asarray(value, jnp.float32)
        for name, value in fields.items()
        if hasattr(system, name.partition(".")[0])
    }
    return system.tree_replace({**arrays, "mj_model": model})


def _spring_factor(name: str, system: Any, mass: float) -> float:
    """The factor f of m for which m^(1 - scale), these back ends' mass, grows by `mass`."""
    exponent = 1.0 - float(system.spring_mass_scale)
    if mass != 1.0 and exponent == 0.0:
        raise UsageError(
            f"environment {name!r} has no mass to scale, since Brax's model of it makes "
            "every link weigh 1 on this back end: choose generalized or mjx."
        )
    return float(mass ** (1.0 / exponent)) if exponent else 1.0


def _continued(env: Any, scaled: bool) -> Callable[[Any], Any]:
    """(a state of the same task, of other physics perhaps) -> the state to step from.

    Brax's states carry masses (spring, positional) or the mass matrix and the contacts'
    Jacobian (generalized). A model of other physics must not take over those of the
    environment that it is started from. Only on the generalized back end does this cost
    anything, so there a model that is not scaled itself keeps the old matrix for one step.
    """
    if env.backend in ("spring", "positional"):
        system = env.sys
        weights = system.link.inertia.mass ** (1.0 - system.spring_mass_scale)

        def weigh(state):
            now = state.pipeline_state.replace(mass=weights)
            return state.replace(pipeline_state=now)

        return weigh
    if env.backend == "generalized" and scaled:

        def build(state):
            now = state.pipeline_state
            return state.replace(pipeline_state=env.pipeline_init(now.q, now.qd))

        return build
    return lambda state: state


def _load_playground(name: str, task: str, impl: str) -> tuple[Any, Any]:
    """The library's environment and its configuration, without a download."""
    from mujoco_playground._src import (
        dm_control_suite,
        locomotion,
        manipulation,
        mjx_env,
    )

    suites = (dm_control_suite, locomotion, manipulation)
    suite = next((suite for suite in suites if task in suite.ALL_ENVS), None)
    if suite is None:
        tasks = [each for suite in suites for each in suite.ALL_ENVS]
        hint = did_you_mean(task, tasks) or (
            " Its tasks are in mujoco_playground.registry.ALL_ENVS."
        )
        raise UsageError(f"MuJoCo Playground has no task {task!r}.{hint}")
    config = copy.deepcopy(suite.get_default_config(task))
    if "impl" in config:
        config.impl = impl
    downloads = suite is not dm_control_suite and not mjx_env.MENAGERIE_PATH.exists()
    try:
        # Not by `load`, which would first clone the models of all robots.
        return suite._envs[task](config=config), config
    except Exception as error:
        if downloads and isinstance(error, ValueError | OSError):
            raise UsageError(
                f"environment {name!r} needs robot models that Playground downloads and "
                f"that are not here: once, where there is a network, run: {_DOWNLOAD}"
            ) from error
        if impl != "jax":
            raise UsageError(
                f"environment {name!r}: this machine cannot run impl={impl} "
                f"({error}); leave it out, or say impl=jax."
            ) from error
        raise


def _adapt(
    name: str,
    env: Any,
    episode_length: int,
    continued: Callable[[Any], Any],
    reward: Callable[[Any], jax.Array] = _own_reward,
) -> Environment:
    """The library's environment, Brax's or Playground's, as one of ours."""

    def reset(key: jax.Array) -> EnvState:
        state = env.reset(jax.random.key_data(key))
        return _strip(state, jnp.zeros((), jnp.int32))

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        after = env.step(continued(_restore(state)), action)
        following = _strip(after, state.time + 1)
        following = replace(following, sim=_as(following.sim, state.sim))
        transition = Transition(
            obs=state.obs,
            action=action,
            next_obs=following.obs,
            reward=_strong(reward(after), jnp.float32),
            terminal=_strong(after.done, jnp.float32) > 0.5,
            truncated=following.time >= episode_length,
        )
        return following, transition

    size = jax.eval_shape(reset, jax.random.key(0)).obs.shape[0]
    spec = EnvSpec(
        name=name,
        observation_names=tuple(f"obs {entry}" for entry in range(size)),
        action_low=(-1.0,) * env.action_size,
        action_high=(1.0,) * env.action_size,
        episode_length=episode_length,
        control_period=round(float(env.dt), 7),  # Brax holds it as a float32
        terminates=True,  # the libraries do not tell which of their tasks do
    )
    return Environment(spec, reset, step)


def _strip(state: Any, time: jax.Array) -> EnvState:
    """What a step needs of a library's state; a plain observation is held once."""
    named = isinstance(state.obs, dict)
    obs = state.obs["state"] if named else state.obs
    sim = state.replace(
        obs=state.obs if named else None, reward=None, done=None, metrics={}
    )
    sim = jax.tree.map(lambda leaf: _strong(leaf, jnp.asarray(leaf).dtype), sim)
    return EnvState(sim=sim, obs=_strong(obs, jnp.float32), time=time)


def _restore(state: EnvState) -> Any:
    """The library's own state, in new dictionaries: the libraries write into theirs."""
    sim = jax.tree.map(lambda leaf: leaf, state.sim)
    zero = jnp.zeros((), jnp.float32)
    obs = state.obs if sim.obs is None else sim.obs
    return sim.replace(obs=obs, reward=zero, done=zero, metrics={})


def _as(tree: Any, like: Any) -> Any:
    """The tree in the types of another, so that a state can be carried round a loop."""
    return jax.tree.map(lambda leaf, other: _strong(leaf, other.dtype), tree, like)


def _strong(leaf: Any, dtype: Any) -> jax.Array:
    return jax.lax.convert_element_type(jnp.asarray(leaf), dtype)
