"""Which column of a source is which entry of an observation, and in which unit.

A name may say its unit in brackets, "x [m]". A column that says another unit of the same
quantity is converted; one that says none is taken to be in the environment's.
"""

import math
import re
from collections.abc import Mapping, Sequence

from planil_jax.base import EnvSpec, UsageError, did_you_mean, printable
from planil_jax.data.formats.recording import listed

_UNIT = re.compile(r"\s*\[([^\]]*)\]\s*$")
# unit -> (the unit of the same quantity that others are given in, how many of them)
_UNITS = {
    "km": ("m", 1e3),
    "m": ("m", 1.0),
    "cm": ("m", 1e-2),
    "mm": ("m", 1e-3),
    "rad": ("rad", 1.0),
    "deg": ("rad", math.pi / 180),
    "s": ("s", 1.0),
    "ms": ("s", 1e-3),
    "us": ("s", 1e-6),
    "ns": ("s", 1e-9),
    "m/s": ("m/s", 1.0),
    "cm/s": ("m/s", 1e-2),
    "mm/s": ("m/s", 1e-3),
    "km/h": ("m/s", 1 / 3.6),
    "rad/s": ("rad/s", 1.0),
    "deg/s": ("rad/s", math.pi / 180),
    "rpm": ("rad/s", math.pi / 30),
}


def unit(name: str) -> str:
    """What stands in brackets at the end of a name; "": nothing."""
    found = _UNIT.search(name)
    return found[1].strip() if found else ""


def bare(name: str) -> str:
    """A name without its unit."""
    return _UNIT.sub("", name)


def factor(theirs: str, ours: str, where: str) -> float:
    """What a column is multiplied by to be in the unit of an entry.

    Raises:
      UsageError: their units are of different quantities, or unknown.
    """
    given, wanted = unit(theirs), unit(ours)
    if not given or not wanted or given == wanted:
        return 1.0
    quantity, many = _UNITS.get(given, ("", 1.0))
    other, few = _UNITS.get(wanted, ("?", 1.0))
    if quantity != other:
        raise UsageError(
            f"{where}: {printable(theirs)!r} is in {printable(given)} and {ours!r} in "
            f"{wanted}, and the one is not converted to the other: convert the column, or "
            "write it without a unit."
        )
    return many / few


def pairs(
    labels: Sequence[str],
    names: Mapping[str, str] | Sequence[str],
    spec: EnvSpec | None,
    where: str,
    ordered: bool = False,
) -> list[tuple[str, str]]:
    """Columns with the entries that they are: some or all of the environment's.

    Args:
      labels: of the columns there are.
      names: as in `Options`.
      spec: None: columns keep their names.
      where: of messages.
      ordered: whether the columns have an order in place of names.

    Raises:
      UsageError: a name is unknown or given twice, or it is not known which is which.
    """
    if isinstance(names, Mapping):
        chosen = [
            (expand(labels, theirs, where, single=True)[0], _entry(ours, spec, where))
            for theirs, ours in names.items()
        ]
    elif names:
        chosen = _in_order(
            [label for name in names for label in expand(labels, name, where)], spec, where
        )
    elif spec is None:
        return [(label, label) for label in labels]
    else:
        known = {name: name for name in spec.observation_names}
        known |= {bare(name): name for name in spec.observation_names}
        chosen = [
            (label, known[name])
            for label in labels
            for name in [next(filter(known.__contains__, _spellings(label)), None)]
            if name is not None
        ]
        if not chosen and ordered:
            chosen = _in_order(labels, spec, where)
    if not chosen:
        entries = listed([repr(name) for name in spec.observation_names]) if spec else ""
        raise UsageError(
            f"{where} holds {listed(labels)}, and {spec.name if spec else 'nothing'} "
            f"observes {entries}: say which is which with names={{theirs: ours}} "
            "(--map=THEIRS=OURS)."
        )
    ours = [entry for _, entry in chosen]
    if twice := [entry for entry in ours if ours.count(entry) > 1]:
        raise UsageError(
            f"{where}: {twice[0]!r} is to be two columns: say which with names= (--map)."
        )
    return chosen


def expand(labels: Sequence[str], name: str, where: str, single: bool = False) -> list[str]:
    """The columns that a name stands for: a column, or all those of an array.

    Raises:
      UsageError: there is none, or `single` is asked for and there are several.
    """
    found = [label for label in labels if label == name]
    found = found or [label for label in labels if label.startswith(f"{name}.")]
    found = found or [label for label in labels if name in _spellings(label)]
    if not found:
        hint = did_you_mean(name, labels)
        raise UsageError(f"{where} has no column {name!r}; it has {listed(labels)}.{hint}")
    if single and len(found) > 1:
        raise UsageError(
            f"{where}: {name!r} is {len(found)} columns: name one of {listed(found)}."
        )
    return found


def _spellings(label: str) -> tuple[str, ...]:
    """What a column may be called: "observation.state.pan [deg]", or "pan [deg]", "pan"."""
    stem = bare(label)
    inner = stem.rpartition(".")[2]
    return label, stem, label[len(stem) - len(inner) :], inner


def _entry(ours: str, spec: EnvSpec | None, where: str) -> str:
    if spec is None or ours in spec.observation_names:
        return ours
    for name in spec.observation_names:
        if bare(name) == ours:
            return name
    entries = ", ".join(map(repr, spec.observation_names))
    hint = did_you_mean(ours, spec.observation_names)
    raise UsageError(
        f"{where}: {spec.name} observes no {ours!r}; it observes {entries}.{hint}"
    )


def _in_order(
    labels: Sequence[str], spec: EnvSpec | None, where: str
) -> list[tuple[str, str]]:
    if spec is None:
        return [(label, label) for label in labels]
    if len(labels) != spec.observation_size:
        entries = listed([repr(name) for name in spec.observation_names])
        raise UsageError(
            f"{where} holds {len(labels)} observation entries, {listed(labels)}, where "
            f"{spec.name} has {spec.observation_size}, {entries}: say which is which with "
            "names={theirs: ours} (--map=THEIRS=OURS)."
        )
    return list(zip(labels, spec.observation_names, strict=True))
