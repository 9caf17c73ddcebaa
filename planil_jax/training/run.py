"""Runs: all seeds in one compiled program an epoch, evaluated, checkpointed and reported.

    seed i of a run is jax.random.key(first + i), so that it equals that seed alone
    state [S] = over seeds: loop.init
    each epoch:  state, metrics = over seeds: loop.epoch(demos, first_round, state)
                 stop if anything is not finite;  evaluate;  report;  checkpoint;  yield

"Over seeds" is `vmap`, or `lax.map`, which is slower and equals a single seed bit for bit.
Where there are several devices and they divide the seeds, each takes its share of them.

Settings that are numbers, such as learning rates, can be tried side by side as well. Then
each member's agent is made inside the program, from its settings. The members S of the run
are all seeds with the first settings, all seeds with the second, and so on.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax.base import (
    Agent,
    Demonstrations,
    Environment,
    Metrics,
    Params,
    TrainState,
    UsageError,
    UserError,
)
from planil_jax.config import Count, Natural, check
from planil_jax.training import checkpoint, loop, memory, seeds, signals
from planil_jax.training.report import Report

EVALUATION_SEED = 0x5EED  # every seed of every run is evaluated from the same starts


@dataclass(frozen=True, kw_only=True)
class Config:
    total_steps: Count = 50_000  # environment steps of each seed, up to whole epochs
    evaluate_every: Count | None = 5  # epochs between evaluations; None: after the last
    evaluation_episodes: Natural = 16  # episodes of an evaluation; 0: never evaluate
    checkpoint_every: Count | None = 5  # epochs between checkpoints; None: after the last
    keep_last: Count = 2  # newest checkpoints that are kept
    # Checkpoints that are kept for their return, of those evaluated in the same epoch.
    keep_best: Natural = 2
    # How the seeds are computed: "vmap", side by side; "map", one after another, which is
    # slower and equals a single seed bit for bit.
    seeds_by: Literal["vmap", "map"] = "vmap"


# "agent.learning_rate" -> [], or [P] of P settings, or [S]
Settings: TypeAlias = dict[str, Any]
MakeAgent: TypeAlias = Callable[[Settings], Agent]


class Epoch(NamedTuple):
    """The result of an epoch."""

    step: int  # environment steps of each seed so far
    state: TrainState  # [S]; donated to the next epoch, so invalid once that is requested
    metrics: dict[str, np.ndarray]  # [S] each


class Program(NamedTuple):
    """The compiled functions of a run, and the shapes of its state."""

    template: TrainState  # [S] of ShapeDtypeStruct
    init: Callable[[], TrainState]
    # (first_round []) and the state, which is donated -> state, metrics, finite
    epoch: Callable[[np.int32, TrainState], tuple[TrainState, Metrics, Metrics]]
    # (params [S]) -> mean returns [S]; None: nothing is ever evaluated
    evaluate: Callable[[Params], jax.Array] | None


def train(
    agent: Agent | MakeAgent,
    env: Environment,
    loop_config: loop.Config,
    config: Config,
    demos: Demonstrations,
    seed_range: tuple[int, int] = (0, 1),
    directory: str | Path | None = None,
    report: Report | None = None,
    settings: Settings | None = None,
    again: str = "the same call continues it",
) -> Iterator[Epoch]:
    """Trains, and yields after every epoch.

    A run that was killed, at any time, continues from its last checkpoint bit for bit as if
    it had not stopped. Signals, see `signals`, let the epoch end and save it; a second one
    acts at once and loses what came after the last checkpoint.

    Args:
      agent: an agent; with `settings`, a function that makes one from a member's settings.
      seed_range: the first seed and how many.
      directory: of the checkpoints; training continues from the newest one. None: nothing
        is saved.
      report: receives sentences and metrics; None: nothing is reported.
      settings: `[P]` each, numbers to try side by side; members S = P × seeds.
      again: half a sentence about how to go on from what a signal stopped.

    Raises:
      signals.Stopped, signals.Interrupted: a signal; the epoch is saved, and it is said.
      UserError: something is no longer finite, memory or the disk does not suffice, the
        checkpoints do not fit, or a setting decides the shape of the program. Earlier
        checkpoints are kept.
    """
    report = report or Report(console=False)
    epoch_steps = loop_config.steps_per_epoch
    saved = max(checkpoint.steps(directory), default=0) if directory else 0
    report.last_step(saved, config.total_steps, epoch_steps)
    program = compile_program(
        agent, env, loop_config, config, demos, seed_range, report, settings
    )
    state, step, round_ = _begin(program, directory, report)
    report.start(step, config.total_steps)
    while step < config.total_steps:
        lost = f"what came after the last checkpoint is lost; {again}"
        with signals.patient(lost) as hearing:
            state, metrics, finite = program.epoch(np.int32(round_), state)
            step, round_ = step + epoch_steps, round_ + loop_config.rounds
            metrics, finite = jax.device_get((metrics, finite))
            _require_finite(finite, metrics, step, seed_range, directory)
            number, last = step // epoch_steps, step >= config.total_steps
            score = None
            if program.evaluate and _due(number, config.evaluate_every, last):
                metrics["eval/return"] = np.asarray(program.evaluate(state.agent.params))
                score = float(np.mean(metrics["eval/return"]))
            report.epoch(step, metrics)
            stop, place = hearing.caught[:1], None  # the number of a signal, or none
            if directory and (stop or _due(number, config.checkpoint_every, last)):
                place = checkpoint.save(
                    directory,
                    state,
                    step=step,
                    round_=round_,
                    score=score,
                    keep_last=config.keep_last,
                    keep_best=config.keep_best,
                )
            if stop:
                where = f"saved as {directory}/{place.name}" if place else "not saved"
                report.say(
                    f"{signals.name(stop[0])} stopped training after step {step}, which is "
                    f"{where}; {again}."
                )
                signals.raise_stopped(stop[0])
        yield Epoch(step, state, metrics)


def compile_program(
    agent: Agent | MakeAgent,
    env: Environment,
    loop_config: loop.Config,
    config: Config,
    demos: Demonstrations,
    seed_range: tuple[int, int],
    report: Report,
    settings: Settings | None = None,
) -> Program:
    """Compiles training and evaluation, and says what memory they will take.

    Raises:
      UserError: there is not so much memory, or a setting decides the program's shape.
    """
    _check(loop_config, config, seed_range[1])
    make_agent = _constant(agent) if isinstance(agent, Agent) else agent
    keys, values = members(seed_range, settings or {})
    layout = seeds.lay_out(keys.shape[0])
    over_seeds = functools.partial(
        seeds.over, seeds_by=config.seeds_by, mesh=layout.mesh, mapped=2
    )
    init = over_seeds(functools.partial(_init, make_agent, env, loop_config))
    train_epoch = over_seeds(functools.partial(_epoch, make_agent, env, loop_config))
    evaluate = over_seeds(functools.partial(_evaluate, make_agent, env))
    keys, values = jax.device_put((keys, values), layout.per_seed)
    starts = jax.random.key(EVALUATION_SEED)
    starts = jax.random.split(starts, max(config.evaluation_episodes, 1))
    demos, starts = jax.device_put((demos, starts), layout.shared)
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout.per_seed),
        _shaped_by_none(settings, lambda: jax.eval_shape(init, keys, values)),
    )
    memory.require(template, 0, layout.devices)

    with report.compiling("training"):
        jitted = jax.jit(train_epoch, donate_argnums=2)
        first_round = jax.ShapeDtypeStruct((), jnp.int32)
        training = _shaped_by_none(
            settings, lambda: jitted.lower(demos, first_round, template, values)
        ).compile()
    analysis = training.memory_analysis()
    temporary = analysis.temp_size_in_bytes if analysis else 0
    report.say(f"{memory.require(template, temporary, layout.devices)}.")
    evaluation = None
    if config.evaluation_episodes:
        with report.compiling("evaluation"):
            lowered = jax.jit(evaluate).lower(starts, template.agent.params, values)
            evaluation = lowered.compile()
    return Program(
        template=template,
        init=lambda: jax.jit(init, out_shardings=layout.per_seed)(keys, values),
        epoch=lambda first_round, state: training(demos, first_round, state, values),
        evaluate=evaluation and (lambda params: evaluation(starts, params, values)),
    )


def members(
    seed_range: tuple[int, int], settings: Settings
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Keys `[S]` and settings `[S]` of the members: every seed with each of P settings."""
    keys = seeds.keys(*seed_range)
    points = len(next(iter(settings.values()), [None]))
    repeated = {
        name: jnp.repeat(jnp.asarray(values, jnp.float32), seed_range[1])
        for name, values in settings.items()
    }
    return jnp.tile(keys, points), repeated


