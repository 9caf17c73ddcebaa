"""Changed files, each read as a user would read it: every end is right, or one sentence.

    python -m benchmarks.mutations --count=3000 --out=results/benchmarks/mutations.json

A case takes a sound file (demonstrations, a source of `planil convert`, the configuration
of a run, an expert or a checkpoint's manifest), changes one thing in it, and reads it. The
number of a case and the seed decide the change, so that any case can be repeated, with
--first. A refusal must name the file. `mutations_changes` has the changes.
"""

import contextlib
import dataclasses
import hashlib
import resource
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import timing
from benchmarks.mutations_changes import ANY, NEVER, Base, of_kind, pick
from planil_jax import config, envs, experiment, runs
from planil_jax.base import EnvState, TrainState, UserError
from planil_jax.cli import app
from planil_jax.data import demos, expert_file, formats
from planil_jax.data.dataset import Demos
from planil_jax.evaluation import collect, results
from planil_jax.training import checkpoint

EQUAL = "accepted, equal"
OTHER = "accepted, as the file says"
REFUSED = "refused in a sentence"
SILENT = "accepted, silently wrong"
UNEXPECTED = "unexpected"
VERDICTS = (EQUAL, OTHER, REFUSED, SILENT, UNEXPECTED)

SECONDS = 5.0  # that reading may take
MEMORY = 1_000_000_000  # further bytes that reading may take
_LONGEST = 2000  # characters of a sentence

FLAGS = flags.FLAGS


class Case(NamedTuple):
    """One changed file."""

    number: int
    kind: str  # such as "demonstrations"
    change: str  # such as "array: strings"


class Outcome(NamedTuple):
    """What became of it."""

    verdict: str  # one of VERDICTS
    said: str  # the sentence, or what is wrong
    seconds: float


def run(count: int, seed: int, first: int = 0) -> tuple[list[Case], list[Outcome]]:
    """Changes and reads `count` files.

    Args:
      seed: of all cases.
      first: the number of the first case.
    """
    cases, outcomes = [], []
    with tempfile.TemporaryDirectory() as directory:
        bases = [list(make(Path(directory))) for make in KINDS]
        sound = {base.path: _read(base)[0] for of_one in bases for base in of_one}
        for number in range(first, first + count):
            turn, at = divmod(number, len(bases))
            rng = np.random.default_rng([seed, number])
            base = pick(rng, bases[at])
            changes = of_kind(base.kind)
            round_, place = divmod(turn, len(changes))  # a round has each change once
            order = np.random.default_rng([seed, at, round_]).permutation(len(changes))
            name = list(changes)[order[place]]
            content, allowed = changes[name](rng, base)
            cases.append(Case(number, base.kind, name))
            outcomes.append(_outcome(base, content, allowed, sound[base.path]))
    return cases, outcomes


