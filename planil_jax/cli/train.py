"""Trains an imitator from demonstrations.

    python -m experiments.train --config=experiments/configs/navigation.py:mpail \\
        --demos=demos/navigation.npz --seeds=3 --logdir=runs/nav
    python -m experiments.train --logdir=runs/nav --seeds=3 --resume
    python -m experiments.train --config=experiments/configs/navigation.py:gaifo \\
        --demos=demos/navigation.npz --logdir=runs/rates --sweep=agent.learning_rate=1e-4,1e-3
"""

import dataclasses
import shutil
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from planil_jax import config, envs, experiment, runs, sweep
from planil_jax.base import Agent, UsageError
from planil_jax.data import demos
from planil_jax.training import report, run, rundir

FLAGS = flags.FLAGS

_FREE = ("run.total_steps", "run.keep_last", "run.keep_best")  # may change on --resume


def define_flags() -> None:
    """Not on import: other binaries import this one."""
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_string("demos", None, "Demonstrations, .npz; a resumed run has them.")
    flags.DEFINE_string("logdir", None, "Directory of the run.", required=True)
    flags.DEFINE_integer("seed", 0, "The first seed.", lower_bound=0)
    flags.DEFINE_integer("seeds", 1, "Seeds, trained side by side.", lower_bound=1)
    flags.DEFINE_multi_string(
        "sweep", [], "Numbers to try side by side: agent.learning_rate=1e-4,1e-3."
    )
    flags.DEFINE_bool("resume", False, "Continue the run in --logdir.")


def main() -> None:
    settings = dataclasses.replace(
        experiment.from_config_dict(FLAGS.config),
        seed=FLAGS.seed,
        seeds=FLAGS.seeds,
        sweep=tuple(FLAGS.sweep),
    )
    train(settings, FLAGS.demos, FLAGS.logdir, FLAGS.resume)


def train(
    settings: experiment.Experiment, demos_path: str | None, logdir: str, resume: bool
) -> None:
    """Trains to the end, or from where the run in `logdir` was left."""
    env = envs.make(settings.environment)
    kept = Path(logdir) / runs.DEMONSTRATIONS
    source = kept if demos_path is None else Path(demos_path)
    if experiment.needs(settings).demonstrations:
        if demos_path is None and not kept.exists():
            raise UsageError(
                "--demos is missing: give a file of demonstrations; "
                "python -m experiments.collect makes one."
            )
        demonstrations = demos.load(source, env.spec, settings.episodes)
        settings = dataclasses.replace(settings, demonstrations=runs.digest(source))
    else:
        demonstrations = demos.none(env.spec)
    swept = sweep.settings(settings)

    def make_agent(own: run.Settings) -> Agent:
        member = sweep.apply_overrides(settings, own)
        return experiment.make_agent(member, env, demonstrations)

    agent = make_agent if swept else make_agent({})
    notices = rundir.open_run(logdir, config.to_json(settings), resume, _FREE)
    if source != kept and experiment.needs(settings).demonstrations:
        shutil.copyfile(source, kept)
    with report.Report(logdir, settings.seed) as told:
        for notice in notices + experiment.config_warnings(settings, env):
            told.say(notice)
        for _ in run.train(
            agent,
            env,
            settings.loop,
            settings.run,
            demonstrations,
            (settings.seed, settings.seeds),
            Path(logdir) / rundir.CHECKPOINTS,
            told,
            swept,
        ):
            pass
