"""Collects demonstrations from an environment's scripted expert, or from a trained run.

    python -m experiments.collect --env=navigation --out=demos/navigation.npz --episodes=4
    python -m experiments.collect --run=runs/expert --out=demos/pendulum.npz --actions
    python -m experiments.collect --run=runs/expert --env=pendulum:pixels=64 \
        --out=demos/pendulum_seen.npz --actions

Given both, the trained expert drives in the environment, and may read there what pictures
show; the file holds the pictures, each frame once. They come from the ray caster, as in
training, or, of MuJoCo models, from MuJoCo's own renderer, meshes and shadows included:

    python -m experiments.collect --env=kitchen:pixels=64 --renderer=mujoco \
        --out=demos/kitchen.npz --actions

The scripted expert plans on the task's own cost or, where there is none, on its reward.
An expert that is no better than random actions is refused, unless --unlearned is given.
"""

import dataclasses

import jax
import numpy as np
from absl import flags

from planil_jax import experiment, runs
from planil_jax.base import (
    Agent,
    Environment,
    EnvSpec,
    Params,
    Transition,
    UsageError,
    UserError,
)
from planil_jax.data import demos
from planil_jax.envs import scenes
from planil_jax.evaluation import expert_policies
from planil_jax.reporting import renderer

FLAGS = flags.FLAGS

RANDOM_EPISODES = 16  # of random actions, that an expert is compared with
RAY_CASTER, MUJOCO = RENDERERS = ("raycast", "mujoco")


def define_flags() -> None:
    """Not on import: other binaries import this one."""
    flags.DEFINE_string("env", None, "Environment to demonstrate; or that of --run.")
    flags.DEFINE_string("run", None, "The --logdir of a training whose first seed drives.")
    flags.DEFINE_string("which", "last", "Checkpoint of --run: last, best, or a step.")
    flags.DEFINE_string("out", None, "File to write, .npz.", required=True)
    flags.DEFINE_integer("episodes", 4, "Episodes to demonstrate.", lower_bound=1)
    flags.DEFINE_integer("seed", 1, "Seed of starts and of the expert's sampling.")
    flags.DEFINE_bool("actions", False, "Write actions too; without, observations only.")
    flags.DEFINE_list(
        "observed", [], "Indices of the observation's entries to write; empty: all."
    )
    flags.DEFINE_bool("unlearned", False, "Take an expert no better than random.")
    flags.DEFINE_enum(
        "renderer", RAY_CASTER, RENDERERS, "What draws pictures; mujoco needs OpenGL."
    )


def main() -> None:
    if FLAGS.env is None and FLAGS.run is None:
        raise UsageError("give --env, for a scripted expert, or --run, for a trained one.")
    if FLAGS.run is None and FLAGS.which != "last":
        raise UsageError(f"--which={FLAGS.which} is of a --run, and there is none.")
    if not all(entry.isdigit() for entry in FLAGS.observed):
        raise UsageError(
            f"--observed={','.join(FLAGS.observed)}: must be numbers from 0 on."
        )
    args = (FLAGS.out, FLAGS.episodes, FLAGS.seed, FLAGS.actions)
    more = {
        "unlearned": FLAGS.unlearned,
        "observed": tuple(map(int, FLAGS.observed)),
        "drawn_by": FLAGS.renderer,
    }
    if FLAGS.run:
        card = from_run(
            runs.load(FLAGS.run, FLAGS.which), *args, environment=FLAGS.env, **more
        )
    else:
        card = collect(FLAGS.env, *args, **more)
    print(told(FLAGS.out, card, FLAGS.actions))


def told(path: str, card: demos.Card, actions: bool) -> str:
    """A line about demonstrations that were written."""
    held = "observations and actions" if actions else "observations only"
    return (
        f"wrote {path}: {len(card.returns)} episodes of {card.environment}, {held}, "
        f"return {np.mean(card.returns):.1f} ± {np.std(card.returns):.1f}"
    )


def collect(
    environment: str,
    path: str,
    count: int,
    seed: int,
    actions: bool,
    drawn_by: str = RAY_CASTER,
    **more,
) -> demos.Card:
    """Runs the scripted expert for `count` episodes; `more` as for `record`.

    Args:
      drawn_by: one of RENDERERS, where there are pictures.
    """
    view = asked_for(environment) if drawn_by == MUJOCO else None
    driver = expert_policies.scripted(
        expert_policies.unseen(environment) if view else environment
    )
    name = f"{driver.name}, seed {seed}"
    more |= {"view": view}
    return record(*driver._replace(name=name), path, count, seed, actions, **more)


def from_run(
    trained: runs.Run,
    path: str,
    count: int,
    seed: int,
    actions: bool,
    environment: str | None = None,
    drawn_by: str = RAY_CASTER,
    **more,
) -> demos.Card:
    """Lets the first member of a run drive `count` episodes; `more` as for `record`.

    Args:
      environment: where; None: where it was trained.
      drawn_by: as for `collect`; a run that learned from pictures drives by those of the
        ray caster all the same.

    Raises:
      UsageError: the environment is of other sizes than where it was trained.
    """
    view = None
    if drawn_by == MUJOCO:
        environment = environment or trained.experiment.environment
        view = asked_for(environment)
        if not trained.env.spec.image:
            environment = expert_policies.unseen(environment)
    driver = expert_policies.first_member(trained, environment)
    name = f"{driver.name}, seed {seed}"
    more |= {"view": view}
    return record(*driver._replace(name=name), path, count, seed, actions, **more)


