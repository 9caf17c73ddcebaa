"""A small file of a trained expert: its acting parameters alone, an `.npz` without pickles.

    weights.NAME  a leaf of the parameters that act, such as "weights.params.Dense_0.bias"
    settings      [] str   JSON: environment, method and its settings, of which the agent is
                           built again
    card          [] str   JSON: the `Card`, with "format" and "version"

`evaluation/saved_experts.py` writes it of a run, and builds the expert again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from planil_jax import __version__, config
from planil_jax.base import UsageError, UserError, printable
from planil_jax.data import archive, demo_file

FORMAT = "planil_jax expert"
VERSION = 1
SETTINGS = ("environment", "method", "model", "agent")  # fields of the experiment
WEIGHTS = "weights"  # before the names of leaves
MEND = "copy it again, or write it again by `planil expert --weights`"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """Where an expert comes from, what it observes and does, and what it returns."""

    observation_names: tuple[str, ...] = ()  # [O]
    action_low: tuple[float, ...] = ()  # [U]
    action_high: tuple[float, ...] = ()  # [U]
    control_period: float = 0.0  # seconds
    seed: int = 0  # of its training
    step: int = 0  # environment steps that it was trained for
    returns: tuple[float, ...] = ()  # of episodes from `starts`
    starts: str = ""  # the keys of these episodes, as JAX makes them
    digest: str = ""  # of the weights: names, types, shapes and numbers
    command: str = ""  # that wrote it
    commit: str = ""  # of the training
    made_by: str = f"planil_jax {__version__}"


class Expert(NamedTuple):
    """What a file holds."""

    weights: dict[str, np.ndarray]  # leaves by name, "weights.…"
    settings: dict[str, Any]  # "version" of the configuration, and SETTINGS
    card: Card


def save(path: str | Path, expert: Expert) -> None:
    """Writes a file whole or not at all; fills in the digest of its card.

    Raises:
      UsageError: the path is no .npz, the card is unsound or a weight is not finite.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise UsageError(f"{path}: an expert's weights are a file that ends in .npz.")
    _check(path, expert.weights, expert.card)
    card = dataclasses.replace(expert.card, digest=digest(expert.weights))
    texts = {
        "settings": expert.settings,
        "card": {"format": FORMAT, "version": VERSION} | dataclasses.asdict(card),
    }
    written = {name: np.array(json.dumps(content)) for name, content in texts.items()}
    demo_file.write(path, expert.weights | written)


def read(path: str | Path) -> Expert:
    """What a file holds, checked as far as it says itself.

    Raises:
      UsageError: it is no sound file of an expert.
    """
    path = Path(path)
    arrays = _arrays(path)
    card = _card(path, arrays)
    try:
        settings = config.parse_json(str(arrays["settings"].item()))
    except (KeyError, ValueError, UsageError):
        raise UsageError(f"{path} lacks the expert's settings: {MEND}.") from None
    config.require_version(settings, str(path))
    wanted = {"version", *SETTINGS}
    for name in sorted(settings.keys() ^ wanted):
        verb = "lack" if name in wanted else "hold"
        raise UsageError(
            f"{path}: the expert's settings {verb} '{printable(name)}': {MEND}."
        )
    for name in ("environment", "method"):
        if not isinstance(settings[name], str):
            raise UsageError(f"{path}: the expert's {name} is no text: {MEND}.")
    demo_file.check_texts(path, settings)
    weights = {
        name: array for name, array in arrays.items() if name.partition(".")[0] == WEIGHTS
    }
    if strange := tuple(arrays.keys() - weights.keys() - {"settings", "card"}):
        raise UsageError(
            f"{path} holds {archive.listed(strange)}, which is never written: {MEND}."
        )
    if not weights or digest(weights) != card.digest:
        raise UsageError(f"{path}: its weights are not those that its card names: {MEND}.")
    _check(path, weights, card)
    return Expert(weights, settings, card)


def is_one(path: str | Path) -> bool:
    """Whether a file says that it is an expert's."""
    try:
        card = archive.read(Path(path), lambda _: {"card": archive.TEXT}, MEND)["card"]
    except UserError:  # whatever else it is
        return False
    return demo_file.card_fields(card).get("format") == FORMAT


