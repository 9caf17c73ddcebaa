"""Sequences of consecutive steps, of the learner's replay and of demonstrations.

Actions in the replay and in sequences are in [-1, 1]. Where the environment shows pictures,
the replay holds every frame once, and pictures are shifted at random by a few pixels where
they are sampled.

An episode that ended for good can be followed by an absorbing state
(`absorbing_from_terminal`).

Source: Hansen, Su & Wang 2024, TD-MPC2, arXiv 2310.16828 (sequences, picture shifts).
Departures: of pictures, the last step of an episode is not sampled, since the replay does
not hold the frame that followed it.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.agents.common import actions, learning
from planil_jax.base import Demonstrations, EnvSpec, Transition, UsageError
from planil_jax.config import Count, Positive
from planil_jax.data import demos as demonstrations
from planil_jax.data import replay as ring
from planil_jax.nets import conv


@dataclass(frozen=True, kw_only=True)
class Config:
    """The replay buffer, and how it is sampled."""

    capacity: Count = 100_000  # steps of each environment that are kept
    batch: Count = 256  # sequences of each buffer in a gradient step
    # above 1 old steps are favoured; 1 samples uniformly (see data.replay)
    recency_exponent: Positive = 1.0


@struct.dataclass
class Sequences:
    """Consecutive steps of one buffer; actions in [-1, 1]."""

    obs: jax.Array  # [H + 1, B, O]; or pictures [H + 1, B, H, W, C]
    actions: jax.Array  # [H, B, U]
    terminal: jax.Array  # [H, B] bool; only last steps can be terminal
    rewards: jax.Array | None = None  # [H, B] the task's, where they are learned from


class Sampler(NamedTuple):
    """What the functions of this module need to know; `make` builds it."""

    spec: EnvSpec
    config: Config
    horizon: int  # H, steps of a sequence
    scaling: actions.Scaling

    @property
    def frames(self) -> int:
        """Pictures in one observation; 1 where observations are no pictures."""
        return max(self.spec.frames, 1)


def make(spec: EnvSpec, config: Config, horizon: int) -> Sampler:
    """A sampler of sequences of `horizon` steps.

    Raises:
      UsageError: the environment shows pictures of a task that can end for good.
    """
    if spec.image and spec.terminates:
        raise UsageError(
            f"{spec.name} can end early, and of pictures the last step of an episode is "
            "never sampled, so nothing would be learned about the end: leave out its "
            "option pixels."
        )
    return Sampler(spec, config, horizon, actions.make_scaling(spec))


# ------------------------------------------------------------------------------ the replay


def empty_replay(sampler: Sampler, num_envs: int, rewards: bool = False) -> ring.Replay:
    """A replay without steps; it holds the task's rewards only if `rewards` is set."""
    spec = sampler.spec
    step = {
        "action": jnp.zeros((spec.action_size,), jnp.float32),
        "terminal": jnp.zeros((), bool),
        "truncated": jnp.zeros((), bool),
    }
    if spec.image:
        step["obs"] = jnp.zeros(spec.frame, jnp.uint8)  # the newest frame
    else:
        obs = jnp.zeros((spec.observation_size,), jnp.float32)
        step |= {"obs": obs, "next_obs": obs}
    if rewards:
        step["reward"] = jnp.zeros((), jnp.float32)
    return ring.init(step, sampler.config.capacity, num_envs)


def insert(sampler: Sampler, replay: ring.Replay, rollout: Transition) -> ring.Replay:
    """The replay with a rollout `[T, E]`."""
    scaled = sampler.scaling.to_unit_interval(rollout.action)
    rollout = dataclasses.replace(rollout, action=scaled)
    if sampler.spec.image:
        rollout = dataclasses.replace(rollout, obs=rollout.obs[..., -3:])
    replay = ring.end_episodes(replay, "truncated", learning.starts_anew(rollout))
    return ring.insert(replay, {name: getattr(rollout, name) for name in replay.steps})


