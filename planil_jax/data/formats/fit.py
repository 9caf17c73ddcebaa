"""From the episodes of a source to demonstrations of an environment.

Of each episode: its columns are named by the environment's entries, gaps and time stamps
are seen to, actions are held against their bounds, and all becomes float32. Whatever is
changed or left out is said.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator

import numpy as np

from planil_jax.base import EnvSpec, UsageError, printable
from planil_jax.data import demo_file
from planil_jax.data.demo_file import Card, Episode
from planil_jax.data.formats import select, timing
from planil_jax.data.formats.recording import Options, Recording, Source, listed

_SHOWN = 3  # episodes that were left out, each with its reason
_NOTE = 900  # characters of the note in a card


class _Fitted:
    """What became of a source's episodes, and what is to be said of them."""

    def __init__(self) -> None:
        self.episodes: list[Episode] = []
        self.names: tuple[str, ...] = ()
        self.period = 0.0
        self.said: dict[str, None] = {}  # sentences, each once
        self.counts: Counter[str] = Counter()  # "… {}" -> how many
        self.left_out: list[str] = []
        self.clipped = self.numbers = 0  # numbers of actions

    def notes(self) -> list[str]:
        counted = [sentence.format(count) for sentence, count in self.counts.items()]
        left_out = [f"left out: {reason}" for reason in self.left_out[:_SHOWN]]
        if len(self.left_out) > _SHOWN:
            left_out.append(f"left out, in all: {len(self.left_out)} episodes.")
        if self.clipped:
            counted.append(
                f"{self.clipped} of {self.numbers} numbers of actions were clipped to "
                "their bounds."
            )
        return [*self.said, *counted, *left_out]


def demonstrations(
    source: Source, spec: EnvSpec | None, count: int | None, options: Options
) -> tuple[list[Episode], Card, list[str]]:
    """The first `count` episodes, their card, and a sentence for all that was changed.

    Args:
      spec: of the environment they are for; None: columns keep their names, and actions
        are not held against bounds.
      count: None: all.

    Raises:
      UsageError: an episode does not fit, and invalid ones are not left out; or there are
        fewer.
    """
    fitted = _Fitted()
    for note in source.notes:
        fitted.said[note] = None
    for n in range(source.count):
        if count is not None and len(fitted.episodes) >= count:
            break
        for episode in _of_recording(source, n, spec, options, fitted):
            fitted.episodes.append(episode)
    episodes = fitted.episodes if count is None else fitted.episodes[:count]
    if not episodes or count is not None and len(episodes) < count:
        reason = f" {fitted.left_out[0]}" if fitted.left_out else ""
        wanted = (
            "no episodes" if count is None else f"{len(episodes)} episodes, not {count}"
        )
        raise UsageError(f"{source.path} has {wanted}.{reason}")
    _require_alike(source, episodes)
    if not episodes[0].obs.ndim == 4:
        obs = [episode.obs for episode in episodes]
        demo_file.refuse_rounding(obs, f"{source.path}: obs", fitted.names)
    returns = [
        demo_file.episode_return(e.rewards) for e in episodes if e.rewards is not None
    ]
    names = () if spec is None and source.ordered and not options.names else fitted.names
    card = Card(
        environment=spec.name if spec else "",
        control_period=spec.control_period if spec else fitted.period,
        observation_names=names,
        image=episodes[0].obs.shape[1:] if episodes[0].obs.ndim == 4 else (),
        action_low=spec.action_low if spec else (),
        action_high=spec.action_high if spec else (),
        expert=f"of {printable(source.path.rstrip('/').rpartition('/')[2])}",
        returns=tuple(returns) if options.every == 1 else (),
    )
    whole = len(episodes)
    if options.every > 1:
        episodes = _every(episodes, options.every)
        known = [value for value in returns if value is not None]
        mean = f", whose mean return is {np.mean(known):.4g}" if known else ""
        fitted.said[
            f"one of every {options.every} pairs was kept of {whole} episodes{mean}; each "
            "is an episode of one step, and returns are unknown."
        ] = None
    notes = fitted.notes()
    said = " ".join([f"Read from {source.kind}.", *notes])
    card = dataclasses.replace(
        card, note=said if len(said) <= _NOTE else f"{said[:_NOTE]}…"
    )
    episodes = [_single(episode) for episode in episodes]
    if spec is not None:  # what float32 cannot hold is refused by the source's name
        demo_file.check(source.path, episodes, card)
    return episodes, card, notes


