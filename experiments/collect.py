"""Collects demonstrations from an environment's scripted expert.

python -m experiments.collect --env=navigation --out=demos/navigation.npz --episodes=4
"""

import jax
import numpy as np
from absl import flags

from experiments import door, experiment
from planil_jax import envs
from planil_jax.base import UsageError
from planil_jax.data import demos
from planil_jax.training import loop

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Not on import: other binaries import this one."""
    flags.DEFINE_string("env", None, "Environment to demonstrate.", required=True)
    flags.DEFINE_string("out", None, "File to write, .npz.", required=True)
    flags.DEFINE_integer("episodes", 4, "Episodes to demonstrate.", lower_bound=1)
    flags.DEFINE_integer("seed", 1, "Seed of starts and of the expert's sampling.")
    flags.DEFINE_bool("actions", False, "Write actions too; without, observations only.")


def main() -> None:
    if not FLAGS.out.endswith(".npz"):
        raise UsageError(f"--out={FLAGS.out} must end in .npz.")
    card = collect(FLAGS.env, FLAGS.out, FLAGS.episodes, FLAGS.seed, FLAGS.actions)
    held = "observations and actions" if FLAGS.actions else "observations only"
    print(
        f"wrote {FLAGS.out}: {FLAGS.episodes} episodes of {FLAGS.env}, {held}, "
        f"return {np.mean(card.returns):.1f} ± {np.std(card.returns):.1f}"
    )


def collect(
    environment: str, path: str, count: int, seed: int, actions: bool
) -> demos.Card:
    """Runs the scripted expert for `count` episodes and writes them to `path`."""
    env = envs.make(environment)
    expert = experiment.make_expert(environment, env)
    keys = jax.random.split(jax.random.key(seed), count)
    print(f"compiling and driving {count} episodes of {environment} …", flush=True)
    evaluate = jax.jit(lambda keys: loop.evaluate(expert, env, (), keys))
    transitions, alive = jax.device_get(evaluate(keys))
    episodes = [
        _episode(jax.tree.map(lambda leaf, n=n: leaf[n], transitions), alive[n], actions)
        for n in range(count)
    ]
    card = demos.Card(
        environment=environment,
        control_period=env.spec.control_period,
        observation_names=env.spec.observation_names,
        action_low=env.spec.action_low,
        action_high=env.spec.action_high,
        expert=f"scripted MPPI, seed {seed}",
    )
    demos.save(path, episodes, card)
    return demos.read(path)[1]


def _episode(transitions, alive: np.ndarray, actions: bool) -> demos.Episode:
    length = int(alive.sum())
    return demos.Episode(
        obs=np.concatenate([transitions.obs[:1], transitions.next_obs[:length]]),
        actions=transitions.action[:length] if actions else None,
        rewards=transitions.reward[:length],
        terminal=bool(transitions.terminal[length - 1]),
    )


if __name__ == "__main__":
    define_flags()
    door.run(main)