def asked_for(environment: str) -> scenes.View:
    """What "kitchen:pixels=64,camera=front" says of its pictures.

    Raises:
      UsageError: it does not say how large they are.
    """
    name, _, text = environment.partition(":")
    options = dict(option.partition("=")[::2] for option in text.split(","))
    size = options.get("pixels", "")
    if not size.isdigit() or int(size) < 1:
        raise UsageError(
            f"--renderer={MUJOCO} draws pictures: say of how many pixels along a side, as "
            f"in --env={name}:pixels=64."
        )
    side = int(size)
    return scenes.View(height=side, width=side, camera=options.get("camera", ""))


def record(
    env: Environment,
    expert: Agent,
    params: Params,
    name: str,
    path: str,
    count: int,
    seed: int,
    actions: bool,
    unlearned: bool = False,
    observed: tuple[int, ...] = (),
    view: scenes.View | None = None,
) -> demos.Card:
    """Runs an expert for `count` episodes and writes them to `path` with their card.

    Args:
      entries: of the observation, to be written; empty: all.
      view: what MuJoCo's renderer draws, and is written in place of what is observed; None:
        nothing.

    Raises:
      UserError: the expert is no better than random actions, and `unlearned` is not set;
        or there is a view, and nothing here that could draw it.
    """
    if not path.endswith(".npz"):
        raise UsageError(f"--out={path} must end in .npz.")
    spec, sight = env.spec, None
    if view:
        spec = spec._replace(observation_names=(), image=(view.height, view.width, 3))
        sight = renderer.sight(spec.name, view)
        renderer.require(sight)
    columns = _columns(spec, observed)
    print(f"compiling and driving {count} episodes of {spec.name} …", flush=True)
    driver = expert_policies.Driver(env, expert, params, name)
    keys = jax.random.split(jax.random.key(seed), count)
    transitions, alive = expert_policies.drive(driver, keys, sight)
    if not unlearned:
        _refuse_unlearned(driver, np.sum(transitions.reward * alive, axis=1), seed)
    episodes = [
        _episode(jax.tree.map(lambda leaf, n=n: leaf[n], transitions), alive[n], actions)
        for n in range(count)
    ]
    if sight:
        shown = renderer.draw(sight, [each.obs for each in episodes])
    else:
        shown = [each.obs[..., columns] for each in episodes]
    names, drawn_by = spec.observation_names, renderer.NAME if sight else "the ray caster"
    card = demos.Card(
        environment=spec.name,
        control_period=spec.control_period,
        observation_names=() if spec.image else tuple(names[c] for c in columns),
        image=spec.frame,
        action_low=spec.action_low,
        action_high=spec.action_high,
        expert=name,
        note=f"frames drawn by {drawn_by}" if spec.image else "",
    )
    pairs = zip(episodes, shown, strict=True)
    demos.save(path, [dataclasses.replace(each, obs=obs) for each, obs in pairs], card)
    return demos.read(path)[1]


def _columns(spec: EnvSpec, observed: tuple[int, ...]) -> list[int]:
    """Of what is observed, that which is written; of pictures, the newest frame."""
    if spec.image:
        if observed:
            raise UsageError(
                f"{spec.name} shows pictures, which have no entries: leave out --observed."
            )
        return [-3, -2, -1]
    last = spec.observation_size - 1
    if max(observed, default=0) > last:
        raise UsageError(f"{spec.name} observes entries 0 to {last}, no {max(observed)}.")
    return list(observed or range(spec.observation_size))


def _refuse_unlearned(
    driver: expert_policies.Driver, returns: np.ndarray, seed: int
) -> None:
    """Refuses an expert whose returns `[N]` are no better than those of random actions."""
    env = driver.env
    keys = jax.random.split(jax.random.key(seed), RANDOM_EPISODES)
    random = driver._replace(agent=experiment.make_random(env), params=())
    by_chance = expert_policies.returns(random, keys)
    reached = float(np.mean(returns))
    if reached <= by_chance.mean() + 2 * by_chance.std() / RANDOM_EPISODES**0.5:
        raise UserError(
            f"the expert of {env.spec.name} returns {reached:.1f}, no better than "
            f"random actions ({by_chance.mean():.1f}): it never learned; train it "
            "longer, or take it as it is with --unlearned."
        )


def _episode(transitions: Transition, alive: np.ndarray, actions: bool) -> demos.Episode:
    """What is alive of the transitions `[L]` of an episode."""
    length = int(alive.sum())
    return demos.Episode(
        obs=np.concatenate([transitions.obs[:1], transitions.next_obs[:length]]),
        actions=np.asarray(transitions.action[:length]) if actions else None,
        rewards=np.asarray(transitions.reward[:length]),
        terminal=bool(transitions.terminal[length - 1]),
    )