def _of_recording(
    source: Source, n: int, spec: EnvSpec | None, options: Options, fitted: _Fitted
) -> Iterator[Episode]:
    """The episodes that a recording gives: one, or one for each part between gaps."""
    found: list[Recording] = []
    try:
        recording = source.load(n)
        where = f"{source.path}: {recording.name}"
        recording = _named(source, recording, spec, options, where, fitted)
        recording = timing.stamped(recording, options)
        timing.check(recording, where)
        period = spec.control_period if spec else None
        found = list(timing.parts(recording, period, options, where))
    except UsageError as error:
        _leave_out(error, options, fitted)
    for part in found:
        try:
            yield from _of_part(source, part, spec, options, fitted)
        except UsageError as error:
            _leave_out(error, options, fitted)


def _leave_out(error: UsageError, options: Options, fitted: _Fitted) -> None:
    if not options.drop_invalid:
        raise error
    fitted.left_out.append(str(error))


def _of_part(
    source: Source,
    recording: Recording,
    spec: EnvSpec | None,
    options: Options,
    fitted: _Fitted,
) -> Iterator[Episode]:
    where = f"{source.path}: {recording.name}"
    recording = _paired(recording, where, fitted)
    if recording.rows >= 2:
        _refuse_not_finite(recording, where)
        recording = _timed(recording, spec, where, fitted)
    if recording.rows < 2:
        if options.skip_empty:
            fitted.counts["episodes without transitions, left out: {}."] += 1
            return
        raise UsageError(
            f"{where} has no transitions: leave such episodes out with skip_empty=True "
            "(--skip_empty)."
        )
    columns = list(recording.obs.values())
    obs = columns[0] if columns[0].ndim == 4 else np.stack(columns, 1)
    yield Episode(
        obs=obs,
        actions=_actions(recording, spec, options, where, fitted),
        rewards=recording.rewards,
        terminal=recording.terminal,
    )


# ------------------------------------------------------------------------ names and units


def _named(
    source: Source,
    recording: Recording,
    spec: EnvSpec | None,
    options: Options,
    where: str,
    fitted: _Fitted,
) -> Recording:
    """With the environment's entries alone, by their names, in their order and units."""
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
        chosen = select.pairs(labels, options.names, spec, where, source.ordered)
    if spec is not None and not spec.image:
        order = spec.observation_names.index
        chosen.sort(key=lambda pair: order(pair[1]))
    names = tuple(entry for _, entry in chosen if entry)
    if fitted.names not in ((), names):
        raise UsageError(
            f"{where} has the entries {listed(names)}, where others have "
            f"{listed(fitted.names)}: leave it out with drop_invalid=True (--drop_invalid)."
        )
    fitted.names = names
    taken = {label for label, _ in chosen}
    if unread := [key for key in recording.obs if key not in taken]:
        fitted.said[f"left unread: {listed(unread)}."] = None
    if spec is not None and not spec.image and len(names) < spec.observation_size:
        share = f"{len(names)} of {spec.observation_size}"
        fitted.said[f"{share} entries of {spec.name} are there: {listed(names)}."] = None
    obs = {}
    for label, entry in chosen:
        scale = select.factor(label, entry, where)
        if scale != 1:
            fitted.said[f"{label!r} was converted to {entry!r}."] = None
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


# ------------------------------------------------------------------------- rows and times


def _paired(recording: Recording, where: str, fitted: _Fitted) -> Recording:
    """With one row more than actions and rewards."""
    rows = recording.rows
    counts = {key: len(column) for key, column in recording.actions.items()}
    if recording.rewards is not None:
        counts["rewards"] = len(recording.rewards)
    wrong = {key: count for key, count in counts.items() if count not in (rows, rows - 1)}
    if wrong and rows:
        key, count = next(iter(wrong.items()))
        raise UsageError(
            f"{where}: {key} has {count} rows and the observations have {rows}, where as "
            "many or one less are wanted: record the episode again, or leave it out with "
            "drop_invalid=True (--drop_invalid)."
        )
    if rows == 0 or rows not in counts.values():
        return recording
    fitted.counts[
        "last actions and rewards left out, because what they led to is not in the source: "
        "{}."
    ] += 1
    if recording.terminal:
        fitted.counts["ends for good that count as by time, for the same reason: {}."] += 1
    cut = slice(0, rows - 1)
    return dataclasses.replace(
        recording,
        actions={key: column[cut] for key, column in recording.actions.items()},
        rewards=None if recording.rewards is None else recording.rewards[cut],
        terminal=False,
    )


