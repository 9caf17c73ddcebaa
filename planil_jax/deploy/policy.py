"""A trained agent as a robot asks it: observations in, actions out, numpy on both sides.

    policy = run.policy()
    policy.reset()                       # where an episode starts
    action = policy(observation)         # [O] -> [U], in the environment's units

The policy keeps what its agent carries from step to step: a plan, a belief. It acts without
exploration and deterministically by its seed.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax import config, experiment, registry, runs, sweep
from planil_jax.base import Agent, EnvSpec, EnvState, Task, UsageError, UserError


class Policy:
    """One member of a run, ready to act. A class, since it keeps a carry and a key."""

    def __init__(self, trained: runs.Run, member: int = 0, seed: int = 0):
        """The policy of a member.

        Args:
          trained: the run.
          member: index of the member: the seed's, or that of a sweep's members.
          seed: of whatever the agent samples when it acts, such as plans.

        Raises:
          UsageError: there is no such member, or the seed is no seed.
        """
        seed = config.checked(seed, config.Seed, "sampling_seed")
        member = config.checked(member, int, "seed")
        members = jax.tree.leaves(trained.params)[0].shape[0]
        if not 0 <= member < members:
            raise UsageError(f"the run has members 0 to {members - 1}, no {member}.")
        values, self._params = jax.tree.map(
            lambda leaf: leaf[member], (trained.settings, trained.params)
        )
        self.spec: EnvSpec = trained.env.spec
        settings = sweep.apply_overrides(trained.experiment, values)
        task = _from_observations(
            experiment.make_task(settings, trained.env, trained.demos)
        )
        method = registry.method(settings.method)
        self._agent: Agent = method.make(task, settings.agent)
        self._act = jax.jit(self._decide)
        self._seed = seed
        self._recover = task.recover
        self.reset()

    def reset(self) -> None:
        """Begins an episode: the agent forgets what it carried."""
        self._carry = self._agent.carry()
        self._key = jax.random.key(self._seed)
        self._time = 0

    def __call__(self, observation: Any) -> np.ndarray:
        """The action for an observation.

        Args:
          observation: `[O]`, or a picture `[H, W, C]` uint8, as the environment observes.

        Returns:
          The action `[U]`, within the environment's bounds.

        Raises:
          UsageError: the observation has another shape, or is not of real, finite numbers.
          UserError: the agent plans through a model that needs the simulator's state.
        """
        obs = self._checked(observation)
        self._key, key = jax.random.split(self._key)
        action, self._carry = self._act(self._params, self._carry, obs, self._time, key)
        self._time += 1
        return np.asarray(action)

    def _decide(self, params, carry, obs: jax.Array, time: jax.Array, key: jax.Array):
        sim = NoSimulator(self.spec.name)
        state = EnvState(sim=sim, obs=obs, time=jnp.asarray(time, jnp.int32))
        return self._agent.act(params, carry, state, key, False)

    def _checked(self, observation: Any) -> np.ndarray:
        spec = self.spec
        shape = spec.image or (spec.observation_size,)
        try:
            obs = np.asarray(observation)
        except ValueError:  # rows of different lengths
            obs = np.asarray(observation, object)
        if not (obs.dtype == np.uint8 if spec.image else obs.dtype.kind in "fiu"):
            wanted = "uint8, 0 to 255" if spec.image else "real numbers"
            raise UsageError(
                f"an observation of {spec.name} is of {wanted}, not of {obs.dtype}."
            )
        if obs.shape != tuple(shape):
            raise UsageError(
                f"an observation of {spec.name} has the shape {tuple(shape)}, "
                f"not {obs.shape}."
            )
        if spec.image:
            return obs
        obs = obs.astype(np.float32)
        if not np.isfinite(obs).all():
            entry = spec.observation_names[int(np.argmin(np.isfinite(obs)))]
            raise UsageError(f"the observation is not finite in its entry {entry!r}.")
        return obs


def _from_observations(task: Task) -> Task:
    """The task, whose model starts from the observation, where it can."""
    dynamics = task.dynamics
    if dynamics is None or dynamics.recover is None:
        return task
    recover = dynamics.recover
    return task._replace(
        dynamics=dynamics._replace(start=lambda params, state: recover(params, state.obs))
    )


class NoSimulator:
    """Stands where a simulator's state would be, and says so when it is read."""

    def __init__(self, env: str):
        self._env = env

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UserError(
            f"this agent plans through the physics of {self._env}, which need the "
            "simulator's state: give the environment a `recover`, (obs) -> state, or "
            "choose a method that learns its model."
        )
