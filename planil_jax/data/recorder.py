"""Records demonstrations in a Gymnasium environment, while somebody or something drives.

    recorder = Recorder(gymnasium.make("Pendulum-v1"), out="mine.npz", expert="me")
    obs, info = recorder.reset(seed=0)
    obs, reward, terminated, truncated, info = recorder.step(action)

It is used in the environment's place. Gymnasium itself is not imported.
"""

from pathlib import Path
from typing import Any

import numpy as np

from planil_jax.base import UsageError
from planil_jax.data.dataset import Demos


class Recorder:
    """An environment that keeps what is done in it."""

    def __init__(
        self,
        env: Any,
        *,
        out: str | Path | None = None,
        observation_names: tuple[str, ...] = (),
        control_period: float | None = None,
        expert: str = "",
    ):
        """
        Args:
          env: a `gymnasium.Env`; numbers or pictures are observed, and actions are numbers
            or choices.
          out: the file that every finished episode is added to, .npz; None: `save` writes.
          observation_names: of the entries; (): as its spaces name them.
          control_period: seconds of a step; None: the environment's `dt`, or one over its
            `render_fps`.
          expert: who drives.

        Raises:
          UsageError: its spaces are of other kinds, or the control period is not known.
        """
        self.env = env
        self._out = None if out is None else Path(out).expanduser()
        self._expert = expert
        self._period = control_period or _period(env)
        self._choices, self._low, self._high = _actions(env.action_space)
        names = _entries(env.observation_space, "observation")
        if observation_names and len(observation_names) != len(names):
            raise UsageError(
                f"observation_names are {len(observation_names)}, and {_name(env)} "
                f"observes {len(names)} entries: give as many."
            )
        self._names = tuple(observation_names or names)
        self._obs: list[np.ndarray] = []  # of the episode that runs
        self._taken: list[np.ndarray] = []
        self._rewards: list[float] = []
        self._done: list[tuple[np.ndarray, np.ndarray, np.ndarray, bool]] = []

    def reset(self, **options: Any) -> tuple[Any, dict]:
        """As the environment's; an episode that runs is kept, as one ended by time."""
        self._finish(False)
        obs, info = self.env.reset(**options)
        self._obs = [self._flat(obs)]
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        """As the environment's."""
        if not self._obs:
            raise UsageError("the episode has ended: call reset() before step().")
        taken = self._action(action)  # first, as the environment may write into it
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._taken.append(taken)
        self._rewards.append(float(reward))
        self._obs.append(self._flat(obs))
        if terminated or truncated:
            self._finish(bool(terminated))
        return obs, reward, terminated, truncated, info

    def discard(self) -> None:
        """Forgets the episode that runs, such as one that went wrong."""
        self._obs, self._taken, self._rewards = [], [], []

    def demos(self) -> Demos:
        """The finished episodes.

        Raises:
          UsageError: there are none, or an action was beyond its bounds.
        """
        if not self._done:
            raise UsageError("nothing is recorded yet: drive an episode to its end.")
        obs, actions, rewards, terminal = zip(*self._done, strict=True)
        low, high = np.array(self._low), np.array(self._high)
        for n, taken in enumerate(actions):
            outside = (taken < low - 1e-6) | (taken > high + 1e-6)
            for step, entry in np.argwhere(outside)[:1]:
                raise UsageError(
                    f"action {entry} of episode {n}, step {step}, was "
                    f"{taken[step, entry]:g}, outside {_name(self.env)}'s bounds "
                    f"[{low[entry]:g}, {high[entry]:g}], as were {int(outside.sum())} of "
                    f"{outside.size} numbers: clip what is passed to step()."
                )
        return Demos.from_arrays(
            obs,
            actions=actions,
            rewards=rewards,
            terminal=np.array(terminal),
            observation_names=self._names,
            action_low=self._low,
            action_high=self._high,
            control_period=self._period,
            environment=_name(self.env),
            expert=self._expert,
        )

    def save(self, path: str | Path) -> None:
        """Writes the finished episodes; see `Demos.save`."""
        self.demos().save(path)

    def close(self) -> None:
        """Keeps the episode that runs, and closes the environment."""
        self._finish(False)
        self.env.close()

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # before __init__, such as while it is copied
            raise AttributeError(name)
        return getattr(self.env, name)

    def _finish(self, terminal: bool) -> None:
        if self._taken:
            arrays = np.stack(self._obs), np.stack(self._taken), np.array(self._rewards)
            self._done.append((*arrays, terminal))
        self.discard()
        if self._done and self._out is not None:
            self.save(self._out)

    def _flat(self, obs: Any) -> np.ndarray:
        """A copy of an observation, `[O]` or a picture `[H, W, 3]`."""
        parts = _parts(self.env.observation_space, obs)
        if not self._names:
            return np.array(parts[0])
        return np.concatenate([np.ravel(part).astype(np.float64) for part in parts])

    def _action(self, action: Any) -> np.ndarray:
        """A copy of an action, `[U]`; of a choice, one-hot."""
        if not self._choices:
            return np.array(action, np.float32).reshape(len(self._low))
        start = int(getattr(self.env.action_space, "start", 0))
        return (np.arange(self._choices) == int(action) - start).astype(np.float32)