def table(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """How many cases of each kind had each verdict."""
    counts = {case.kind: dict.fromkeys(VERDICTS, 0) for case in cases}
    for case, outcome in zip(cases, outcomes, strict=True):
        counts[case.kind][outcome.verdict] += 1
    return counts


def faults(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each case that ended neither right nor in a sentence."""
    return [
        f"{case.number} {case.kind}, {case.change}: {outcome.verdict}: "
        f"{outcome.said[:160]!r}"
        for case, outcome in zip(cases, outcomes, strict=True)
        if outcome.verdict in (SILENT, UNEXPECTED)
    ]


def content(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """A file of results: how many cases of each kind had each verdict."""
    counts = table(cases, outcomes)
    return results.new(
        "campaign",
        shlex.join(["python", "-m", "benchmarks.mutations", *sys.argv[1:]]),
        {"count": FLAGS.count, "seed": FLAGS.seed, "first": FLAGS.first},
        cases=[{"name": kind} for kind in counts],
        outcomes=[{"cases": sum(each.values())} | each for each in counts.values()],
        extra={"otherwise": faults(cases, outcomes)},
    )


def define_flags() -> None:
    """Not on import: other benchmarks have flags of the same names."""
    flags.DEFINE_integer("count", 3000, "How many files.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the changes.", lower_bound=0)
    flags.DEFINE_integer("first", 0, "Number of the first case.", lower_bound=0)
    flags.DEFINE_string("out", None, "File of results to write, .json.")


def main() -> None:
    timing.writable(FLAGS.out)
    began = time.monotonic()
    cases, outcomes = run(FLAGS.count, FLAGS.seed, FLAGS.first)
    for line in faults(cases, outcomes):
        print(line)
    for kind, counts in table(cases, outcomes).items():
        ends = (f"{many} {verdict}" for verdict, many in counts.items() if many)
        print(f"{kind}: {'; '.join(ends)}")
    print(f"{len(cases)} changed files in {time.monotonic() - began:.0f} s")
    if FLAGS.out:
        print(results.write(FLAGS.out, content(cases, outcomes)))


# -------------------------------------------------------------------------------- reading


def _outcome(base: Base, changed: bytes, allowed: str, sound: str) -> Outcome:
    """Reads a changed file, and says what became of it."""
    base.path.write_bytes(changed)
    began = time.monotonic()
    try:
        with _little_memory(), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            found, shown = _read(base)
    except UserError as error:
        said = str(error)
        problem = _unfit(said) or ("" if str(base.named) in said else "no name of the file")
        verdict = UNEXPECTED if problem else REFUSED
        said = f"{problem}: {said}" if problem else said
    except Exception as error:  # whatever it is, it is reported
        verdict, said = UNEXPECTED, f"{type(error).__name__}: {error}"[:300]
    else:
        verdict, said = EQUAL, ""
        if warned:
            verdict, said = UNEXPECTED, f"warned: {warned[0].message}"
        elif problem := next(filter(None, map(_unfit, shown.splitlines())), ""):
            verdict, said = UNEXPECTED, f"shows {problem}"
        elif allowed == NEVER:
            verdict, said = SILENT, "was accepted"
        elif found != sound:
            verdict, said = (OTHER if allowed == ANY else SILENT), "reads otherwise"
    finally:
        base.path.write_bytes(base.content)
    seconds = time.monotonic() - began
    if seconds > SECONDS:
        verdict, said = UNEXPECTED, f"took {seconds:.1f} s: {said}"
    return Outcome(verdict, said, seconds)


def _read(base: Base) -> tuple[str, str]:
    """A fingerprint of what a file holds, and what is shown of it."""
    return hashlib.sha256(repr(_plain(base.read())).encode()).hexdigest(), base.show()


def _unfit(sentence: str) -> str:
    """What is wrong with a sentence; "": nothing."""
    if not sentence.isprintable():
        return "control characters"
    if len(sentence) > _LONGEST:
        return f"{len(sentence)} characters"
    return "an invitation to unpickle" if "allow_pickle" in sentence else ""


def _plain(value: Any) -> Any:
    """A value as something whose `repr` is the value, arrays and all."""
    if isinstance(value, np.ndarray | jax.Array):
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        return str(value.dtype), value.shape, np.asarray(value).tobytes()
    if isinstance(value, demos.Episode | demos.Card | demos.Demonstrations | Demos):
        value = vars(value)
    if isinstance(value, dict):
        return {name: _plain(value[name]) for name in sorted(value)}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def _little_memory() -> Iterator[None]:
    """Lets this process take `MEMORY` more, where the system can tell and limit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        yield
        return
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# ---------------------------------------------------------------------------- sound files


def _base(
    kind: str,
    path: Path,
    read: Callable[[], Any],
    show: Callable[[], str] = str,
    named: Path | None = None,
) -> Base:
    return Base(kind, path, path.read_bytes(), read, show, named or path)


def _demonstrations(directory: Path) -> Iterator[Base]:
    spec = envs.make("point_mass").spec
    rng = np.random.default_rng(0)
    card = demos.Card(
        environment="point_mass",
        control_period=spec.control_period,
        observation_names=spec.observation_names,
        action_low=spec.action_low,
        action_high=spec.action_high,
        expert="by hand",
    )
    whole = [
        demos.Episode(
            obs=rng.normal(size=(length + 1, spec.observation_size)).astype(np.float32),
            actions=rng.uniform(-0.5, 0.5, (length, spec.action_size)).astype(np.float32),
            rewards=rng.normal(size=length).astype(np.float32),
            terminal=bool(length == 3),
        )
        for length in (3, 5)
    ]
    thin = [dataclasses.replace(episode, actions=None, rewards=None) for episode in whole]
    pictured = [
        dataclasses.replace(
            episode, obs=rng.integers(0, 255, (len(episode.obs), 4, 4, 3), np.uint8)
        )
        for episode in thin
    ]
    arm = demos.Card(environment="arm", control_period=0.1, image=(4, 4, 3))
    sound: list[tuple[str, Any, demos.Card, Callable[[Path], Any]]] = [
        ("actions.npz", whole, card, demos.read),
        ("trained.npz", whole, card, lambda path: demos.load(path, spec)),
        ("thin.npz", thin, card, Demos.load),
        ("pictures.npz", pictured, arm, demos.read),
    ]
    for name, episodes, its_card, read in sound:
        path = directory / name
        demos.save(path, episodes, its_card)
        yield _base(
            "demonstrations", path, partial(read, path), partial(demos.describe, path)
        )


def _sources(directory: Path) -> Iterator[Base]:
    spec = envs.make("point_mass").spec
    rng = np.random.default_rng(1)
    arrays = {
        "obs": rng.normal(size=(10, spec.observation_size)),
        "lengths": np.array([3, 5]),
        "acts": rng.uniform(-0.5, 0.5, (8, spec.action_size)),
        "rews": rng.normal(size=8),
        "terminal": np.array([True, False]),
    }
    out = directory / "converted.npz"
    for name, chosen in (("theirs.npz", list(arrays)), ("bare.npz", ["obs", "lengths"])):
        path = directory / name
        np.savez(path, **{key: arrays[key] for key in chosen})  # type: ignore[arg-type]

        def read(path: Path = path) -> Any:
            formats.convert(str(path), "point_mass", spec, str(out), 2)
            return demos.read(out)

        yield _base("source", path, read, partial(collect.summary, str(out)))


def _configurations(directory: Path) -> Iterator[Base]:
    for method in ("mpail", "bc"):
        path = directory / method / "config.json"
        path.parent.mkdir()
        settings = experiment.for_method(method, environment="point_mass")
        path.write_text(experiment.to_json(settings))

        def read(path: Path = path) -> Any:
            return repr(runs.load_experiment(path.parent))

        yield _base("configuration", path, read)


def _experts(directory: Path) -> Iterator[Base]:
    path = directory / "expert.npz"
    weights = {
        "weights.params.bias": np.arange(3, dtype=np.float32),
        "weights.params.kernel": np.ones((2, 3), np.float32),
        "weights.count": np.array(3, np.int32),
    }
    settings: dict[str, Any] = {"version": config.VERSION, "environment": "pendulum"}
    settings |= {"method": "sac", "model": [], "agent": {}}
    card = expert_file.Card(
        observation_names=("x [m]", "v [m/s]"),
        action_low=(-1.0,),
        action_high=(1.0,),
        control_period=0.1,
        returns=(1.0, 2.0),
    )
    expert_file.save(path, expert_file.Expert(weights, settings, card))

    def read() -> Any:
        weights, settings, card = expert_file.read(path)
        return [weights, settings, vars(card), expert_file.is_one(path)]

    yield _base("expert", path, read, partial(expert_file.describe, path))


def _manifests(directory: Path) -> Iterator[Base]:
    checkpoints = directory / "checkpoints"
    state = TrainState(
        agent={"params": {"weight": jnp.arange(6.0).reshape(1, 6)}},
        env=EnvState(sim=(), obs=jnp.ones((1, 2, 3)), time=jnp.zeros((1, 2), jnp.int32)),
        carry=(),
        key=jax.random.split(jax.random.key(0), 1),
    )
    place = checkpoint.save(checkpoints, state, step=40, round_=2, score=1.5)

    def read() -> Any:
        restored = checkpoint.restore_latest(checkpoints, state)
        if restored is None:
            raise UserError(f"{place} is no checkpoint.")
        return [restored.step, restored.round, jax.tree.leaves(restored.state)]

    yield _base("manifest", place / "checkpoint.json", read, named=place)


KINDS = (_demonstrations, _sources, _configurations, _experts, _manifests)

if __name__ == "__main__":
    define_flags()
    app.run(main)
