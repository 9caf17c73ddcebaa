"""Runs: all seeds in one compiled program an epoch, evaluated, checkpointed and reported.

    seed i of a run is jax.random.key(first + i), so that it equals that seed alone
    state [S] = over seeds: loop.init
    each epoch:  state, metrics = over seeds: loop.epoch(demos, first_round, state)
                 members that are not finite stop;  evaluate;  report;  checkpoint;  yield

"Over seeds" is `vmap`, or `lax.map`, which is slower and equals a single seed bit for bit.
Where there are several devices and they divide the seeds, each takes its share of them.

Settings that are numbers, such as learning rates, can be tried side by side as well. Then
each member's agent is made inside the program, from its settings. The members S of the run
are all seeds with the first settings, all seeds with the second, and so on.

A member of which anything is not finite after an epoch stops alone. The parameters with
which it began that epoch act from then on; the rest of its state means nothing and is not
read. Its metrics are nan.
"""

import dataclasses
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
    metrics: dict[str, np.ndarray]  # [S] each; nan of members that stopped


class Program(NamedTuple):
    """The compiled functions of a run, and the shapes of its state."""

    members: int  # S
    template: TrainState  # [S] of ShapeDtypeStruct
    init: Callable[[], TrainState]
    # (first_round [], state, which is donated, running [S]) -> state, metrics, finite
    epoch: Callable[[np.int32, TrainState, np.ndarray], tuple[TrainState, Metrics, Metrics]]
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
      UserError: no member is finite any more, memory or the disk does not suffice, the
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
    group = _Members(program.members, seed_range)
    state, step, round_ = _begin(program, group, directory, report)
    report.start(step, config.total_steps)
    while step < config.total_steps:
        lost = f"what came after the last checkpoint is lost; {again}"
        with signals.patient(lost) as hearing:
            running = group.running
            state, metrics, finite = program.epoch(np.int32(round_), state, running)
            step, round_ = step + epoch_steps, round_ + loop_config.rounds
            metrics, finite = jax.device_get((metrics, finite))
            group.stop(finite, step, epoch_steps, directory, report)
            group.tell_invalid(metrics, step, report)
            number, last = step // epoch_steps, step >= config.total_steps
            score = None
            if program.evaluate and _due(number, config.evaluate_every, last):
                returns = np.asarray(program.evaluate(state.agent.params))
                metrics["eval/return"] = np.where(group.running, returns, np.nan)
                score = _mean_of_finite(metrics["eval/return"])
            report.epoch(step, metrics)
            stop, place = hearing.caught[:1], None  # the number of a signal, or none
            if directory and (stop or _due(number, config.checkpoint_every, last)):
                place = checkpoint.save(
                    directory,
                    state,
                    step=step,
                    round_=round_,
                    score=score,
                    stopped=group.stopped,
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

    An epoch takes the members that still run, see above.

    Raises:
      UserError: there is not so much memory, or a setting decides the program's shape.
    """
    _check(loop_config, config, seed_range[1])
    make_agent = _constant(agent) if isinstance(agent, Agent) else agent
    keys, values = members(seed_range, settings or {})
    layout = seeds.lay_out(keys.shape[0])
    over_seeds = functools.partial(seeds.over, seeds_by=config.seeds_by, mesh=layout.mesh)
    init = over_seeds(functools.partial(_init, make_agent, env, loop_config), mapped=2)
    train_epoch = over_seeds(
        functools.partial(_epoch, make_agent, env, loop_config), mapped=3
    )
    evaluate = over_seeds(functools.partial(_evaluate, make_agent, env), mapped=2)
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
        running = jax.ShapeDtypeStruct(keys.shape, jnp.bool_, sharding=layout.per_seed)
        training = _shaped_by_none(
            settings, lambda: jitted.lower(demos, first_round, template, values, running)
        ).compile()
    analysis = training.memory_analysis()
    temporary = analysis.temp_size_in_bytes if analysis else 0
    report.say(f"{memory.require(template, temporary, layout.devices)}.")
    evaluation = None
    if config.evaluation_episodes:
        with report.compiling("evaluation"):
            lowered = jax.jit(evaluate).lower(starts, template.agent.params, values)
            evaluation = lowered.compile()

    def epoch(first_round: np.int32, state: TrainState, running: np.ndarray):
        placed = jax.device_put(running, layout.per_seed)
        return training(demos, first_round, state, values, placed)

    return Program(
        members=keys.shape[0],
        template=template,
        init=lambda: jax.jit(init, out_shardings=layout.per_seed)(keys, values),
        epoch=epoch,
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
    """The mean over the keys `[B]` of the return of one episode each, `[]`; nan where one
    is not known, see `loop.returns`."""
    return jnp.mean(loop.returns(*loop.evaluate(agent, env, params, keys)))


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
    running: jax.Array,
) -> tuple[TrainState, Metrics, Metrics]:
    """An epoch of one member, and which of its parts are finite; see the top of this file.

    Args:
      running: `[]` bool, whether it has not stopped before.
    """
    agent = make_agent(settings)
    after, metrics = loop.epoch(agent, env, loop_config, demos, first_round, state)
    finite = _finite(after, metrics)
    good = running & functools.reduce(jnp.logical_and, finite.values())
    params = jax.tree.map(
        lambda new, old: jnp.where(good, new, old), after.agent.params, state.agent.params
    )
    acting = dataclasses.replace(after.agent, params=params)
    metrics = jax.tree.map(lambda value: jnp.where(good, value, jnp.nan), metrics)
    return _strong(dataclasses.replace(after, agent=acting)), metrics, finite


def _strong(tree: Any) -> Any:
    """Strips weak types, which checkpoints cannot store: a resumed state must be equal."""

    def strip(leaf: jax.Array) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        return jax.lax.convert_element_type(leaf, leaf.dtype)

    return jax.tree.map(strip, tree)


def _finite(state: TrainState, metrics: Metrics) -> Metrics:
    """Whether each part of a member is finite throughout, `[]` bool each.

    The parts are those of the agent's State, such as "value", then "env", "carry" and each
    metric but the task's reward, which may be unknown.
    """
    finite: Metrics = {}

    def note(part: str, good: jax.Array) -> None:
        finite[part] = finite.get(part, jnp.ones((), bool)) & good

    for path, leaf in jax.tree_util.tree_flatten_with_path(state.agent)[0]:
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            part = jax.tree_util.keystr(path[:1], simple=True) or "agent"
            note(part, jnp.all(jnp.isfinite(leaf)))
    # The loop restarts what becomes not finite in an environment, and says where nothing
    # else was left. Its state may hold entries that are infinite from the start.
    note("env", jnp.all(jnp.isfinite(state.env.obs)))
    note("env", jnp.isfinite(metrics["train/invalid_steps"]))
    for leaf in jax.tree.leaves(state.carry):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            note("carry", jnp.all(jnp.isfinite(leaf)))
    for name, value in metrics.items():
        if name not in ("train/reward", "train/invalid_steps"):
            note(name, jnp.isfinite(value))
    # `params` last: it copies other parts, whose names say more.
    return dict(sorted(finite.items(), key=lambda part: part[0] == "params"))


# ------------------------------------------------------------------------------ the host


class _Members:
    """The members S of a run: which still run, and what is said of the others."""

    def __init__(self, count: int, seed_range: tuple[int, int]):
        self.stopped: tuple[checkpoint.Stopped, ...] = ()
        self._count, self._seeds = count, seed_range
        self._told_invalid = False

    @property
    def running(self) -> np.ndarray:
        """`[S]` bool: which members have not stopped."""
        running = np.ones((self._count,), bool)
        running[[stopped.member for stopped in self.stopped]] = False
        return running

    def resume(self, stopped: tuple[checkpoint.Stopped, ...], report: Report) -> None:
        """Members that stopped before the run did stay so."""
        self.stopped = stopped
        for one in stopped:
            report.say(
                f"{self._name(one.member)} became not finite at step {one.step} in "
                f"{one.part} and stays stopped; its parameters are those of step "
                f"{one.kept}."
            )

    def stop(
        self,
        finite: dict[str, np.ndarray],
        step: int,
        epoch_steps: int,
        directory: str | Path | None,
        report: Report,
    ) -> None:
        """Stops the members that are not finite after the epoch that ended at `step`.

        Args:
          finite: whether each part is, `[S]`.

        Raises:
          UserError: none is left.
        """
        good = np.all(list(finite.values()), axis=0)  # [S]
        failed = np.flatnonzero(self.running & ~good).tolist()
        if not failed:
            return
        found = []
        for member in failed:
            part = next(name for name, values in finite.items() if not values[member])
            kept = step - epoch_steps
            found.append(checkpoint.Stopped(member, step, part, kept))
        self.stopped += tuple(found)
        left = int(self.running.sum())
        if not left:
            last = f", the last of {self._count} members" if self._count > 1 else ""
            raise UserError(
                f"training of {self._name(failed[0])} became not finite at step {step} in "
                f"{found[0].part}{last}; {checkpoint.newest(directory)}."
            )
        rest = f"the other {left} go on" if left > 1 else "the other goes on"
        for one in found:
            report.say(
                f"{self._name(one.member)} became not finite at step {step} in {one.part} "
                f"and stopped; its parameters of step {one.kept} are kept and {rest}."
            )

    def tell_invalid(
        self, metrics: dict[str, np.ndarray], step: int, report: Report
    ) -> None:
        """Says once that steps were not finite; metrics count them on."""
        counts = np.nan_to_num(metrics["train/invalid_steps"]).astype(int)  # [S]
        if self._told_invalid or not counts.any():
            return
        self._told_invalid = True
        most = int(np.argmax(counts))
        report.say(
            f"{counts.sum()} of the steps before step {step} became not finite, "
            f"{counts[most]} of them of {self._name(most)}: each ends its episode and is "
            "not learned from; train/invalid_steps goes on counting."
        )

    def _name(self, member: int) -> str:
        first, seeds = self._seeds
        name = f"seed {first + member % seeds}"
        if self._count > seeds:
            name += f" with settings {member // seeds + 1} of the sweep"
        return name


def _mean_of_finite(values: np.ndarray) -> float | None:
    """The mean of what is finite; None: nothing is."""
    finite = values[np.isfinite(values)]
    return float(np.mean(finite)) if finite.size else None


def _begin(
    program: Program, group: _Members, directory: str | Path | None, report: Report
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
    group.resume(restored.stopped, report)
    return restored.state, restored.step, restored.round


def _due(number: int, every: int | None, last: bool) -> bool:
    return last or (every is not None and number % every == 0)


def _check(loop_config: loop.Config, config: Config, seed_count: int) -> None:
    check(loop_config, "loop.")
    check(config, "run.")
    if seed_count < 1:
        raise UsageError(f"there must be at least 1 seed, not {seed_count}.")
