"""Collects demonstrations from an environment's scripted expert, or from a trained run.

    python -m experiments.collect --env=navigation --out=demos/navigation.npz --episodes=4
    python -m experiments.collect --run=runs/expert --out=demos/pendulum.npz --actions
    python -m experiments.collect --run=runs/expert --env=pendulum:pixels=64 \
        --out=demos/pendulum_seen.npz --actions

Given both, the trained expert drives in the environment, and may read there what pictures
show; the file holds the pictures, each frame once.

The scripted expert plans on the task's own cost or, where there is none, on its reward.
An expert that is no better than random actions is refused, unless --unlearned is given.
"""

import jax
import numpy as np
from absl import flags

from experiments import door, experiment, runs
from planil_jax import envs
from planil_jax.base import Agent, Environment, Params, UsageError, UserError
from planil_jax.data import demos
from planil_jax.training import loop

FLAGS = flags.FLAGS

RANDOM_EPISODES = 16  # of random actions, that an expert is compared with
_OF_PICTURES = ("pixels", "frames", "camera")


def define_flags() -> None:
    """Not on import: other binaries import this one."""
    flags.DEFINE_string("env", None, "Environment to demonstrate; or that of --run.")
    flags.DEFINE_string("run", None, "The --logdir of a training whose first seed drives.")
    flags.DEFINE_string("out", None, "File to write, .npz.", required=True)
    flags.DEFINE_integer("episodes", 4, "Episodes to demonstrate.", lower_bound=1)
    flags.DEFINE_integer("seed", 1, "Seed of starts and of the expert's sampling.")
    flags.DEFINE_bool("actions", False, "Write actions too; without, observations only.")
    flags.DEFINE_list(
        "entries", [], "Indices of the observation's entries to write; empty: all."
    )
    flags.DEFINE_bool("unlearned", False, "Take an expert no better than random.")


def main() -> None:
    if FLAGS.env is None and FLAGS.run is None:
        raise UsageError("give --env, for a scripted expert, or --run, for a trained one.")
    if not all(entry.isdigit() for entry in FLAGS.entries):
        raise UsageError(f"--entries={','.join(FLAGS.entries)}: must be numbers from 0 on.")
    args = (FLAGS.out, FLAGS.episodes, FLAGS.seed, FLAGS.actions)
    more = {"unlearned": FLAGS.unlearned, "entries": tuple(map(int, FLAGS.entries))}
    if FLAGS.run:
        card = from_run(runs.load(FLAGS.run), *args, environment=FLAGS.env, **more)
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
    **more,
) -> demos.Card:
    """Runs the scripted expert for `count` episodes; `more` as for `record`."""
    env = envs.make(environment)
    if env.spec.image:
        within = envs.make(unseen(environment))
        expert = knowing(experiment.make_expert(environment, within))
    else:
        expert = experiment.make_expert(environment, env)
    name = f"scripted MPPI, seed {seed}"
    return record(env, expert, (), name, path, count, seed, actions, **more)


def from_run(
    trained: runs.Run,
    path: str,
    count: int,
    seed: int,
    actions: bool,
    environment: str | None = None,
    **more,
) -> demos.Card:
    """Lets the first member of a run drive `count` episodes; `more` as for `record`.

    Args:
      environment: where; None: where it was trained.

    Raises:
      UsageError: the environment is of other sizes than where it was trained.
    """
    own, params = jax.tree.map(lambda leaf: leaf[0], (trained.settings, trained.params))
    agent = trained.make_agent(trained.env, own)
    env = envs.make(environment) if environment else trained.env
    if environment and env.spec.image and not trained.env.spec.image:
        agent = knowing(agent)
        _require_same(trained.env, envs.make(unseen(environment)))
    elif environment:
        _require_same(trained.env, env)
    name = f"{trained.experiment.method} after {trained.step} steps, seed {seed}"
    return record(env, agent, params, name, path, count, seed, actions, **more)


def knowing(expert: Agent) -> Agent:
    """An expert that reads, where pictures are shown, the state that they show."""

    def act(params, carry, state, key, explore):
        return expert.act(params, carry, state.sim.inner, key, explore)

    return expert._replace(act=act)