def _constant(agent: Agent) -> MakeAgent:
    return lambda settings: agent


def _shaped_by_none(settings: Settings | None, trace_fn: Callable[[], Any]) -> Any:
    """Calls `trace_fn`; refuses a setting whose value is needed while tracing."""
    try:
        return trace_fn()
    except (jax.errors.ConcretizationTypeError, TypeError) as error:
        if not settings:
            raise
        raise UsageError(
            f"a sweep over {', '.join(settings)} is not possible: one of them decides the "
            "shape of the program; train such settings in separate runs."
        ) from error


# ------------------------------------------------------------------------------ one seed


def mean_return(
    agent: Agent, env: Environment, keys: jax.Array, params: Params
) -> jax.Array:
    """The mean over the keys `[B]` of the rewards of one episode each, summed; `[]`."""
    transitions, alive = loop.evaluate(agent, env, params, keys)  # [B, L]
    return jnp.mean(jnp.sum(transitions.reward * alive, axis=1))


def _init(
    make_agent: MakeAgent,
    env: Environment,
    loop_config: loop.Config,
    key: jax.Array,
    settings: Settings,
) -> TrainState:
    return _strong(loop.init(make_agent(settings), env, loop_config, key))


def _evaluate(
    make_agent: MakeAgent,
    env: Environment,
    keys: jax.Array,
    params: Params,
    settings: Settings,
) -> jax.Array:
    return mean_return(make_agent(settings), env, keys, params)


