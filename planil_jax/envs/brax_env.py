"""Tasks of Brax and of MuJoCo Playground: "brax/hopper/spring", "playground/CheetahRun".

Observation, reward and end are those of the library. The libraries do not name the entries
of an observation, so the names are "obs 0", "obs 1", …, without units.
Action: every entry is in [-1, 1]. A Playground task repeats its action within its step
(`ctrl_dt / sim_dt`), as its configuration says.
End: the library's, and truncation after `episode_length` steps.

The libraries' wrappers are not used. So `next_obs` is never the first observation of the
next episode, termination and truncation stay apart, and time is counted here. An
observation need not determine the state, so there is no `recover`.

Departures: of an observation that is a dictionary only the entry "state" is used; the
libraries' metrics are dropped.
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
    missing_extra,
)
from planil_jax.envs.mjcf import scale_physics

Cost: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
BACKENDS = ("generalized", "mjx", "positional", "spring")
IMPLS = ("jax", "warp")
DEFAULT_LENGTH = 1000  # control steps, if the library has no value
_STUBS = ("fast",)  # environments for Brax's own tests
# Costs of the planning demonstrator, for tasks with sparse rewards. PendulumSwingup: the
# height that the tip lacks, in lengths of the pole.
_COSTS: dict[str, Cost] = {"PendulumSwingup": lambda obs, action, next_obs: 1 - next_obs[1]}
# Shaped rewards, for tasks whose reward is too sparse to train an expert.
_SHAPED: dict[str, Callable[[Any, Any], jax.Array]] = {
    "HopperHop": lambda env, state: _rise_first(env, state),
}
_DOWNLOAD = (
    'python -c "from mujoco_playground._src import mjx_env; '
    'mjx_env.ensure_menagerie_exists()"'
)


def make_brax(
    task: str,
    episode_length: int | None = None,
    mass: float = 1.0,
    friction: float = 1.0,
    gravity: float = 1.0,
) -> Environment:
    """A task of Brax.

    Args:
      task: "hopper", or "hopper/spring" for one of BACKENDS; the default is Brax's choice.
      episode_length: control steps; None: the library's 1000.
      mass: factor of all masses and inertias. The spring and positional back ends have
        inertias of their own, so there it is a factor of masses alone.
      friction: factor of all coefficients of friction.
      gravity: factor of gravity.

    Raises:
      UsageError: there is no such task or back end, or it has no mass to scale.
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
    length = DEFAULT_LENGTH if episode_length is None else episode_length
    return _adapt(f"brax/{task}", env, length, continued)


def make_playground(
    task: str,
    episode_length: int | None = None,
    impl: str = "jax",
    mass: float = 1.0,
    friction: float = 1.0,
    gravity: float = 1.0,
    shaped: bool = False,
) -> Environment:
    """A task of MuJoCo Playground.

    Args:
      task: Playground's name, such as "CheetahRun".
      episode_length: control steps; None: Playground's.
      impl: the implementation of MJX, one of IMPLS.
      mass, friction, gravity: factors of all masses and inertias, of all coefficients of
        friction, and of gravity.
      shaped: whether the reward is that of _SHAPED, which helps to train an expert.

    Raises:
      UserError: Playground is not installed.
      UsageError: a robot model is not installed, the machine cannot run `impl`, or a name
        or option is unknown.
    """
    name = f"playground/{task}"
    try:
        import mujoco_playground  # noqa: F401  says whether the extra is there
    except ImportError:
        raise missing_extra(
            f"environment {name!r}", "MuJoCo Playground", "playground"
        ) from None
    if impl not in IMPLS:
        raise UsageError(
            f"environment {name!r}: option impl must be {' or '.join(IMPLS)}, not {impl!r}."
        )
    if shaped and task not in _SHAPED:
        raise UsageError(
            f"environment {name!r} has no shaped reward: leave out shaped. "
            f"Tasks that have one: {', '.join(_SHAPED)}."
        )
    env, config = _load_playground(name, task, impl)
    if (mass, friction, gravity) != (1.0, 1.0, 1.0):
        from planil_jax.envs.quiet import mjx

        env._mj_model = scale_physics(env.mj_model, mass, friction, gravity)
        env._mjx_model = mjx.put_model(env._mj_model, impl=impl)
    length = config.get("episode_length", DEFAULT_LENGTH)
    if episode_length is not None:
        length = episode_length
    reward = (lambda state: _SHAPED[task](env, state)) if shaped else _task_reward
    adapted = _adapt(name, env, int(length), lambda state: state, reward)
    return adapted._replace(expert_cost=_COSTS.get(task))


def _task_reward(state: Any) -> jax.Array:
    return state.reward


def _rise_first(env: Any, state: Any) -> jax.Array:
    """A hopper's reward in [0, 1]: a fifth for a height of 0.7 m, the rest for 2 m/s.

    The task's reward is 0 at every height below 0.6 m.
    """
    rise = jnp.clip(env._height(state.data) / 0.7, 0.0, 1.0)
    speed = jnp.clip(env._speed(state.data) / 2.0, 0.0, 1.0)
    return rise**2 * (1.0 + 4.0 * speed) / 5.0