def unseen(environment: str) -> str:
    """The name of an environment without what is said of pictures."""
    name, _, options = environment.partition(":")
    kept = [
        option
        for option in options.split(",")
        if option and option.partition("=")[0] not in _OF_PICTURES
    ]
    return ":".join([name, *([",".join(kept)] if kept else [])])


def _require_same(trained: Environment, other: Environment) -> None:
    """Refuses an environment that an expert of another cannot drive in."""
    for what in ("observation_names", "action_low", "action_high"):
        if getattr(trained.spec, what) != getattr(other.spec, what):
            raise UsageError(
                f"--env={other.spec.name} has other {what.replace('_', ' ')} than "
                f"{trained.spec.name}, where --run was trained: give one with the same."
            )


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
    entries: tuple[int, ...] = (),
) -> demos.Card:
    """Runs an expert for `count` episodes and writes them to `path` with their card.

    Args:
      entries: of the observation, to be written; empty: all.

    Raises:
      UserError: the expert is no better than random actions, and `unlearned` is not set.
    """
    if not path.endswith(".npz"):
        raise UsageError(f"--out={path} must end in .npz.")
    print(f"compiling and driving {count} episodes of {env.spec.name} …", flush=True)
    transitions, alive = _drive(env, expert, params, seed, count)
    if not unlearned:
        _refuse_unlearned(env, np.sum(transitions.reward * alive, axis=1), seed)
    names = env.spec.observation_names
    if entries and env.spec.image:
        raise UsageError(
            f"{env.spec.name} shows pictures, which have no entries: leave out --entries."
        )
    seen = list(entries or range(len(names)))
    if max(seen, default=-1) >= len(names):
        raise UsageError(
            f"{env.spec.name} observes entries 0 to {len(names) - 1}, no {max(seen)}."
        )
    episodes = [
        _episode(
            jax.tree.map(lambda leaf, n=n: leaf[n], transitions), alive[n], seen, actions
        )
        for n in range(count)
    ]
    card = demos.Card(
        environment=env.spec.name,
        control_period=env.spec.control_period,
        observation_names=tuple(names[entry] for entry in seen),
        image=env.spec.frame,
        action_low=env.spec.action_low,
        action_high=env.spec.action_high,
        expert=name,
    )
    demos.save(path, episodes, card)
    return demos.read(path)[1]


def _refuse_unlearned(env: Environment, returns: np.ndarray, seed: int) -> None:
    """Refuses an expert whose returns `[N]` are no better than those of random actions."""
    rewards, going = _drive(
        env, experiment.make_random(env), (), seed, RANDOM_EPISODES, rewards_only=True
    )
    by_chance = np.sum(rewards * going, axis=1)
    reached = float(np.mean(returns))
    if reached <= by_chance.mean() + 2 * by_chance.std() / RANDOM_EPISODES**0.5:
        raise UserError(
            f"the expert of {env.spec.name} returns {reached:.1f}, no better than "
            f"random actions ({by_chance.mean():.1f}): it never learned; train it "
            "longer, or take it as it is with --unlearned."
        )


def _drive(env, agent, params, seed: int, count: int, rewards_only: bool = False):
    keys = jax.random.split(jax.random.key(seed), count)

    def driven(params, keys):
        transitions, alive = loop.evaluate(agent, env, params, keys)
        return (transitions.reward if rewards_only else transitions), alive

    return jax.device_get(jax.jit(driven)(params, keys))


def _episode(transitions, alive: np.ndarray, seen: list[int], actions: bool):
    length = int(alive.sum())
    obs = np.concatenate([transitions.obs[:1], transitions.next_obs[:length]])
    return demos.Episode(
        # Of pictures, the newest frame alone.
        obs=obs[:, seen] if seen else obs[..., -3:],
        actions=transitions.action[:length] if actions else None,
        rewards=transitions.reward[:length],
        terminal=bool(transitions.terminal[length - 1]),
    )


if __name__ == "__main__":
    define_flags()
    door.run(main)