def _name(env: Any) -> str:
    spec = getattr(env, "spec", None)
    return f"gymnasium/{spec.id}" if spec is not None else type(env).__name__


def _period(env: Any) -> float:
    seconds = getattr(getattr(env, "unwrapped", env), "dt", None)
    if not isinstance(seconds, int | float | np.number) or not seconds > 0:
        per_second = (getattr(env, "metadata", None) or {}).get("render_fps")
        seconds = 1 / per_second if per_second else None
    if seconds is None:
        raise UsageError(
            f"{_name(env)} does not say how long a step is: give control_period, in "
            "seconds."
        )
    return float(seconds)


def _kind(space: Any) -> str:
    return type(space).__name__


def _actions(space: Any) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """The number of choices (0: none), and the bounds of the entries."""
    if _kind(space) == "Discrete":
        count = int(space.n)
        return count, (0.0,) * count, (1.0,) * count
    if _kind(space) != "Box" or space.dtype.kind != "f":
        raise UsageError(
            f"actions in {space} are not recorded: they must be a Box of floats, or "
            "Discrete."
        )
    low, high = (np.ravel(side).astype(float) for side in (space.low, space.high))
    if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
        raise UsageError(
            f"actions in {space} have no finite bounds: wrap the environment in one that "
            "gives them, such as gymnasium.wrappers.RescaleAction."
        )
    return 0, tuple(low.tolist()), tuple(high.tolist())


def _entries(space: Any, name: str) -> tuple[str, ...]:
    """Names of the entries of an observation; (): it is a picture."""
    children = getattr(space, "spaces", None)
    if children is not None:
        pairs = children.items() if hasattr(children, "items") else enumerate(children)
        named = [entry for key, child in pairs for entry in _entries(child, str(key))]
        if not named or any(_is_picture(child) for child in _children(space)):
            raise UsageError(
                f"observations in {space} mix pictures and numbers: keep one kind, such as "
                "by gymnasium.wrappers.FilterObservation."
            )
        return tuple(named)
    if _kind(space) != "Box":
        raise UsageError(
            f"observations in {space} are not recorded: they must be a Box, or a Dict or "
            "Tuple of such; gymnasium.wrappers.TransformObservation makes them so."
        )
    if _is_picture(space):
        return ()
    count = int(np.prod(space.shape))
    return (name,) if count == 1 else tuple(f"{name}[{i}]" for i in range(count))


def _children(space: Any) -> list[Any]:
    children = getattr(space, "spaces", ())
    return list(children.values() if hasattr(children, "values") else children)


def _is_picture(space: Any) -> bool:
    shape = getattr(space, "shape", None) or ()
    return _kind(space) == "Box" and len(shape) == 3 and space.dtype == np.uint8


def _parts(space: Any, obs: Any) -> list[Any]:
    """The arrays in an observation, in the order of `_entries`."""
    children = getattr(space, "spaces", None)
    if children is None:
        return [obs]
    keys = children if hasattr(children, "keys") else range(len(children))
    return [part for key in keys for part in _parts(children[key], obs[key])]