def summary(path: str | Path) -> str:
    """One line about a file."""
    weights, settings, card = read(path)
    size = sum(array.nbytes for array in weights.values()) / 1000
    return (
        f"{path}: {settings['method']} in {settings['environment']} after "
        f"{card.step} steps, {size:.1f} kB of weights, return {_mean(card)}"
    )


def describe(path: str | Path) -> str:
    """A page about a file: its card, its method, the shapes of its weights."""
    weights, settings, card = read(path)
    size = sum(array.nbytes for array in weights.values())
    count = sum(array.size for array in weights.values())
    bounds = zip(card.action_low, card.action_high, strict=True)
    facts = {
        "expert": f"{settings['method']} after {card.step} steps, seed {card.seed}",
        "environment": settings["environment"],
        "control period": f"{card.control_period:g} s",
        "observations": ", ".join(card.observation_names),
        "actions": "within " + ", ".join(f"[{low:g}, {high:g}]" for low, high in bounds),
        "return": f"{_mean(card)}, {len(card.returns)} episodes",
        "starts": card.starts,
        "weights": f"{count} numbers, {size / 1000:.1f} kB",
        "digest": card.digest,
        "command": card.command or "unknown",
        "commit": card.commit or "unknown",
        "made by": card.made_by,
    }
    width = max(map(len, weights))
    return "\n".join(
        [
            str(path),
            *(f"  {name:<15} {fact}" for name, fact in facts.items()),
            "",
            *(
                f"  {name:<{width}}  {array.dtype} {list(array.shape)}"
                for name, array in weights.items()
            ),
        ]
    )


def digest(weights: Mapping[str, np.ndarray]) -> str:
    """A fingerprint of arrays, whatever compressed them."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(f"{name} {form(weights[name])} ".encode())
        found.update(np.ascontiguousarray(weights[name]).tobytes())
    return found.hexdigest()[:16]


def form(leaf: Any) -> str:
    """Type and shape of an array, "float32 [3, 64]"."""
    return f"{leaf.dtype} {list(leaf.shape)}"


# -------------------------------------------------------------------------------- helpers


def _mean(card: Card) -> str:
    return f"{np.mean(card.returns):.1f} ± {np.std(card.returns):.1f}"


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an archive."""
    if not path.is_file():
        raise UsageError(
            f"no expert's file {path}: write one by `planil expert --weights={path}`."
        )

    def choose(names: tuple[str, ...]) -> Mapping[str, str]:
        # A weight that is a text is refused by `_check`.
        kinds = {name: archive.TRUTHS + archive.NUMBERS + archive.TEXT for name in names}
        return kinds | {
            name: archive.TEXT for name in ("card", "settings") if name in names
        }

    return archive.read(path, choose, MEND)


def _card(path: Path, arrays: Mapping[str, np.ndarray]) -> Card:
    fields = demo_file.card_fields(arrays["card"]) if "card" in arrays else {}
    form, version = fields.pop("format", None), fields.pop("version", None)
    if form == demo_file.FORMAT:
        raise UsageError(
            f"{path} holds demonstrations, and no expert: train on it (--demos), or write "
            "an expert by `planil expert --weights`."
        )
    if form != FORMAT or type(version) is not int or version < 1:
        raise UsageError(
            f"{path} is no expert's file (its card does not say {FORMAT!r}): write one by "
            "`planil expert --weights`."
        )
    return demo_file.sound_card(path, fields, version, VERSION, Card())


def _check(path: Path, weights: Mapping[str, np.ndarray], card: Card) -> None:
    """Refuses a card that contradicts itself, and weights that are not finite numbers."""
    mistakes = {
        "gives an action one bound of two": len(card.action_low) != len(card.action_high),
        "has a control period that is not above 0 s": not card.control_period > 0,
        "has a seed or a number of steps below 0": min(card.seed, card.step) < 0,
        "names no returns": not card.returns,
    }
    for mistake, made in mistakes.items():
        if made:
            raise UsageError(f"{path}: its card {mistake}: {MEND}.")
    for name, array in weights.items():
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise UsageError(f"{path}: {name} holds what is no finite number: train again.")