def _scaled_system(system: Any, mass: float, friction: float, gravity: float) -> Any:
    """Brax's system with scaled physics, both in its fields and in those for MJX."""
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
    """The factor of m by which m^(1 - scale), the mass that is used, grows by `mass`."""
    exponent = 1.0 - float(system.spring_mass_scale)
    if mass != 1.0 and exponent == 0.0:
        raise UsageError(
            f"environment {name!r} has no mass to scale, since Brax's model of it makes "
            "every link weigh 1 on this back end: choose generalized or mjx."
        )
    return float(mass ** (1.0 / exponent)) if exponent else 1.0


def _continued(env: Any, scaled: bool) -> Callable[[Any], Any]:
    """(state of the task, perhaps with other physics) -> the state to step from.

    Brax's states contain masses (spring, positional) or the mass matrix and the Jacobian of
    the contacts (generalized). A model with other physics must replace those of the real
    environment. On the generalized back end this is slow, so there only a scaled model does
    it; an unscaled model uses the old matrix for one step.
    """
    if env.backend in ("spring", "positional"):
        system = env.sys
        weights = system.link.inertia.mass ** (1.0 - system.spring_mass_scale)

        def replace_masses(state):
            pipeline_state = state.pipeline_state.replace(mass=weights)
            return state.replace(pipeline_state=pipeline_state)

        return replace_masses
    if env.backend == "generalized" and scaled:

        def recompute(state):
            old = state.pipeline_state
            return state.replace(pipeline_state=env.pipeline_init(old.q, old.qd))

        return recompute
    return lambda state: state


def _load_playground(name: str, task: str, impl: str) -> tuple[Any, Any]:
    """The library's environment and its configuration; it never downloads."""
    from mujoco_playground._src import (
        dm_control_suite,
        locomotion,
        manipulation,
        mjx_env,
    )

    suites = (dm_control_suite, locomotion, manipulation)
    suite = next((suite for suite in suites if task in suite.ALL_ENVS), None)
    if suite is None:
        tasks = [name for suite in suites for name in suite.ALL_ENVS]
        hint = did_you_mean(task, tasks) or (
            " Its tasks are in mujoco_playground.registry.ALL_ENVS."
        )
        raise UsageError(f"MuJoCo Playground has no task {task!r}.{hint}")
    config = copy.deepcopy(suite.get_default_config(task))
    if "impl" in config:
        config.impl = impl
    downloads = suite is not dm_control_suite and not mjx_env.MENAGERIE_PATH.exists()
    try:
        # The library's `load` would first download the models of all robots.
        return suite._envs[task](config=config), config
    except Exception as error:
        if downloads and isinstance(error, ValueError | OSError):
            raise UsageError(
                f"environment {name!r} needs robot models, which are not downloaded yet: "
                f"run once, with a network: {_DOWNLOAD}"
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
    reward: Callable[[Any], jax.Array] = _task_reward,
) -> Environment:
    """An environment of Brax or Playground as an `Environment`."""

    def reset(key: jax.Array) -> EnvState:
        state = env.reset(jax.random.key_data(key))
        return _strip(state, jnp.zeros((), jnp.int32))

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        after = env.step(continued(_restore(state)), action)
        next_state = _strip(after, state.time + 1)
        next_state = replace(next_state, sim=_as(next_state.sim, state.sim))
        transition = Transition(
            obs=state.obs,
            action=action,
            next_obs=next_state.obs,
            reward=_strong(reward(after), jnp.float32),
            terminal=_strong(after.done, jnp.float32) > 0.5,
            truncated=next_state.time >= episode_length,
        )
        return next_state, transition

    size = jax.eval_shape(reset, jax.random.key(0)).obs.shape[0]
    spec = EnvSpec(
        name=name,
        observation_names=tuple(f"obs {entry}" for entry in range(size)),
        action_low=(-1.0,) * env.action_size,
        action_high=(1.0,) * env.action_size,
        episode_length=episode_length,
        control_period=round(float(env.dt), 7),  # Brax holds it as a float32
        terminates=True,  # the libraries do not say which of their tasks terminate
    )
    return Environment(spec, reset, step)


def _strip(state: Any, time: jax.Array) -> EnvState:
    """The parts of a library's state that a step needs, without the observation twice."""
    named = isinstance(state.obs, dict)
    obs = state.obs["state"] if named else state.obs
    sim = state.replace(
        obs=state.obs if named else None, reward=None, done=None, metrics={}
    )
    sim = jax.tree.map(lambda leaf: _strong(leaf, jnp.asarray(leaf).dtype), sim)
    return EnvState(sim=sim, obs=_strong(obs, jnp.float32), time=time)


def _restore(state: EnvState) -> Any:
    """The library's state, in new dictionaries, because the libraries modify theirs."""
    sim = jax.tree.map(lambda leaf: leaf, state.sim)
    zero = jnp.zeros((), jnp.float32)
    obs = state.obs if sim.obs is None else sim.obs
    return sim.replace(obs=obs, reward=zero, done=zero, metrics={})


def _as(tree: Any, like: Any) -> Any:
    """The tree in the dtypes of another, so that `lax.scan` can carry it."""
    return jax.tree.map(lambda leaf, other: _strong(leaf, other.dtype), tree, like)


def _strong(leaf: Any, dtype: Any) -> jax.Array:
    """The leaf as an array of this dtype that is not weakly typed."""
    return jax.lax.convert_element_type(jnp.asarray(leaf), dtype)
