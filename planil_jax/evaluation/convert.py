"""Converts public demonstrations, arrays of all episodes one after another, to our format.

    python -m experiments.convert --source=hopper.npz --env=gym/Hopper --episodes=4 \\
        --out=demos/hopper.npz

The source is an .npz without pickles of `obs` [sum of (L + 1), O], `lengths` [N] and maybe
`acts` [sum of L, U], or of choices their numbers [sum of L], `rews` [sum of L] and
`terminal` [N].
"""

import zipfile

import numpy as np
from absl import flags

from planil_jax import envs
from planil_jax.base import EnvSpec, UsageError
from planil_jax.data import demos
from planil_jax.evaluation import collect

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Not on import: other binaries import this one."""
    flags.DEFINE_string("source", None, "File to convert, .npz.", required=True)
    flags.DEFINE_string("env", None, "Environment that it is of.", required=True)
    flags.DEFINE_string("out", None, "File to write, .npz.", required=True)
    flags.DEFINE_integer("episodes", 4, "Episodes to take, the first.", lower_bound=1)


def main() -> None:
    card = convert(FLAGS.source, FLAGS.env, FLAGS.out, FLAGS.episodes)
    print(collect.told(FLAGS.out, card, actions=True))


def convert(source: str, environment: str, path: str, count: int) -> demos.Card:
    """Writes the first `count` episodes of `source` to `path`.

    Raises:
      UsageError: the source is no such file, or does not fit the environment.
    """
    spec = envs.make(environment).spec
    arrays = _arrays(source)
    lengths = arrays["lengths"].astype(int)
    if count > len(lengths):
        raise UsageError(f"{source} has {len(lengths)} episodes, not {count}.")
    steps = int(lengths.sum())
    if "acts" in arrays:
        arrays["acts"] = _one_hot(source, arrays["acts"], spec)
    for name, wanted in {
        "obs": (steps + len(lengths), spec.observation_size),
        "acts": (steps, spec.action_size),
        "rews": (steps,),
        "terminal": (len(lengths),),
    }.items():
        if name in arrays and arrays[name].shape != wanted:
            raise UsageError(
                f"{source}: {name} is {arrays[name].shape}, where its lengths and "
                f"{environment} want {wanted}."
            )
    firsts = np.concatenate([[0], np.cumsum(lengths)])
    episodes = []
    for n in range(count):
        of_it = slice(firsts[n], firsts[n + 1])
        obs = arrays["obs"][firsts[n] + n : firsts[n + 1] + n + 1]
        actions = arrays["acts"][of_it] if "acts" in arrays else None
        if actions is not None:
            actions = actions.clip(spec.action_low, spec.action_high).astype(np.float32)
        episodes.append(
            demos.Episode(
                obs=obs.astype(np.float32),
                actions=actions,
                rewards=arrays["rews"][of_it] if "rews" in arrays else None,
                terminal=bool(arrays["terminal"][n]) if "terminal" in arrays else False,
            )
        )
    card = demos.Card(
        environment=environment,
        control_period=spec.control_period,
        observation_names=spec.observation_names,
        action_low=spec.action_low,
        action_high=spec.action_high,
        expert=f"of {source.rsplit('/', 1)[-1]}",
    )
    demos.save(path, episodes, card)
    return demos.read(path)[1]


def _one_hot(source: str, actions: np.ndarray, spec: EnvSpec) -> np.ndarray:
    """Numbers of choices `[T]` as the vectors `[T, U]` that we hold; others as they are."""
    if not (spec.discrete and actions.ndim == 1):
        return actions
    numbers = np.arange(spec.action_size)
    if not np.isin(actions, numbers).all():
        raise UsageError(
            f"{source}: acts are {actions.min()} to {actions.max()}, where {spec.name} "
            f"numbers its {spec.action_size} choices from 0."
        )
    return actions[:, None] == numbers


def _arrays(source: str) -> dict[str, np.ndarray]:
    try:
        with np.load(source, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{source} is no readable .npz without pickles: {error}."
        ) from None
    for name in ("obs", "lengths"):
        if name not in arrays:
            raise UsageError(
                f"{source} lacks {name!r}; it holds {', '.join(arrays) or 'nothing'}."
            )
    return arrays
