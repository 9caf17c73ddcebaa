"""Demonstrations in the formats of others; one reader a file."""

from pathlib import Path

from planil_jax.base import EnvSpec
from planil_jax.data import demo_file
from planil_jax.data.formats import arrays


def convert(
    source: str,
    environment: str,
    spec: EnvSpec,
    path: str,
    count: int,
    *,
    clip: bool = False,
    skip_empty: bool = False,
) -> tuple[demo_file.Card, list[str]]:
    """Writes the first `count` episodes of a file of others as demonstrations.

    Args:
      source: an .npz of arrays, see `arrays`.
      environment: its name, for the card.
      spec: of that environment.
      path: the file to write, .npz.
      clip: whether actions beyond the environment's bounds are clipped to them.
      skip_empty: whether episodes without transitions are left out.

    Returns:
      The card, and a sentence for all that was changed or left unread.

    Raises:
      UsageError: the source is no such file, or does not fit the environment.
    """
    episodes, notes = arrays.read(source, spec, count, clip=clip, skip_empty=skip_empty)
    card = demo_file.Card(
        environment=environment,
        control_period=spec.control_period,
        observation_names=spec.observation_names,
        action_low=spec.action_low,
        action_high=spec.action_high,
        expert=f"of {Path(source).name}",
    )
    demo_file.check(source, episodes, card)
    demo_file.save(path, episodes, card)
    return demo_file.read(path)[1], notes
