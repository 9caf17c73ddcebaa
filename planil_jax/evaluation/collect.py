"""Records demonstrations of an environment's scripted expert, or of a trained run.

Pictures come from the ray caster, as in training, or from MuJoCo's renderer. A file
holds every frame once. An expert that is no better than random actions is refused.
"""

import dataclasses
from importlib import metadata
from typing import TYPE_CHECKING

import jax
import numpy as np

from planil_jax import runs
from planil_jax.agents import scripted
from planil_jax.base import EnvSpec, Transition, UsageError, UserError
from planil_jax.data import demos
from planil_jax.envs import scenes
from planil_jax.evaluation import expert_policies
from planil_jax.evaluation.expert_policies import ExpertPolicy
from planil_jax.training import files
from planil_jax.training.report import Report

if TYPE_CHECKING:
    from planil_jax.envs.mujoco_renderer import RenderSpec

RANDOM_EPISODES = 16  # episodes of random actions with which an expert is compared
RAY_CASTER, MUJOCO = RENDERERS = ("raycast", "mujoco")


def collect(
    environment: str,
    path: str,
    episodes: int,
    seed: int,
    actions: bool,
    *,
    unlearned: bool = False,
    observed: tuple[int, ...] = (),
    renderer: str = RAY_CASTER,
    settings: scripted.Config | None = None,
    report: Report | None = None,
) -> demos.Card:
    """Records the scripted expert of an environment.

    Args:
      environment: its name, with options or without.
      renderer: the renderer of pictures, one of RENDERERS.
      settings: of the scripted planner; None: those chosen for the environment.

    Other arguments and errors are those of `record`.
    """
    view = _asked_view(environment, renderer)
    name = expert_policies.without_pixels(environment) if view else environment
    expert = _named(expert_policies.scripted_expert(name, settings), seed)
    return record(
        expert,
        path,
        episodes,
        seed,
        actions,
        unlearned=unlearned,
        observed=observed,
        view=view,
        report=report,
    )


def from_run(
    trained: runs.Run,
    path: str,
    episodes: int,
    seed: int,
    actions: bool,
    environment: str | None = None,
    *,
    unlearned: bool = False,
    observed: tuple[int, ...] = (),
    renderer: str = RAY_CASTER,
    report: Report | None = None,
) -> demos.Card:
    """Records the policy of the first member of a run.

    Args:
      environment: where it acts; None: where it was trained.
      renderer: what draws the pictures in the file, one of RENDERERS. A run that learned
        from pictures still reads those of the ray caster.

    Other arguments are those of `record`.

    Raises:
      UsageError: the environment has other observations or actions than the one where the
        run was trained; or as for `record`.
    """
    view = _asked_view(environment or trained.experiment.environment, renderer)
    if view and not trained.env.spec.image:
        environment = environment or trained.experiment.environment
        environment = expert_policies.without_pixels(environment)
    expert = _named(expert_policies.from_run(trained, environment), seed)
    return record(
        expert,
        path,
        episodes,
        seed,
        actions,
        unlearned=unlearned,
        observed=observed,
        view=view,
        report=report,
    )


def record(
    expert: ExpertPolicy,
    path: str,
    episodes: int,
    seed: int,
    actions: bool,
    *,
    unlearned: bool = False,
    observed: tuple[int, ...] = (),
    view: scenes.View | None = None,
    report: Report | None = None,
) -> demos.Card:
    """Records an expert policy into a file of demonstrations, and returns its card.

    Args:
      path: the file, .npz.
      seed: of the starts and of the expert's sampling.
      actions: whether the file holds actions beside observations.
      unlearned: whether an expert is accepted that is no better than random actions.
      observed: indices of the observation entries in the file; empty: all.
      view: pictures by MuJoCo's renderer, in place of observations; None: observations.
      report: says how long it takes; None: nothing is said.

    Raises:
      UsageError: the path is no .npz or cannot be written, or there are no such
        observation entries.
      UserError: the expert is no better than random actions; a step is not finite; or
        MuJoCo's renderer is to draw, and there is no OpenGL.
    """
    if not path.endswith(".npz"):
        raise UsageError(f"{path}: demonstrations (--out) are a file that ends in .npz.")
    files.require_writable(path, "--out")
    spec, render_spec = _drawn(expert.env.spec, view)
    columns = _columns(spec, observed)
    keys = jax.random.split(jax.random.key(seed), episodes)
    transitions, alive = expert_policies.rollout(expert, keys, render_spec, report)
    _refuse_broken(expert, transitions)
    if not unlearned:
        _refuse_unlearned(expert, np.sum(transitions.reward * alive, axis=1), seed)
    recorded = [
        _episode(jax.tree.map(lambda leaf, n=n: leaf[n], transitions), alive[n], actions)
        for n in range(episodes)
    ]
    recorded = _with_observations(recorded, columns, render_spec)
    drawn_by = "the ray caster"
    if render_spec:
        drawn_by = f"MuJoCo {metadata.version('mujoco')}"
    demos.save(path, recorded, _card(spec, columns, expert.name, drawn_by))
    return demos.read(path)[1]


def summary(path: str) -> str:
    """One line about a file of demonstrations."""
    episodes, card = demos.read(path)
    content = "observations only"
    if episodes[0].actions is not None:
        content = "observations and actions"
    returns = "returns unknown"
    if known := card.known_returns:
        returns = f"return {np.mean(known):.1f} ± {np.std(known):.1f}"
        if len(known) < len(episodes):
            returns += (
                f" ({len(episodes) - len(known)} unknown: rewards that are not finite)"
            )
    ended = sum(episode.terminal for episode in episodes)
    early = f", {ended} ended early" if ended else ""
    many = f"{len(episodes)} episodes of {card.environment}"
    return f"{path}: {many}, {content}, {returns}{early}"


