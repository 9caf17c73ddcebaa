"""The result of a training: what was learned, beside references from the same starts.

References are the demonstrator, random actions and a converged clone. `results` describes
the file that it is written to.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from planil_jax import config, envs, runs
from planil_jax.base import UsageError
from planil_jax.data import expert_file
from planil_jax.evaluation import (
    evaluate,
    expert_policies,
    member_episodes,
    results,
    saved_experts,
)
from planil_jax.evaluation.expert_policies import ExpertPolicy
from planil_jax.training import run, rundir

NO_ACTIONS = "the demonstrations hold no actions"
NO_DEMONSTRATIONS = "the method learns without demonstrations"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning:
    """What was tuned before a result."""

    trials: config.Natural | None = None  # trials of each method; 0: nothing was tuned
    settings: str | None = None  # what was tried, and the rule of the choice
    on: str | None = None  # seeds, starts and demonstrations tuned on


def references(
    environment: str,
    episodes: int,
    demonstrator: runs.Run | None = None,
    bc: runs.Run | None = None,
    scripted: bool = True,
) -> dict[str, Any]:
    """The demonstrator, random actions and BC, from the starts of an evaluation.

    Args:
      demonstrator: a run whose first seed demonstrated; None: the scripted expert.
      bc: a run of behavioural cloning.
      scripted: whether the scripted expert is evaluated, where no run demonstrated.

    Returns:
      `{policy, returns}` by name; None where there is no such policy.

    Raises:
      UsageError: a run cannot act in the environment, or `bc` is of another method.
    """
    if bc is not None and bc.experiment.method != "bc":
        raise UsageError(
            f"{bc.directory} (--bc) is a run of {bc.experiment.method}: name one of bc."
        )
    random = {"policy": "uniform actions", "returns": _of_random(environment, episodes)}
    found: dict[str, Any] = {"demonstrator": None, "random": random, "bc": None}
    if demonstrator is not None:
        expert = expert_policies.from_run(demonstrator, environment)
        acted = _returns(expert, episodes)
        found["demonstrator"] = _of_run(demonstrator, expert.name, acted)
    elif scripted:
        acted = evaluate.returns_of_expert(environment, episodes)
        found["demonstrator"] = {"policy": "scripted expert", "returns": acted}
    if bc is not None:
        same = bc.experiment.environment == environment
        bc = bc if same else evaluate.in_env(bc, environment)
        acted = member_episodes.rollout(bc, bc.env, _keys(episodes)).returns
        found["bc"] = _of_run(bc, f"bc after {bc.step} steps", acted)
    return results.plain(found)


def load_demonstrator(path: str | Path, trust_imports: bool = False) -> runs.Run:
    """The demonstrator of a run's directory, or of an expert's file, .npz.

    Raises:
      UsageError: as `runs.load` and `saved_experts.load` do.
    """
    if str(path).endswith(".npz"):
        return saved_experts.load(path)
    return runs.load(path, trust_imports=trust_imports)


def by_script(demonstrations: Mapping[str, Any] | None) -> bool:
    """Whether the scripted expert demonstrated, by the card of the demonstrations."""
    return demonstrations is not None and "scripted" in demonstrations["expert"]


def entry(
    task: str,
    method: str,
    result: Mapping[str, Any],
    references: Mapping[str, Any],
    tuning: Tuning,
    absent: Mapping[str, str],
) -> dict[str, Any]:
    """One of the `runs` of a file of results.

    Args:
      result: what `runs.provenance` says of the run, and its "evaluation".
      references: as `references` returns them.
      absent: why a value is not there, by the names of `results.NULLABLE`.
    """
    settings, evaluation = result["config"], dict(result["evaluation"])
    inside = dict(evaluation.pop("in_distribution"))
    returns = inside.pop("episode_returns")
    inside.pop("returns")  # their means
    demonstrations = result["demonstrations"] and dict(result["demonstrations"])
    if demonstrations and "mean_return" in absent:
        demonstrations["why"] = {"mean_return": absent["mean_return"]}
    bc = references["bc"]
    if settings["method"] == "bc":
        bc = {"policy": method, "returns": returns}
    if demonstrations is None:
        of_demonstrations = ("demonstrations", "demonstrator", "bc")
        nothing = dict.fromkeys(of_demonstrations, NO_DEMONSTRATIONS)
        absent = nothing | dict(absent)
    others = {
        "demonstrations": demonstrations,
        "demonstrator": references["demonstrator"],
        "random": references["random"],
        "bc": bc,
    }
    missing = [name for name, value in others.items() if value is None]
    return {
        "task": task,
        "method": method,
        "commit": result["versions"]["commit"],
        "seconds": {"wall": result["seconds"], "processor": result["processor_seconds"]},
        "configuration": settings,
        "versions": result["versions"],
        "seeds": [settings["seed"] + n for n in range(settings["seeds"])],
        "tuning": said(tuning),
        "curves": result["curves"],
        "evaluation": {
            "environment": evaluation["environment"],
            "step": evaluation["step"],
            "returns": returns,
            **inside,
            **evaluation,
        },
        **others,
        "why": {name: absent[name] for name in missing if name in absent},
    }


def said(tuning: Tuning) -> dict[str, Any]:
    """What was tuned, for a file of results; nothing, where there were no trials."""
    values = dataclasses.asdict(tuning)
    if tuning.trials == 0:
        values = {name: value or "nothing" for name, value in values.items()}
        values["trials"] = 0
    return values


def of_run(
    trained: runs.Run,
    found: Mapping[str, Any],
    command: str,
    others: Mapping[str, Any],
    tuning: Tuning,
    absent: Mapping[str, str],
) -> dict[str, Any]:
    """The content of a file of results of one run, a sweep's as a campaign.

    Args:
      found: its evaluation.
      command: that makes the file.
      others: as `references` returns them.
    """
    settings = trained.experiment
    result = {"evaluation": found} | runs.provenance(trained)
    asked = {"run": str(trained.directory), "override": trained.override}
    asked["episodes"] = found["in_distribution"]["episodes"]
    if len(found["members"]) > settings.seeds:
        return _of_sweep(result, command, asked)
    if trained.demos.actions is None:
        absent = {"bc": NO_ACTIONS} | dict(absent)
    row = entry(settings.environment, settings.method, result, others, tuning, absent)
    return results.new("learning", command, asked, runs=[row], **_note(result))


def _of_sweep(
    result: Mapping[str, Any], command: str, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """Members of a sweep as the cases of a campaign: settings that were tried."""
    evaluation = result["evaluation"]
    returns = evaluation["in_distribution"]["episode_returns"]
    commit = result["versions"]["commit"]
    return results.new(
        "campaign",
        command,
        dict(asked) | {"experiment": result["config"]},
        cases=[{"name": label, "commit": commit} for label in evaluation["members"]],
        outcomes=[{"returns": row, "return": float(np.mean(row))} for row in returns],
        **_note(result),
    )


def _note(result: Mapping[str, Any]) -> dict[str, str]:
    """Which members stopped, of which old parameters were evaluated."""
    stopped = result["evaluation"].get("stopped", [])
    return {"note": " ".join(stopped)} if stopped else {}


# -------------------------------------------------------------------------------- helpers


def _keys(episodes: int) -> jax.Array:
    """The keys of an evaluation, hence its starts."""
    return jax.random.split(jax.random.key(run.EVALUATION_SEED), episodes)


def _returns(policy: ExpertPolicy, episodes: int) -> np.ndarray:
    """Returns `[B]` from the starts of an evaluation."""
    steps, alive = expert_policies.rollout(policy, _keys(episodes))
    return np.sum(steps.reward * alive, axis=1)


@functools.cache
def _of_random(environment: str, episodes: int) -> tuple[float, ...]:
    env = envs.make(environment)
    random = ExpertPolicy(env, expert_policies.make_random(env), (), "random")
    return tuple(_returns(random, episodes).tolist())


def _of_run(trained: runs.Run, name: str, returns: np.ndarray) -> dict[str, Any]:
    if trained.directory.suffix == ".npz":  # the file of a saved expert
        commit = expert_file.read(trained.directory)[2].commit
    else:
        commit = rundir.saved_versions(trained.directory)["commit"]
    return {"policy": name, "commit": commit, "returns": returns}
