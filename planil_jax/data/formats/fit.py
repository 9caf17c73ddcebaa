"""From the episodes of a source to demonstrations of an environment.

Of each episode: its columns are named by the environment's entries, gaps and time stamps
are seen to, actions are held against their bounds, and all becomes float32. Whatever is
changed or left out is said.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from planil_jax.base import EnvSpec, UsageError, printable
from planil_jax.data import demo_file
from planil_jax.data.demo_file import Card, Episode
from planil_jax.data.formats import entries, timing
from planil_jax.data.formats.ledger import Ledger
from planil_jax.data.formats.recording import Options, Recording, Source, listed

_NOTE = 900  # characters of the note in a card


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
    fit = _Fit(source, spec, options)
    episodes = fit.first(count)
    pictures = episodes[0].obs.ndim == 4
    if not pictures:
        obs = [episode.obs for episode in episodes]
        demo_file.refuse_rounding(obs, f"{source.path}: obs", fit.names)
    received = [episode.rewards for episode in episodes if episode.rewards is not None]
    returns = tuple(map(demo_file.episode_return, received))
    if options.every > 1:
        episodes = _every(episodes, options.every, returns, fit.ledger)
    notes = fit.ledger.notes()
    said = " ".join([f"Read from {source.kind}.", *notes])
    unnamed = spec is None and source.ordered and not options.names
    card = Card(
        environment=spec.name if spec else "",
        control_period=spec.control_period if spec else fit.period,
        observation_names=() if unnamed else fit.names,
        image=episodes[0].obs.shape[1:] if pictures else (),
        action_low=spec.action_low if spec else (),
        action_high=spec.action_high if spec else (),
        expert=f"of {printable(source.path.rstrip('/').rpartition('/')[2])}",
        returns=returns if options.every == 1 else (),
        note=said if len(said) <= _NOTE else f"{said[:_NOTE]}…",
    )
    episodes = [_single(episode) for episode in episodes]
    if spec is not None:  # what float32 cannot hold is refused by the source's name
        demo_file.check(source.path, episodes, card)
    return episodes, card, notes


class _Fit:
    """Episodes of a source as they become demonstrations."""

    def __init__(self, source: Source, spec: EnvSpec | None, options: Options) -> None:
        self.source, self.spec, self.options = source, spec, options
        self.ledger = Ledger(tuple(source.notes))
        self.names: tuple[str, ...] = ()  # [O], of the first episode that fits
        self.period = 0.0  # seconds between rows; 0: unknown

    def first(self, count: int | None) -> list[Episode]:
        """The first `count` episodes that fit, or all."""
        source = self.source
        episodes: list[Episode] = []
        for n in range(source.count):
            if count is not None and len(episodes) >= count:
                break
            episodes += self._of_recording(n)
        if not episodes or count is not None and len(episodes) < count:
            reason = f" {self.ledger.left_out[0]}" if self.ledger.left_out else ""
            wanted = f"{len(episodes)} episodes, not {count}" if count else "no episodes"
            raise UsageError(f"{source.path} has {wanted}.{reason}")
        episodes = episodes[:count]
        _require_alike(source, episodes)
        return episodes

    def _of_recording(self, n: int) -> Iterator[Episode]:
        """One episode, or one for each part between gaps."""
        source, options = self.source, self.options
        found: list[Recording] = []
        try:
            recording = source.load(n)
            where = f"{source.path}: {recording.name}"
            args = self.spec, options, where, self.ledger
            recording = entries.named(recording, source.ordered, *args)
            recording = timing.stamped(recording, options)
            timing.check(recording, where)
            period = self.spec.control_period if self.spec else None
            found = list(timing.parts(recording, period, options, where))
        except UsageError as error:
            self._leave_out(error)
        for part in found:
            try:
                yield from self._of_part(part)
            except UsageError as error:
                self._leave_out(error)

    def _leave_out(self, error: UsageError) -> None:
        if not self.options.drop_invalid:
            raise error
        self.ledger.left_out.append(str(error))

    def _of_part(self, recording: Recording) -> Iterator[Episode]:
        where = f"{self.source.path}: {recording.name}"
        recording = _paired(recording, where, self.ledger)
        if recording.rows >= 2:
            _refuse_not_finite(recording, where)
            recording = self._timed(recording, where)
        if recording.rows < 2:
            if self.options.skip_empty:
                self.ledger.count("episodes without transitions, left out: {}.")
                return
            raise UsageError(
                f"{where} has no transitions: leave such episodes out with "
                "skip_empty=True (--skip_empty)."
            )
        names = tuple(filter(None, recording.obs))
        if self.names not in ((), names):
            raise UsageError(
                f"{where} has the entries {listed(names)}, where others have "
                f"{listed(self.names)}: leave it out with drop_invalid=True "
                "(--drop_invalid)."
            )
        columns = list(recording.obs.values())
        args = self.spec, self.options, where, self.ledger
        episode = Episode(
            obs=columns[0] if columns[0].ndim == 4 else np.stack(columns, 1),
            actions=entries.actions(recording, *args),
            rewards=recording.rewards,
            terminal=recording.terminal,
        )
        self.names = names
        yield episode

    def _timed(self, recording: Recording, where: str) -> Recording:
        """A recording with a row every control step."""
        times = recording.times
        if times is None:
            return recording
        usual = float(np.median(np.diff(times)))
        period = self.spec.control_period if self.spec else self.period or usual
        self.period = period
        if timing.fits(times, period):
            return recording
        if self.spec is None:
            raise UsageError(
                f"{where} has rows at times that are not {period:.4g} s apart: name the "
                "environment, env=, whose control period they are resampled to."
            )
        if self.spec.discrete and recording.actions:
            raise UsageError(
                f"{where} has rows every {usual:.4g} s, {self.spec.name} acts every "
                f"{period:g} s, and choices have no mean: record choices at the control "
                "period, or convert the observations alone."
            )
        if times[-1] - times[0] < period * 0.99:
            return dataclasses.replace(
                recording, obs={key: column[:1] for key, column in recording.obs.items()}
            )
        found = timing.resampled(recording, period)
        self.ledger.say(
            f"resampled from every {usual:.4g} s to every {period:g} s: observations "
            "linearly, an action as its mean over a step."
        )
        if recording.rewards is not None:
            self.ledger.say("rewards were left out, because they are of other steps.")
        assert found.times is not None
        if times[-1] - found.times[-1] > 0.01 * period:
            self.ledger.count("ends of less than a step, left out: {}.")
        return found


# ------------------------------------------------------------------------- rows and times


def _paired(recording: Recording, where: str, ledger: Ledger) -> Recording:
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
    ledger.count(
        "last actions and rewards left out, because what they led to is not in the source: "
        "{}."
    )
    if recording.terminal:
        ledger.count("ends for good that count as by time, for the same reason: {}.")
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


def _every(
    episodes: list[Episode],
    every: int,
    returns: tuple[float | None, ...],
    ledger: Ledger,
) -> list[Episode]:
    """Every how manieth pair of each episode, as an episode of a single step.

    The first pair of episode n of N is its pair number n · every / N, so that not all
    begin alike.
    """
    known = [value for value in returns if value is not None]
    mean = f", whose mean return is {np.mean(known):.4g}" if known else ""
    ledger.say(
        f"one of every {every} pairs was kept of {len(episodes)} episodes{mean}; each is "
        "an episode of one step, and returns are unknown."
    )
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