# -------------------------------------------------------------------------------- helpers


def _asked_view(environment: str, renderer: str) -> scenes.View | None:
    """The view of MuJoCo's renderer that "kitchen:pixels=64,camera=front" asks for.

    Raises:
      UsageError: there is no such renderer, or the name does not say how many pixels.
    """
    if renderer not in RENDERERS:
        raise UsageError(f"renderer is one of {', '.join(RENDERERS)}, not {renderer!r}.")
    if renderer == RAY_CASTER:
        return None
    name, _, text = environment.partition(":")
    options = dict(option.partition("=")[::2] for option in text.split(","))
    size = options.get("pixels", "")
    if not size.isdigit() or int(size) < 1:
        raise UsageError(
            f"renderer={MUJOCO} (--renderer={MUJOCO}) draws pictures: say how many pixels "
            f"a side has, as in --env={name}:pixels=64."
        )
    return scenes.View(height=int(size), width=int(size), camera=options.get("camera", ""))


def _drawn(spec: EnvSpec, view: scenes.View | None) -> tuple[EnvSpec, "RenderSpec | None"]:
    """The spec of what the file holds, and what MuJoCo's renderer draws, if it does."""
    if view is None:
        return spec, None
    from planil_jax.envs import mujoco_renderer  # here: it imports MJX, in seconds

    render_spec = mujoco_renderer.render_spec(spec.name, view)
    mujoco_renderer.require_opengl(render_spec)
    image = (view.height, view.width, 3)
    return spec._replace(observation_names=(), image=image), render_spec


def _with_observations(
    episodes: list[demos.Episode],
    columns: list[int],
    render_spec: "RenderSpec | None",
) -> list[demos.Episode]:
    """The episodes with the observations that are written."""
    if render_spec:
        from planil_jax.envs import mujoco_renderer  # as above

        obs = mujoco_renderer.draw(render_spec, [episode.obs for episode in episodes])
    else:
        obs = [episode.obs[..., columns] for episode in episodes]
    pairs = zip(episodes, obs, strict=True)
    return [dataclasses.replace(episode, obs=values) for episode, values in pairs]


def _named(expert: ExpertPolicy, seed: int) -> ExpertPolicy:
    return expert._replace(name=f"{expert.name}, seed {seed}")


def _card(spec: EnvSpec, columns: list[int], expert: str, drawn_by: str) -> demos.Card:
    names = spec.observation_names
    return demos.Card(
        environment=spec.name,
        control_period=spec.control_period,
        observation_names=() if spec.image else tuple(names[c] for c in columns),
        image=spec.frame,
        action_low=spec.action_low,
        action_high=spec.action_high,
        expert=expert,
        note=f"frames drawn by {drawn_by}" if spec.image else "",
    )


def _columns(spec: EnvSpec, observed: tuple[int, ...]) -> list[int]:
    """Indices of the last axis of `obs` that are written: of pictures, the newest frame."""
    if spec.image:
        if observed:
            raise UsageError(
                f"{spec.name} shows pictures, which have no entries: leave out observed "
                "(--observed)."
            )
        return [-3, -2, -1]
    last = spec.observation_size - 1
    wrong = [entry for entry in observed if not 0 <= entry <= last]
    if wrong:
        raise UsageError(f"{spec.name} observes entries 0 to {last}, no {wrong[0]}.")
    return list(observed or range(spec.observation_size))


def _refuse_unlearned(expert: ExpertPolicy, returns: np.ndarray, seed: int) -> None:
    """Refuses an expert whose returns `[N]` are no better than those of random actions."""
    env = expert.env
    keys = jax.random.split(jax.random.key(seed), RANDOM_EPISODES)
    random = expert._replace(agent=expert_policies.make_random(env), params=())
    by_chance = expert_policies.returns(random, keys)
    mean = float(np.mean(returns))
    if mean <= by_chance.mean() + 2 * by_chance.std() / RANDOM_EPISODES**0.5:
        raise UserError(
            f"the expert of {env.spec.name} returns {mean:.1f}, no better than random "
            f"actions ({by_chance.mean():.1f}): it never learned; train it longer, or "
            "accept it with unlearned=True (--unlearned)."
        )


def _refuse_broken(expert: expert_policies.ExpertPolicy, transitions: Transition) -> None:
    """Refuses episodes that a step which was not finite cut short."""
    assert transitions.valid is not None  # the loop writes it
    for n, t in np.argwhere(~transitions.valid)[:1].tolist():
        raise UserError(
            f"step {t} of episode {n} of {expert.name} in {expert.env.spec.name} was not "
            "finite, so that nothing was recorded: mend the environment or the expert, or "
            "take another seed."
        )


def _episode(transitions: Transition, alive: np.ndarray, actions: bool) -> demos.Episode:
    """The episode of transitions `[L]`, up to its end."""
    length = int(alive.sum())
    return demos.Episode(
        obs=np.concatenate([transitions.obs[:1], transitions.next_obs[:length]]),
        actions=np.asarray(transitions.action[:length]) if actions else None,
        rewards=np.asarray(transitions.reward[:length]),
        terminal=bool(transitions.terminal[length - 1]),
    )
