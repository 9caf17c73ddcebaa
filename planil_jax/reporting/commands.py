"""The command lines that train a run once more, continue it, and evaluate it.

Each is None for a run whose environment was an object, which no command line can name.
"""

import dataclasses
import json
import shlex

from planil_jax import config, envs, experiment, recipes, runs
from planil_jax.base import UsageError
from planil_jax.compose import compose
from planil_jax.evaluation import out_of_distribution

_AGAIN = "runs/again"  # the directory of the run that is trained again
# Fields that `planil train` has a flag for, or fills in; others are told by --set.
_TOLD = (
    "method",
    "environment",
    "demonstrations",
    "seed",
    "seeds",
    "sweep",
    "run.total_steps",
)


def train(trained: runs.Run) -> str | None:
    """The command that trains this run once more, from its demonstrations.

    It names the recipe that the run is closest to, and sets what differs. Where that cannot
    tell the run, it starts from a copy of its configuration.
    """
    settings = trained.experiment
    if _is_object(settings):
        return None
    needs_demos = experiment.needs(settings).demonstrations
    told = _closest(settings)
    if told is None:
        kept = ["config.json"] + needs_demos * [runs.DEMONSTRATIONS]
        files = " ".join(shlex.quote(str(trained.directory / name)) for name in kept)
        return (
            f"mkdir -p {_AGAIN}\n"
            f"cp {files} {_AGAIN}\n"
            f"planil train --logdir={_AGAIN} --resume{_trust(settings)}"
        )
    demos = shlex.quote(str(trained.directory / runs.DEMONSTRATIONS))
    words = [
        f"planil train --method={told.method} --env={shlex.quote(settings.environment)}",
        *([f"--demos={demos}"] if needs_demos else []),
        f"--seed={settings.seed} --seeds={settings.seeds}"
        f" --total_steps={settings.run.total_steps}",
        f"--logdir={_AGAIN}",
        *(f"--sweep={shlex.quote(line)}" for line in settings.sweep),
        *(f"--set {shlex.quote(text)}" for text in told.changes),
    ]
    return " \\\n    ".join(words)


def resume(trained: runs.Run) -> str | None:
    """The command that continues this run; for twice as long where it came to its end."""
    if _is_object(trained.experiment):
        return None
    total = trained.experiment.run.total_steps
    longer = f" \\\n    --total_steps={2 * total}" if trained.step >= total else ""
    place = shlex.quote(str(trained.directory))
    return f"planil train --logdir={place} --resume{longer}{_trust(trained.experiment)}"


def evaluate(trained: runs.Run) -> str | None:
    """The command that evaluates this run, on a field of starts where there is one."""
    if _is_object(trained.experiment):
        return None
    has_field = out_of_distribution.has_field(trained.experiment.environment)
    field = " --field=40" if has_field else ""
    place = shlex.quote(str(trained.directory))
    return f"planil evaluate --run={place}{field}{_trust(trained.experiment)}"


# --------------------------------------------------------------------------------- helpers


@dataclasses.dataclass(frozen=True)
class _Told:
    method: str  # maybe with a variant
    changes: list[str]  # "agent.planner.horizon=12"


def _closest(settings: experiment.Experiment) -> _Told | None:
    """The recipe, or the defaults, from which the fewest fields differ; None: no such."""
    if experiment.modules(vars(settings)):
        return None
    variants = recipes.methods(settings.environment)
    of_method = [name for name in variants if name.partition("/")[0] == settings.method]
    names = dict.fromkeys([settings.method, *of_method])
    told = [found for name in names if (found := _told(name, settings)) is not None]
    return min(told, key=lambda found: len(found.changes), default=None)


def _told(method: str, settings: experiment.Experiment) -> _Told | None:
    """The run as a change of what `planil train --method=` takes, if that yields it."""
    start = dataclasses.replace(
        compose(method, settings.environment)[0],
        **{name: getattr(settings, name) for name in _TOLD if "." not in name},
    )
    start = config.set_path(start, "run.total_steps", settings.run.total_steps)
    there, here = _leaves(start), _leaves(settings)
    changes = [
        f"{path}={_spelled(value)}"
        for path, value in here.items()
        if path not in there or there[path] != value
    ]
    again = start
    try:
        for text in changes:
            again = experiment.with_value(again, *config.assignment(text))
    except UsageError:
        return None
    return _Told(method, changes) if _leaves(again) == here else None


def _leaves(settings: experiment.Experiment) -> dict[str, object]:
    return dict(config.leaves(json.loads(config.to_json(settings))))


def _spelled(value: object) -> str:
    """A value as `config.assignment` reads it."""
    if isinstance(value, list):
        return repr(tuple(value))
    if isinstance(value, str) and config.assignment(f"value={value}")[1] == value:
        return value
    return repr(value)


def _is_object(settings: experiment.Experiment) -> bool:
    return settings.environment.startswith(envs.OBJECT)


def _trust(settings: experiment.Experiment) -> str:
    """The flag that a run needs whose modules are to be imported."""
    modules = experiment.modules(vars(settings))
    return " --trust_imports" if modules else ""
