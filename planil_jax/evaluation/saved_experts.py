"""Trained experts as small files: written of a run, and built again through the registry.

Demonstrations can be made again from such a file at any time: `planil collect
--expert=FILE`. To read one runs no code of others: a method of a module of one's own is
refused. The format is that of `data/expert_file.py`.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax import envs, experiment, registry, runs, sweep
from planil_jax.base import Agent, Environment, Params, UsageError
from planil_jax.data import demos, expert_file
from planil_jax.evaluation import expert_policies
from planil_jax.training import files, run, rundir

EPISODES = 64  # of the returns in the card


def save(trained: runs.Run, path: str | Path, member: int = 0, command: str = "") -> None:
    """Writes a member of a run as an expert's file.

    Args:
      trained: of a method that learns from the task's reward.
      path: the file, .npz; it is whole or not there.
      member: index of the member.
      command: for the card.

    Raises:
      UsageError: the path is no .npz or cannot be written, there is no such member,
        the method imitates, or a file could not name the method or the environment.
    """
    files.require_writable(path, "--weights")
    settings = trained.experiment
    count = len(sweep.labels(settings))
    if not 0 <= member < count:
        raise UsageError(f"the run has members 0 to {count - 1}, no {member}.")
    if settings.environment.startswith(envs.OBJECT):
        raise UsageError(
            f"the environment of {trained.directory} was an object, and a file can only "
            "name one: register it by register_env, and train there."
        )
    grid = sweep.settings(settings)
    values = {name: float(grid[name][member // settings.seeds]) for name in grid}
    settings = sweep.apply_overrides(settings, values)
    plain = json.loads(experiment.to_json(settings))
    _require_expert(plain)
    spec, agent = trained.env.spec, trained.make_agent(trained.env, values)
    params = jax.tree.map(lambda leaf: leaf[member], trained.params)
    expert = expert_policies.ExpertPolicy(trained.env, agent, params, "")
    keys = jax.random.split(jax.random.key(run.EVALUATION_SEED), EPISODES)
    card = expert_file.Card(
        observation_names=spec.observation_names,
        action_low=spec.action_low,
        action_high=spec.action_high,
        control_period=spec.control_period,
        seed=settings.seed + member % settings.seeds,
        step=trained.step,
        returns=tuple(float(value) for value in expert_policies.returns(expert, keys)),
        starts=f"jax.random.split(jax.random.key({run.EVALUATION_SEED}), {EPISODES})",
        command=command,
        commit=rundir.saved_versions(trained.directory)["commit"],
    )
    weights = {name: np.asarray(leaf) for name, leaf in _named(params).items()}
    kept = {name: plain[name] for name in ("version", *expert_file.SETTINGS)}
    expert_file.save(path, expert_file.Expert(weights, kept, card))


def load(path: str | Path) -> runs.Run:
    """The expert of a file, as a run of one member that has no directory.

    Raises:
      UsageError: it is no sound file of an expert, its environment is not the one where it
        was trained, or its weights do not fit its method.
    """
    weights, settings, card = expert_file.read(path)
    try:
        _require_expert(settings)
        chosen = experiment.from_config_dict(settings)
        env = registry.make_env(chosen.environment)
        _require_same_task(card, env)
        agent = experiment.make_agent(chosen, env, demos.none(env.spec))
        template = jax.eval_shape(agent.init, jax.random.key(0)).params
        params = _fitted(weights, template)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None

    def make_agent(env: Environment, values: run.Settings) -> Agent:
        return experiment.make_agent(chosen, env, demos.none(env.spec))

    return runs.Run(
        directory=Path(path),
        experiment=dataclasses.replace(chosen, seed=card.seed),
        env=env,
        make_agent=make_agent,
        demos=demos.none(env.spec),
        params=jax.tree.map(lambda leaf: leaf[None], params),
        settings={},
        step=card.step,
    )


# -------------------------------------------------------------------------------- helpers


def _require_expert(settings: Mapping[str, Any]) -> None:
    """Refuses a method that is no expert, or that only a module of one's own knows."""
    modules = experiment.modules(settings)
    if modules:
        raise UsageError(
            f"the method is of the module {modules[0]!r}, which an expert's file never "
            "imports, because that runs code: collect from the run itself, --run."
        )
    method = registry.method(settings["method"])
    if method.needs(method.config).demonstrations:
        raise UsageError(
            f"{method.name} imitates, and an expert's file holds what learned from the "
            f"task's reward, one of {experiment.engines()}."
        )


def _require_same_task(card: expert_file.Card, env: Environment) -> None:
    """Refuses an environment that is not as it was where the expert was trained."""
    for what in ("observation_names", "action_low", "action_high", "control_period"):
        there, here = getattr(card, what), getattr(env.spec, what)
        if there != here:
            raise UsageError(
                f"the expert was trained in {env.spec.name} with the "
                f"{what.replace('_', ' ')} {there}, and here they are {here}: train it "
                "again."
            )


def _fitted(weights: Mapping[str, np.ndarray], template: Params) -> Params:
    """The parameters of the agent that the settings make."""
    wanted = _named(template)
    for name in {**wanted, **weights}:
        there, here = (
            expert_file.form(leaves[name]) if name in leaves else "absent"
            for leaves in (weights, wanted)
        )
        if there != here:
            raise UsageError(
                f"{name} is {there} in the file, and {here} in an agent of its settings: "
                f"{expert_file.MEND}."
            )
    leaves = [jnp.asarray(weights[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by name, "weights.params.Dense_0.kernel"."""
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        found[".".join(filter(None, (expert_file.WEIGHTS, name)))] = leaf
    return found
