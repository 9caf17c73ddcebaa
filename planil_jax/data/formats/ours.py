"""Reads this package's own files, to take some pairs, entries or episodes of them."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from planil_jax.base import EnvSpec
from planil_jax.data import demo_file
from planil_jax.data.formats import recording
from planil_jax.data.formats.recording import Options, Recording, Source


def is_one(names: Collection[str]) -> bool:
    """Whether these are the names of its arrays."""
    return "card" in names


def read(path: Path, options: Options, spec: EnvSpec | None, shown: str) -> Source:
    """The episodes of a file.

    Args:
      shown: the source as messages name it.
    """
    episodes, card = demo_file.read(path)

    def load(n: int) -> Recording:
        episode = episodes[n]
        obs, actions = episode.obs, episode.actions
        named = dict(zip(card.observation_names, obs.T, strict=True))
        return Recording(
            name=f"episode {n}",
            obs={"obs": obs} if card.image else named,
            actions={} if actions is None else recording.columns("actions", actions),
            rewards=episode.rewards,
            terminal=episode.terminal,
            times=np.arange(len(obs)) * card.control_period,
        )

    return Source(shown, f"demonstrations of {card.environment}", len(episodes), load)
