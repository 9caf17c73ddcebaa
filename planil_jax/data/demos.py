"""Demonstrations: from a file to padded episodes on the device, and samples of them.

`load` reads a file, `save` writes one; `demo_file.py` describes the format.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax.base import Demonstrations, EnvSpec, UsageError
from planil_jax.data.demo_file import (
    AGAIN,
    Card,
    Episode,
    read,
    read_card,
    refuse_numbers,
    save,
)

__all__ = [
    "Card",
    "Episode",
    "describe",
    "load",
    "none",
    "origin_warnings",
    "read",
    "require_actions",
    "require_length",
    "sample",
    "sample_pairs",
    "sample_sequences",
    "save",
    "transitions",
]


def load(path: str | Path, spec: EnvSpec, first: int | None = None) -> Demonstrations:
    """The demonstrations of a file on the device, laid out as the environment observes.

    The file may lack entries of the observation: they are 0, and missing in `observed`.
    Pictures stay single frames; the functions that sample stack them. Actions are clipped
    to their bounds, which they may exceed by rounding alone. Rewards are not read.

    Args:
      first: how many episodes to take from the beginning of the file; None: all.

    Raises:
      UsageError: the file is not sound, holds fewer episodes, or was not recorded in such
        an environment.
    """
    episodes, card = read(path, rewards=False)
    if first is not None and not 1 <= first <= len(episodes):
        raise UsageError(
            f"{path} holds {len(episodes)} demonstrations, and {first} are asked for: "
            "choose fewer, None for all, or collect more with --episodes."
        )
    episodes = episodes[:first]
    _check_fit(path, episodes, card, spec)
    columns = [spec.observation_names.index(name) for name in card.observation_names]
    filled = slice(None) if card.image else columns
    shape = spec.frame or (spec.observation_size,)
    lengths = [episode.length for episode in episodes]
    count, longest = len(lengths), max(lengths)
    obs = np.zeros((count, longest + 1, *shape), np.uint8 if spec.image else np.float32)
    actions = np.zeros((count, longest, spec.action_size), np.float32)
    for n, (episode, length) in enumerate(zip(episodes, lengths, strict=True)):
        obs[n][: length + 1, filled] = episode.obs
        obs[n, length + 1 :] = obs[n, length]
        if episode.actions is not None:
            actions[n, :length] = episode.actions.clip(spec.action_low, spec.action_high)
    return Demonstrations(
        obs=jnp.asarray(obs),
        actions=None if episodes[0].actions is None else jnp.asarray(actions),
        length=jnp.array(lengths, jnp.int32),
        terminal=jnp.array([episode.terminal for episode in episodes], bool),
        observed=tuple(sorted(columns)),
    )


def origin_warnings(path: str | Path, spec: EnvSpec) -> list[str]:
    """A note for the user where a file names another environment than the one used.

    Options do not matter: demonstrations of the same task under other physics are usual.
    """
    there = read_card(path).environment.partition(":")[0]
    here = spec.name.partition(":")[0]
    if there in ("", here):
        return []
    return [f"note: the demonstrations were recorded in {there}, and are used in {here}."]


def none(spec: EnvSpec) -> Demonstrations:
    """A placeholder for methods that use no demonstrations: one empty step."""
    shape = spec.frame or (spec.observation_size,)
    return Demonstrations(
        obs=jnp.zeros((1, 2, *shape), jnp.uint8 if spec.image else jnp.float32),
        actions=None,
        length=jnp.ones((1,), jnp.int32),
        terminal=jnp.zeros((1,), bool),
        observed=tuple(range(spec.observation_size)),
    )


def describe(path: str | Path) -> str:
    """A page about a file: its card, its episodes, the range of each observation entry."""
    episodes, card = read(path)
    returns = ["unknown" if value is None else f"{value:.1f}" for value in card.returns]
    returns = returns or ["unknown"] * len(episodes)
    rows = [
        (
            str(n),
            str(episode.length),
            returns[n],
            "for good" if episode.terminal else "by time",
        )
        for n, episode in enumerate(episodes)
    ]
    obs = np.concatenate([episode.obs for episode in episodes])  # [sum(L + 1), O]
    columns = zip(card.observation_names, obs.T, strict=True)
    if card.image:
        columns = zip(("red", "green", "blue"), np.moveaxis(obs, -1, 0), strict=True)
    ranges = [
        (name, *(f"{value:.3f}" for value in (column.min(), column.mean(), column.max())))
        for name, column in columns
    ]
    return "\n".join(
        [
            str(path),
            *(f"  {name:<15} {fact}" for name, fact in _facts(episodes, card).items()),
            "",
            _table([("episode", "steps", "return", "ended"), *rows]),
            "",
            _table([("observation", "min", "mean", "max"), *ranges]),
        ]
    )


def require_actions(demos: Demonstrations, method: str) -> None:
    """Refuses demonstrations without actions, for a method that imitates actions.

    Raises:
      UsageError: there are no actions.
    """
    if demos.actions is None:
        raise UsageError(
            f"{method} imitates actions, but these demonstrations hold observations only: "
            "record them with actions, or choose a method that needs none."
        )


# ------------------------------------------------------------------------------- sampling


def transitions(demos: Demonstrations) -> tuple[jax.Array, jax.Array, jax.Array]:
    """All transitions, padding too: obs `[N L, O]`, next_obs `[N L, O]`, valid `[N L]`."""
    count, rows, size = demos.obs.shape
    obs = demos.obs[:, :-1].reshape(-1, size)
    next_obs = demos.obs[:, 1:].reshape(-1, size)
    valid = jnp.arange(rows - 1)[None] < demos.length[:, None]  # [N, L]
    return obs, next_obs, valid.reshape(count * (rows - 1))


def sample_pairs(
    demos: Demonstrations, key: jax.Array, batch: int, frames: int = 1
) -> tuple[jax.Array, jax.Array]:
    """Draws obs `[B, O]` and next_obs `[B, O]`, uniformly from all transitions.

    Args:
      frames: pictures stacked in one observation: obs `[B, H, W, 3 frames]`.
    """
    episode, step = _draw(demos, key, batch)
    obs = observations_at(demos, episode, step, frames)
    return obs, observations_at(demos, episode, step + 1, frames)


def sample(
    demos: Demonstrations, key: jax.Array, batch: int, frames: int = 1
) -> tuple[jax.Array, jax.Array | None, jax.Array, jax.Array]:
    """Draws transitions, uniformly from all of them, with replacement.

    Args:
      frames: pictures stacked in one observation: obs `[B, H, W, 3 frames]`.

    Returns:
      obs `[B, O]`, actions `[B, U]` (None without actions), next_obs `[B, O]` and
      terminal `[B]` bool: the episode ended for good with this transition.
    """
    episode, step = _draw(demos, key, batch)
    actions = None if demos.actions is None else demos.actions[episode, step]
    terminal = demos.terminal[episode] & (step + 1 == demos.length[episode])
    obs = observations_at(demos, episode, step, frames)
    next_obs = observations_at(demos, episode, step + 1, frames)
    return obs, actions, next_obs, terminal


def sample_sequences(
    demos: Demonstrations, key: jax.Array, batch: int, length: int, frames: int = 1
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    """Draws sequences of consecutive transitions, uniformly from all of their starts.

    Args:
      frames: pictures stacked in one observation: obs `[length + 1, B, H, W, 3 frames]`.

    Returns:
      obs `[length + 1, B, O]`, actions `[length, B, U]` (None without actions) and
      terminal `[length, B]` bool.
    """
    ends = jnp.cumsum(jnp.maximum(demos.length - length + 1, 0))  # [N], of starts
    index = jax.random.randint(key, (batch,), 0, ends[-1])
    episode = jnp.searchsorted(ends, index, side="right")
    first = index - jnp.where(episode > 0, ends[episode - 1], 0)
    step = first[None] + jnp.arange(length + 1)[:, None]  # [length + 1, B]
    actions = None if demos.actions is None else demos.actions[episode, step[:-1]]
    terminal = demos.terminal[episode] & (step[1:] == demos.length[episode])
    return observations_at(demos, episode, step, frames), actions, terminal


def observations_at(
    demos: Demonstrations, episode: jax.Array, step: jax.Array, frames: int = 1
) -> jax.Array:
    """The demonstrator's observations at steps `[...]` of episodes `[...]`, `[..., O]`.

    Pictures are stacks of frames `[..., H, W, 3 frames]`, the oldest first. The first frame
    of an episode also fills the places before it.
    """
    if frames == 1:
        return demos.obs[episode, step]
    back = [jnp.maximum(step - k, 0) for k in reversed(range(frames))]
    return jnp.concatenate([demos.obs[episode, at] for at in back], axis=-1)


def require_length(demos: Demonstrations, length: int, method: str) -> None:
    """Refuses demonstrations all of whose episodes are shorter than a sequence.

    Raises:
      UsageError: they are.
    """
    longest = int(np.asarray(demos.length).max())  # known, even where a program is traced
    if longest < length:
        raise UsageError(
            f"{method} learns from sequences of {length} steps, but the longest of these "
            f"demonstrations has {longest}: record longer ones, or lower "
            "the length of its sequences (its planner's horizon, or "
            "agent.replay.length)."
        )


def _draw(demos: Demonstrations, key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
    """Draws episode `[B]` and step `[B]` of transitions, uniformly from all of them."""
    ends = jnp.cumsum(demos.length)  # [N]
    index = jax.random.randint(key, (batch,), 0, ends[-1])
    episode = jnp.searchsorted(ends, index, side="right")
    return episode, index - (ends - demos.length)[episode]


# -------------------------------------------------------------------------------- helpers


def _check_fit(
    path: str | Path, episodes: Sequence[Episode], card: Card, spec: EnvSpec
) -> None:
    """Refuses demonstrations of another environment than the one they are wanted for."""
    if tuple(card.image) != spec.frame:
        raise UsageError(
            f"{path}, of {card.environment}, holds {_form(card.image)}, but {spec.name} "
            f"shows {_form(spec.frame)}: choose another file, or the option pixels that "
            "fits."
        )
    foreign = [
        name for name in card.observation_names if name not in spec.observation_names
    ]
    if foreign:
        raise UsageError(
            f"{path}, of {card.environment}, holds {', '.join(map(repr, foreign))}, but "
            f"{spec.name} observes {', '.join(map(repr, spec.observation_names))}: choose "
            "another file or another environment."
        )
    if abs(card.control_period - spec.control_period) > 1e-6:
        raise UsageError(
            f"{path} was recorded every {card.control_period:g} s, but {spec.name} acts "
            f"every {spec.control_period:g} s: {AGAIN}."
        )
    if episodes[0].actions is not None:
        _check_choices(path, episodes, card, spec)
    if episodes[0].actions is not None and len(card.action_low) != spec.action_size:
        raise UsageError(
            f"{path}, of {card.environment}, holds {len(card.action_low)} actions a step, "
            f"but {spec.name} takes {spec.action_size}: choose another file or environment."
        )
    low, high = np.array(spec.action_low), np.array(spec.action_high)
    slack = 1e-6 + 1e-5 * (high - low)
    for n, episode in enumerate(episodes):
        if episode.actions is not None:
            outside = (episode.actions < low - slack) | (episode.actions > high + slack)
            where, bounds = f"{path}: actions of episode {n}", f"{spec.name}'s bounds"
            refuse_numbers(outside, episode.actions, where, f"outside {bounds}")


def _check_choices(
    path: str | Path, episodes: Sequence[Episode], card: Card, spec: EnvSpec
) -> None:
    """Refuses continuous actions where choices are wanted, and the reverse."""
    low, high = tuple(card.action_low), tuple(card.action_high)
    within = low == (0.0,) * len(low) and high == (1.0,) * len(low) and len(low) > 1
    one_hot = all(_one_hot(np.asarray(episode.actions)) for episode in episodes)
    discrete = within and one_hot
    recorded = EnvSpec("", (), low, high, 0, 0.0, discrete=discrete)
    if spec.discrete and not discrete:
        mend = f"record it there, with the option choices={spec.action_size}"
    elif discrete and spec.action_size != recorded.action_size:
        mend = f"choose an environment with the option choices={recorded.action_size}"
    else:
        return
    raise UsageError(
        f"{path}, of {card.environment}, holds actions that are {recorded.action_form}, "
        f"but {spec.name} takes {spec.action_form}: {mend}."
    )


def _one_hot(actions: np.ndarray) -> bool:
    """Whether all of `[L, U]` are one-hot."""
    return bool(np.all((actions == 0) | (actions == 1)) and np.all(actions.sum(1) == 1))


def _form(image: Sequence[int]) -> str:
    if not image:
        return "numbers"
    return f"pictures of {image[0]} × {image[1]}"


def _facts(episodes: Sequence[Episode], card: Card) -> dict[str, str]:
    """What a card says, and how much the file holds."""
    steps = sum(episode.length for episode in episodes)
    bounds = zip(card.action_low, card.action_high, strict=True)
    actions = ", ".join(f"[{low:g}, {high:g}]" for low, high in bounds)
    return {
        "environment": card.environment,
        "expert": card.expert or "unknown",
        "control period": f"{card.control_period:g} s",
        "episodes": f"{len(episodes)}",
        "transitions": f"{steps}, {steps * card.control_period:g} s",
        "actions": "none" if episodes[0].actions is None else f"within {actions}",
        "rewards": "none" if episodes[0].rewards is None else "for reports only",
        "made by": card.made_by,
        "note": card.note or "none",
    }


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(["", row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    )
