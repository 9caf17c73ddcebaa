"""A run directory read back: what it trained, on what, and the parameters that act."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import jax

from experiments import experiment
from planil_jax import config, envs
from planil_jax.base import Agent, Demonstrations, Environment, Params, UsageError
from planil_jax.data import demos
from planil_jax.training import checkpoint, rundir, seeds

DEMONSTRATIONS = "demonstrations.npz"


class Run(NamedTuple):
    """One run, ready to act."""

    directory: Path
    experiment: experiment.Experiment
    env: Environment
    agent: Agent
    demos: Demonstrations
    params: Params  # [S] acting parameters
    step: int  # environment steps of each seed when they were saved


def load(directory: str | Path, which: str = "last") -> Run:
    """Reads a run.

    Args:
      which: "last", "best" or the step of a checkpoint.

    Raises:
      UsageError: there is no run in the directory, or no such checkpoint.
    """
    directory = Path(directory)
    settings = load_experiment(directory)
    env = envs.make(settings.environment)
    demonstrations = demos.load(directory / DEMONSTRATIONS, env.spec)
    agent = experiment.make_agent(settings, env, demonstrations)
    keys = seeds.keys(settings.seed, settings.seeds)
    template = jax.eval_shape(jax.vmap(lambda key: agent.init(key).params), keys)
    restored = checkpoint.restore_params(
        directory / rundir.CHECKPOINTS, template, int(which) if which.isdigit() else which
    )
    return Run(
        directory, settings, env, agent, demonstrations, restored.state, restored.step
    )


def load_experiment(directory: str | Path) -> experiment.Experiment:
    """The configuration of a run.

    Raises:
      UsageError: there is no run in the directory.
    """
    path = Path(directory) / "config.json"
    if not path.exists():
        raise UsageError(
            f"{directory} holds no run (no config.json); give the --logdir of a training."
        )
    return config.from_json(path.read_text(), experiment.Experiment())


def digest(path: str | Path) -> str:
    """A short fingerprint of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def over_seeds(function, params: Params):
    """`function(params)` of each seed in turn, compiled once; results `[S, …]`."""
    return jax.device_get(jax.jit(seeds.over(function, "map", None))(params))