def _epoch(
    make_agent: MakeAgent,
    env: Environment,
    loop_config: loop.Config,
    demos: Demonstrations,
    first_round: jax.Array,
    state: TrainState,
    settings: Settings,
) -> tuple[TrainState, Metrics, Metrics]:
    agent = make_agent(settings)
    state, metrics = loop.epoch(agent, env, loop_config, demos, first_round, state)
    return _strong(state), metrics, _finite(state.agent)


def _strong(tree: Any) -> Any:
    """Strips weak types, which checkpoints cannot store: a resumed state must be equal."""

    def strip(leaf: jax.Array) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        return jax.lax.convert_element_type(leaf, leaf.dtype)

    return jax.tree.map(strip, tree)


def _finite(agent_state: Any) -> Metrics:
    """Whether each part of an agent's State, such as "value", is finite throughout."""
    finite: Metrics = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(agent_state)[0]:
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            part = jax.tree_util.keystr(path[:1], simple=True) or "agent"
            so_far = finite.get(part, jnp.ones((), bool))
            finite[part] = so_far & jnp.all(jnp.isfinite(leaf))
    return finite


# ------------------------------------------------------------------------------ the host


def _begin(
    program: Program, directory: str | Path | None, report: Report
) -> tuple[TrainState, int, int]:
    """The state to start from, its step and its round."""
    restored = None
    if directory:
        restored = checkpoint.restore_latest(directory, program.template)
    if restored is None:
        return program.init(), 0, 0
    for notice in restored.notices:
        report.say(notice)
    report.say(f"continuing from {restored.path}.")
    return restored.state, restored.step, restored.round


def _due(number: int, every: int | None, last: bool) -> bool:
    return last or (every is not None and number % every == 0)


def _require_finite(
    finite: dict[str, np.ndarray],
    metrics: dict[str, np.ndarray],
    step: int,
    seed_range: tuple[int, int],
    directory: str | Path | None,
) -> None:
    # `params` last: it copies other parts, whose names say more.
    parts = {
        name: finite[name] for name in sorted(finite, key=lambda name: name == "params")
    }
    finite_metrics = {name: np.isfinite(values) for name, values in metrics.items()}
    for where, good in (parts | finite_metrics).items():
        if not np.all(good):
            member = int(np.argmin(good))
            who = f"seed {seed_range[0] + member % seed_range[1]}"
            if good.size > seed_range[1]:
                who += f" with settings {member // seed_range[1] + 1} of the sweep"
            raise UserError(
                f"training of {who} became not finite at step {step} in {where}; "
                f"{checkpoint.newest(directory)}."
            )


def _check(loop_config: loop.Config, config: Config, seed_count: int) -> None:
    check(loop_config, "loop.")
    check(config, "run.")
    if seed_count < 1:
        raise UsageError(f"there must be at least 1 seed, not {seed_count}.")