def valid_starts(
    sampler: Sampler, replay: ring.Replay, past_terminal: bool = False
) -> jax.Array:
    """Where sequences can start, for `sample_replay`; computed once a round.

    Args:
      past_terminal: whether sequences go on where an episode ended for good, for
        `absorbing_from_terminal`.
    """
    # Of pictures, the step after a sequence holds the frame that its last step led to.
    length = sampler.horizon + (1 if sampler.spec.image else 0)
    ended = replay.steps["truncated"] if past_terminal else _episode_ends(replay)
    return ring.sequence_starts(replay, ended, length)


def sample_replay(
    sampler: Sampler, replay: ring.Replay, starts: jax.Array, key: jax.Array
) -> Sequences:
    """A batch of the learner's sequences, from `valid_starts`."""
    batch, exponent = sampler.config.batch, sampler.config.recency_exponent
    if sampler.spec.image:
        age, column = ring.draw_starts(replay, starts, key, batch, exponent)
        ages = age + jnp.arange(sampler.horizon + 1)[:, None]  # [H + 1, B]
        steps = ring.at(replay, ages[:-1], column)
        frames, ended = replay.steps["obs"], _episode_ends(replay)
        obs = ring.stack_frames(replay, frames, ended, ages, column, sampler.frames)
        obs = _shift_pictures(obs, jax.random.fold_in(key, 1))
    else:
        steps = ring.sample_sequences(replay, starts, key, batch, sampler.horizon, exponent)
        obs = jnp.concatenate([steps["obs"][:1], steps["next_obs"]])
    return Sequences(
        obs=obs,
        actions=steps["action"],
        terminal=steps["terminal"],
        rewards=steps.get("reward"),
    )


def absorbing_from_terminal(sequences: Sequences) -> Sequences:
    """The sequences with every step from an end for good on marked as terminal.

    In the replay another episode follows an end. Its actions stay, as any action can be
    taken in an absorbing state. Its observations must not be read.

    With starts of `valid_starts(..., past_terminal=True)`, a last step is sampled as often
    as any other. If sequences had to stop at an end, a last step would be in one sequence
    and an earlier step in H.
    """
    ended = jnp.cumsum(sequences.terminal, axis=0) > 0  # [H, B]
    return dataclasses.replace(sequences, terminal=ended)


# ---------------------------------------------------------------------- the demonstrations


def sample_demos(sampler: Sampler, demos: Demonstrations, key: jax.Array) -> Sequences:
    """A batch of the expert's sequences, with its actions."""
    obs, taken, terminal = demonstrations.sample_sequences(
        demos, key, sampler.config.batch, sampler.horizon, sampler.frames
    )
    assert taken is not None  # the agent's NEEDS asks for actions
    if sampler.spec.image:
        obs = _shift_pictures(obs, jax.random.fold_in(key, 1))
    return Sequences(obs, sampler.scaling.to_unit_interval(taken), terminal)


def sample_expert_pairs(
    sampler: Sampler, demos: Demonstrations, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The expert's observations before and after a step, `[2, B, O]`, and `[B]` bool:
    whether its episode ended for good with that step."""
    batch, frames = sampler.config.batch, sampler.frames
    obs, _, next_obs, terminal = demonstrations.sample(demos, key, batch, frames)
    pairs = jnp.stack([obs, next_obs])
    if sampler.spec.image:
        pairs = _shift_pictures(pairs, jax.random.fold_in(key, 1))
    return pairs, terminal


def side_by_side(*buffers: Sequences) -> Sequences:
    """Sequences of several buffers in one batch: B becomes the sum of theirs."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *buffers)


def _episode_ends(replay: ring.Replay) -> jax.Array:
    return replay.steps["terminal"] | replay.steps["truncated"]


def _shift_pictures(pictures: jax.Array, key: jax.Array) -> jax.Array:
    """Every picture of `[T, B, H, W, C]` shifted by its own few pixels."""
    keys = jax.random.split(key, pictures.shape[:2])
    return jax.vmap(jax.vmap(conv.random_shift))(keys, pictures)