def _refuse_not_finite(recording: Recording, where: str) -> None:
    for part in (recording.obs, recording.actions):
        for key, column in part.items():
            if column.dtype.kind != "f" or np.isfinite(column).all():
                continue
            row = int(np.argmin(np.isfinite(column).reshape(len(column), -1).all(1)))
            raise UsageError(
                f"{where}, row {row}: {key or 'a number'} is {column[row]}, which is not "
                "finite: mend it in the source, or leave the episode out with "
                "drop_invalid=True (--drop_invalid)."
            )


def _timed(
    recording: Recording, spec: EnvSpec | None, where: str, fitted: _Fitted
) -> Recording:
    """A recording with a row every control step."""
    times = recording.times
    if times is None:
        return recording
    usual = float(np.median(np.diff(times)))
    period = spec.control_period if spec else fitted.period or usual
    fitted.period = period
    if timing.fits(times, period):
        return recording
    if spec is None:
        raise UsageError(
            f"{where} has rows at times that are not {period:.4g} s apart: name the "
            "environment, env=, whose control period they are resampled to."
        )
    if spec.discrete and recording.actions:
        raise UsageError(
            f"{where} has rows every {usual:.4g} s, {spec.name} acts every "
            f"{period:g} s, and choices have no mean: record choices at the control "
            "period, or convert the observations alone."
        )
    if times[-1] - times[0] < period * 0.99:
        return dataclasses.replace(
            recording, obs={key: column[:1] for key, column in recording.obs.items()}
        )
    found = timing.resampled(recording, period)
    fitted.said[
        f"resampled from every {usual:.4g} s to every {period:g} s: observations linearly, "
        "an action as its mean over a step."
    ] = None
    if recording.rewards is not None:
        fitted.said["rewards were left out, because they are of other steps."] = None
    assert found.times is not None
    if times[-1] - found.times[-1] > 0.01 * period:
        fitted.counts["ends of less than a step, left out: {}."] += 1
    return found


# -------------------------------------------------------------------------------- actions


def _actions(
    recording: Recording,
    spec: EnvSpec | None,
    options: Options,
    where: str,
    fitted: _Fitted,
) -> np.ndarray | None:
    """`[L, U]`, within the environment's bounds; None: there are none."""
    if not recording.actions:
        return None
    columns = recording.actions
    labels = list(columns)
    if options.actions:
        labels = [k for name in options.actions for k in select.expand(labels, name, where)]
    if unread := [key for key in columns if key not in labels]:
        fitted.said[f"left unread: {listed(unread)}."] = None
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
    fitted.clipped += int(outside.sum())
    fitted.numbers += outside.size
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


# -------------------------------------------------------------------------------- helpers


def _require_alike(source: Source, episodes: list[Episode]) -> None:
    """Refuses sources of which some episodes alone have actions or rewards."""
    for what in ("actions", "rewards"):
        there = [getattr(episode, what) is not None for episode in episodes]
        if any(there) and not all(there):
            raise UsageError(
                f"{source.path}: episode {there.index(False)} has no {what}, and others "
                "have: write two sources of them."
            )
    sizes = [e.actions.shape[1] for e in episodes if e.actions is not None]
    if len(set(sizes)) > 1:
        n = next(n for n, size in enumerate(sizes) if size != sizes[0])
        raise UsageError(
            f"{source.path}: episode {n} has {sizes[n]} action entries and the first has "
            f"{sizes[0]}: write two sources of them."
        )


def _every(episodes: list[Episode], every: int) -> list[Episode]:
    """Every how manieth pair of each episode, as an episode of a single step.

    The first pair of episode n of N is its pair number n · every / N, so that not all
    begin alike.
    """
    found = []
    for n, episode in enumerate(episodes):
        offset = n * every // len(episodes)
        for step in range(offset % max(episode.length, 1), episode.length, every):
            actions = episode.actions
            found.append(
                Episode(
                    obs=episode.obs[step : step + 2],
                    actions=None if actions is None else actions[step : step + 1],
                    terminal=episode.terminal and step + 1 == episode.length,
                )
            )
    return found


def _single(episode: Episode) -> Episode:
    """With numbers of float32."""

    def cast(array: np.ndarray) -> np.ndarray:
        if array.dtype == np.uint8 and array.ndim == 4:
            return array
        with np.errstate(over="ignore"):  # what overflows becomes inf, and is refused later
            return array.astype(np.float32)

    return dataclasses.replace(
        episode,
        obs=cast(episode.obs),
        actions=None if episode.actions is None else cast(episode.actions),
        rewards=None if episode.rewards is None else cast(episode.rewards),
    )
