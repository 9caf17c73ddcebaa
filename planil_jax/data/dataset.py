"""Demonstrations on the host: what `collect` makes, `load_demos` reads and `train` takes.

    demos = Demos.from_arrays(positions)        # [N, L + 1, O], or a list of [L + 1, O]
    demos.save("mine.npz");  demos = Demos.load("mine.npz")

What arrays do not say (names, bounds, the control period) is taken from the environment
that they are used for; see `Demos.completed`.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from planil_jax.base import EnvSpec, UsageError
from planil_jax.data import demo_file
from planil_jax.data.demo_file import Card, Episode


@dataclass(frozen=True)
class Demos:
    """Episodes of a demonstrator, with their card."""

    episodes: tuple[Episode, ...]
    card: Card = Card()

    def __post_init__(self) -> None:
        episodes = self.episodes
        if isinstance(episodes, list | tuple) and episodes:
            if all(isinstance(episode, Episode) for episode in episodes):
                return
        raise UsageError(
            "episodes must be one Episode or more in a tuple; Demos.from_arrays(obs, ...) "
            "makes them of arrays."
        )

    @classmethod
    def from_arrays(
        cls,
        obs: Any,
        actions: Any = None,
        rewards: Any = None,
        terminal: Any = False,
        *,
        observation_names: Sequence[str] = (),
        action_low: Sequence[float] = (),
        action_high: Sequence[float] = (),
        control_period: float | None = None,
        environment: str = "",
        expert: str = "",
    ) -> "Demos":
        """Demonstrations of arrays, in the environment's units.

        Args:
          obs: `[N, L + 1, O]`, or a sequence of N arrays `[L_n + 1, O]`; pictures `[..., H,
            W, 3]` uint8. Each episode has one observation more than it has actions.
          actions: `[N, L, U]` or a sequence of `[L_n, U]`; None: observations only.
          rewards: `[N, L]` or a sequence of `[L_n]`, for reports; None: unknown.
          terminal: whether episodes ended for good rather than by time, one or N bools.
          observation_names: of the O entries, some or all of the environment's; (): all of
            them, in its order.
          action_low: bounds of the U entries; (): the environment's.
          action_high: likewise.
          control_period: seconds between observations; None: the environment's.
          environment: where they were recorded.
          expert: who demonstrated.

        Raises:
          UsageError: the arrays do not fit each other; one sentence.
        """
        obs = _episodes("obs", obs)
        count = len(obs)
        columns = {
            "actions": _episodes("actions", actions, count),
            "rewards": _episodes("rewards", rewards, count),
        }
        ended = np.asarray(terminal)
        if ended.dtype != bool or ended.shape not in ((), (count,)):
            raise UsageError(f"terminal must be one bool, or {count}, not {terminal!r}.")
        ended = np.broadcast_to(ended, (count,))
        low, high = _bounds("action_low", action_low), _bounds("action_high", action_high)
        if len(low) != len(high) or any(a >= b for a, b in zip(low, high, strict=True)):
            raise UsageError(
                "action_low must be below action_high in every entry, not "
                f"{low} and {high}."
            )
        if isinstance(observation_names, str):
            raise UsageError(
                "observation_names must be a sequence of names, not the text "
                f"{observation_names!r}."
            )
        episodes = []
        for n, observations in enumerate(obs):
            for name, rows in columns.items():
                if rows is not None and len(rows[n]) != len(observations) - 1:
                    raise UsageError(
                        f"{name} of episode {n} has {len(rows[n])} steps, but obs has "
                        f"{len(observations)} rows: an episode has one observation more "
                        "than steps."
                    )
            taken, received = (rows and rows[n] for rows in columns.values())
            episodes.append(Episode(observations, taken, received, bool(ended[n])))
        card = Card(
            environment=environment,
            control_period=control_period or 0.0,
            observation_names=tuple(observation_names),
            image=obs[0].shape[1:] if obs[0].ndim == 4 else (),
            action_low=low,
            action_high=high,
            expert=expert,
            returns=tuple(
                demo_file.episode_return(episode.rewards)
                for episode in episodes
                if episode.rewards is not None
            ),
        )
        return cls(tuple(episodes), card)

    @classmethod
    def load(cls, path: str | Path) -> "Demos":
        """The demonstrations of a file.

        Raises:
          UsageError: there is no such file, or it is not a sound file of demonstrations.
        """
        episodes, card = demo_file.read(_file(path))
        return cls(tuple(episodes), card)

    def save(self, path: str | Path) -> None:
        """Writes an `.npz` without pickles, whole or not at all.

        Raises:
          UsageError: names, bounds or the control period are missing (`completed` takes
            them from an environment), or the episodes do not fit them; or the path is a
            directory.
        """
        card, first = self.card, self.episodes[0]
        missing = {
            "the control period": not card.control_period,
            "the names of the observation entries": not (
                card.observation_names or card.image
            ),
            "the bounds of the actions": first.actions is not None and not card.action_low,
        }
        if unknown := [what for what, absent in missing.items() if absent]:
            raise UsageError(
                f"{path} is not written, as {', '.join(unknown)} are unknown: save "
                "demos.completed(env.spec), or give them to from_arrays."
            )
        demo_file.save(_file(path), self.episodes, card)

    def completed(self, spec: EnvSpec) -> "Demos":
        """With what the arrays did not say taken from an environment.

        Raises:
          UsageError: the observations have another number of entries than the environment,
            and no names that say which they are.
        """
        card, first = self.card, self.episodes[0]
        names = card.observation_names
        if not (names or card.image):
            if first.obs.shape[1] != spec.observation_size:
                known = ", ".join(map(repr, spec.observation_names))
                raise UsageError(
                    f"the demonstrations hold {first.obs.shape[1]} observation entries and "
                    f"{spec.name} has {spec.observation_size}: say which they are by "
                    f"observation_names, some of {known}."
                )
            names = spec.observation_names
        foreign = [name for name in names if name not in spec.observation_names]
        if foreign:
            raise UsageError(
                f"the demonstrations hold {foreign[0]!r}, but {spec.name} observes "
                f"{', '.join(map(repr, spec.observation_names))}."
            )
        card = dataclasses.replace(
            card,
            environment=card.environment or spec.name,
            control_period=card.control_period or spec.control_period,
            observation_names=names,
        )
        if first.actions is not None and not card.action_low and not card.action_high:
            low, high = spec.action_low, spec.action_high
            card = dataclasses.replace(card, action_low=low, action_high=high)
        demo_file.check("the demonstrations", self.episodes, card)
        return Demos(self.episodes, card)

    @property
    def returns(self) -> np.ndarray:
        """What each episode returned, `[N]`, NaN where unknown; empty without rewards."""
        return np.array(self.card.returns, float)

    def __len__(self) -> int:
        return len(self.episodes)

    def __iter__(self) -> Iterator[Episode]:
        return iter(self.episodes)

    def __repr__(self) -> str:
        steps = sum(episode.length for episode in self.episodes)
        form = "observations only" if self.episodes[0].actions is None else "with actions"
        returns, known = self.returns, self.card.known_returns
        summary = f"mean return {np.mean(known):.4g}" if known else "returns unknown"
        if 0 < len(known) < len(returns):
            summary += f" ({len(returns) - len(known)} unknown)"
        ended = sum(episode.terminal for episode in self.episodes)
        early = f", {ended} ended early" if ended else ""
        return (
            f"Demos({len(self)} episodes of {self.card.environment or 'unknown'}, "
            f"{steps} steps, {form}, {summary}{early})"
        )


def _file(path: Any) -> Path:
    if not isinstance(path, str | Path):
        raise UsageError(
            f"path must name a file of demonstrations, such as demos.npz, not {path!r}."
        )
    return Path(path).expanduser()


def _bounds(name: str, values: Any) -> tuple[float, ...]:
    try:
        return tuple(map(float, values))
    except (TypeError, ValueError):
        raise UsageError(
            f"{name} must be a number for each entry, not {values!r}."
        ) from None


def _episodes(name: str, arrays: Any, count: int | None = None) -> Any:
    """A list of arrays, one an episode; None where there are none."""
    if arrays is None:
        return None
    try:
        if any(np.ma.is_masked(array) for array in arrays):
            raise UsageError(
                f"{name} has masked entries: leave out those steps, or fill them."
            )
        rows = [np.asarray(array) for array in arrays]
    except (TypeError, ValueError):
        rows = []
    if not rows or (count is not None and len(rows) != count):
        wanted = f"{count} episodes" if count is not None else "at least one episode"
        raise UsageError(
            f"{name} must hold {wanted}, each an array; there are {len(rows)} in it."
        )
    rank = {row.ndim for row in rows}
    ranks = {"obs": {2, 4}, "actions": {2}, "rewards": {1}}[name]
    if len(rank) != 1 or not rank <= ranks:
        shape = {"obs": "[L + 1, O]", "actions": "[L, U]", "rewards": "[L]"}[name]
        raise UsageError(
            f"{name} must hold an array {shape} an episode, but the first has the shape "
            f"{rows[0].shape}; a single episode is a list of one array."
        )
    if not all(row.dtype.kind in "fiu" for row in rows):
        raise UsageError(f"{name} must be numbers, not {rows[0].dtype}.")
    if name == "obs" and rank == {2} and len({row.shape[1] for row in rows}) == 1:
        demo_file.refuse_rounding(rows, name, ())
    return [row if row.dtype == np.uint8 else _single(name, row) for row in rows]


def _single(name: str, row: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what overflows becomes inf, and is refused later
        return row.astype(np.float32)
