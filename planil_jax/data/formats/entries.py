"""Which columns of a recording are an observation and an action of an environment.

Observations are named by the environment's entries, in their order and units. Actions are
held against their bounds.
"""

import dataclasses

import numpy as np

from planil_jax.base import EnvSpec, UsageError
from planil_jax.data.formats import select
from planil_jax.data.formats.ledger import Ledger
from planil_jax.data.formats.recording import Options, Recording, listed


def named(
    recording: Recording,
    ordered: bool,
    spec: EnvSpec | None,
    options: Options,
    where: str,
    ledger: Ledger,
) -> Recording:
    """With the environment's entries alone, by their names, in their order and units.

    Args:
      ordered: whether columns have an order in place of names.
      where: of messages, source and episode.

    Raises:
      UsageError: it is not known which column is which, or columns differ in length.
    """
    if not recording.obs:
        raise UsageError(f"{where} has no observations: choose a source that has some.")
    rows = {key: len(column) for key, column in recording.obs.items()}
    if len(set(rows.values())) > 1:
        short, long = min(rows, key=rows.__getitem__), max(rows, key=rows.__getitem__)
        raise UsageError(
            f"{where}: {short} has {rows[short]} rows and {long} has {rows[long]}: record "
            "the episode again, or leave it out with drop_invalid=True (--drop_invalid)."
        )
    pictures = {key for key, column in recording.obs.items() if column.ndim == 4}
    if spec is not None and spec.image:
        chosen = [(_frames(recording, pictures, spec, options, where), "")]
    else:
        labels = [key for key in recording.obs if key not in pictures]
        chosen = select.pairs(labels, options.names, spec, where, ordered)
    if spec is not None and not spec.image:
        order = spec.observation_names.index
        chosen.sort(key=lambda pair: order(pair[1]))
    names = tuple(entry for _, entry in chosen if entry)
    taken = {label for label, _ in chosen}
    others = [key for key in recording.obs if key not in taken]
    if unread := [*others, *recording.unread]:
        ledger.say(f"left unread: {listed(unread)}.")
    if spec is not None and not spec.image and len(names) < spec.observation_size:
        share = f"{len(names)} of {spec.observation_size}"
        ledger.say(f"{share} entries of {spec.name} are there: {listed(names)}.")
    if not (options.names or ordered):
        ends = [
            one for one, other in chosen if other and select.bare(one) != select.bare(other)
        ]
        if ends:
            ledger.say(f"taken as entries by the ends of their names: {listed(ends)}.")
    obs = {}
    for label, entry in chosen:
        scale = select.factor(label, entry, where)
        if scale != 1:
            ledger.say(f"{label!r} was converted to {entry!r}.")
        obs[entry] = recording.obs[label] * scale if scale != 1 else recording.obs[label]
    return dataclasses.replace(recording, obs=obs)


def _frames(
    recording: Recording, pictures: set[str], spec: EnvSpec, options: Options, where: str
) -> str:
    """The column of the frames that the environment shows."""
    fits = sorted(key for key in pictures if recording.obs[key].shape[1:] == spec.frame)
    if options.names:
        fits = [key for key in fits if key in options.names]
    if len(fits) == 1:
        return fits[0]
    assert spec.image
    height, width = spec.image[:2]
    there = [f"{key} {recording.obs[key].shape[1:]}" for key in sorted(pictures)]
    raise UsageError(
        f"{where} holds {listed(there)} of decoded frames, where {spec.name} wants "
        f"one column of {height} × {width}: decode the frames to that size, or name it "
        "with names= (--map=THEIRS)."
    )


def actions(
    recording: Recording,
    spec: EnvSpec | None,
    options: Options,
    where: str,
    ledger: Ledger,
) -> np.ndarray | None:
    """`[L, U]`, within the environment's bounds; None: there are none.

    Raises:
      UsageError: there are more or fewer than it takes, or some are beyond their bounds.
    """
    if not recording.actions:
        return None
    columns = recording.actions
    labels = list(columns)
    if options.actions:
        labels = [k for name in options.actions for k in select.expand(labels, name, where)]
    if unread := [key for key in columns if key not in labels]:
        ledger.say(f"left unread: {listed(unread)}.")
    actions = np.stack([columns[key] for key in labels], 1)  # [L, U]
    if spec is None:
        return actions
    if spec.discrete and actions.shape[1] == 1:
        return _one_hot(actions[:, 0], spec, where)
    if actions.shape[1] != spec.action_size:
        raise UsageError(
            f"{where} holds {actions.shape[1]} action entries, {listed(labels)}, where "
            f"{spec.name} takes {spec.action_size}: name as many with actions= "
            "(--actions=A,B), in its order."
        )
    low, high = np.array(spec.action_low), np.array(spec.action_high)
    slack = 1e-6 + 1e-5 * (high - low)
    outside = (actions < low - slack) | (actions > high + slack)
    if outside.any() and not options.clip:
        step, entry = map(int, np.argwhere(outside)[0])
        raise UsageError(
            f"{where}, step {step}: {labels[entry]} is {actions[step, entry]:g}, "
            f"outside {spec.name}'s bounds [{low[entry]:g}, {high[entry]:g}], as are "
            f"{int(outside.sum())} of {outside.size} numbers of the episode's actions: "
            "scale the actions, or clip them with clip=True (--clip)."
        )
    ledger.clip(int(outside.sum()), outside.size)
    return actions.clip(low, high)


def _one_hot(numbers: np.ndarray, spec: EnvSpec, where: str) -> np.ndarray:
    """Numbers of choices `[L]` as one-hot vectors `[L, U]`."""
    choices = np.arange(spec.action_size)
    if not np.isin(numbers, choices).all():
        raise UsageError(
            f"{where}: actions are {numbers.min():g} to {numbers.max():g}, where "
            f"{spec.name} numbers its {spec.action_size} choices from 0: choose another "
            "environment."
        )
    return (numbers[:, None] == choices).astype(np.float32)
