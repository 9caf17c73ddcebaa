import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from planil_jax.base import TrainState, UsageError, UserError
from planil_jax.training import checkpoint, loop, memory, report, run, seeds


def raw(state):
    """The leaves as numpy, keys as their data, to compare bit for bit."""

    def plain(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.array(jax.random.key_data(leaf) if is_key else leaf)

    return jax.tree.map(plain, state)


def assert_bitwise_equal(left, right):
    names = [path for path, _ in jax.tree_util.tree_flatten_with_path(left)[0]]
    for name, a, b in zip(
        names, jax.tree.leaves(left), jax.tree.leaves(right), strict=True
    ):
        assert a.dtype == b.dtype and a.shape == b.shape, name
        assert a.tobytes() == b.tobytes(), name


def finish(epochs):
    """Runs to the end: the last state, and the metrics of all epochs."""
    reported, state = [], None
    for epoch in epochs:
        reported.append((epoch.step, epoch.metrics))
        state = raw(epoch.state)
    return state, reported


def config(**changes):
    return dataclasses.replace(toy.RUN, **changes)


class KeepingReport(report.Report):
    """Keeps what it is asked to say, and can do something at a step."""

    def __init__(self, at=None, do=None):
        super().__init__(console=False)
        self.said, self.compiled, self.at, self.do = [], [], at, do

    def compiling(self, what):
        self.compiled.append(what)
        return super().compiling(what)

    def say(self, sentence):
        self.said.append(sentence)

    def epoch(self, step, metrics):
        if step == self.at:
            self.do()


# ------------------------------------------------------------------------------ programs


def test_an_epoch_is_traced_and_compiled_once_for_a_whole_run():
    compiled: list[float] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(duration_secs)

    traces: list[int] = []
    epochs = toy.train(config=config(total_steps=24 * 5), traces=traces)
    next(epochs)
    traced = len(traces)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        rest = list(epochs)
    finally:
        jax.monitoring.clear_event_listeners()
    assert len(rest) == 4
    assert len(traces) == traced
    assert compiled == []


@pytest.mark.parametrize("weak", [False, True])
def test_the_state_after_an_epoch_has_the_types_of_the_first(weak):
    agent, env, demos = toy.agent(weak=weak), toy.environment(), toy.demonstrations()
    key = jax.random.key(0)

    def make_agent(settings):
        return agent

    first = jax.eval_shape(lambda k: run._init(make_agent, env, toy.LOOP, k, {}), key)
    zero = jax.ShapeDtypeStruct((), jnp.int32)

    def one_epoch(first_round, state):
        args = (make_agent, env, toy.LOOP, demos, first_round, state, {})
        return run._epoch(*args, jnp.ones((), bool))[0]

    after = jax.eval_shape(one_epoch, zero, first)
    types = [
        [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(state)]
        for state in (first, after)
    ]
    assert types[0] == types[1]
    assert not any(weak for _, _, weak in types[0])


def test_an_epoch_does_not_change_the_weak_types_of_the_toy_s_state():
    agent, env, demos = toy.agent(), toy.environment(), toy.demonstrations()
    first = jax.eval_shape(
        lambda key: loop.init(agent, env, toy.LOOP, key), jax.random.key(0)
    )
    after = jax.eval_shape(
        lambda state: loop.epoch(agent, env, toy.LOOP, demos, jnp.int32(0), state)[0], first
    )
    assert [leaf.weak_type for leaf in jax.tree.leaves(first)] == [
        leaf.weak_type for leaf in jax.tree.leaves(after)
    ]


def test_total_steps_are_rounded_up_to_whole_epochs():
    steps = [epoch.step for epoch in toy.train(config=config(total_steps=25))]
    assert steps == [24, 48]


def test_a_run_does_what_the_loop_does_round_after_round():
    agent, env, demos = toy.agent(), toy.environment(), toy.demonstrations()
    one_epoch = jax.jit(functools.partial(loop.epoch, agent, env, toy.LOOP, demos))
    init = jax.jit(functools.partial(loop.init, agent, env, toy.LOOP))
    state = init(jax.random.key(3))
    for first_round in (0, 2):
        state, _ = one_epoch(jnp.int32(first_round), state)
    ours, _ = finish(toy.train(count=1, first=3, config=config(total_steps=48)))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(raw(state)), strict=True):
        np.testing.assert_allclose(
            a[0].astype(np.float32), b.astype(np.float32), rtol=1e-4, atol=1e-5
        )


# --------------------------------------------------------------------------------- seeds


@pytest.mark.parametrize("seeds_by", ["vmap", "map"])
def test_a_seed_in_a_sweep_equals_that_seed_alone(seeds_by):
    changed = config(seeds_by=seeds_by)
    sweep, epochs = finish(toy.train(count=2, first=6, config=changed))
    alone, epochs_alone = finish(toy.train(count=1, first=7, config=changed))
    second = jax.tree.map(lambda leaf: leaf[1:], sweep)
    if seeds_by == "map":
        assert_bitwise_equal(second, alone)
        for (_, metrics), (_, alone_values) in zip(epochs, epochs_alone, strict=True):
            assert {name: values[1] for name, values in metrics.items()} == {
                name: values[0] for name, values in alone_values.items()
            }
    for a, b in zip(jax.tree.leaves(second), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), rtol=1e-5)


def test_two_seeds_have_different_parameters_and_returns():
    state, epochs = finish(toy.train(count=2, config=config(total_steps=24)))
    assert not np.array_equal(state.agent.params[0], state.agent.params[1])
    assert epochs[0][1]["eval/return"][0] != epochs[0][1]["eval/return"][1]


def test_seeds_on_two_devices_equal_those_on_one(python):
    script = (
        "import numpy, toy\n"
        "for epoch in toy.train(count=2): pass\n"
        "params = epoch.state.agent.params\n"
        "print(len(params.sharding.device_set), numpy.asarray(params).tobytes().hex())"
    )
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    devices, params = python(script, **flags).stdout.split()
    assert devices == "2"
    ours, _ = finish(toy.train(count=2))
    theirs = np.frombuffer(bytes.fromhex(params), np.float32).reshape(2, 2, 2)
    np.testing.assert_allclose(theirs, ours.agent.params, rtol=1e-5)


@pytest.fixture
def python(compile_cache):
    """Runs a script in another process."""

    def run_script(script, **environment):
        return subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parent,
            env=os.environ | {"JAX_PLATFORMS": "cpu"} | compile_cache | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run_script


# ---------------------------------------------------------------------------- evaluation


def test_the_evaluation_return_is_the_sum_of_rewards_over_shared_starts():
    *_, last = toy.train(count=2, config=config(total_steps=24))
    env, params = toy.environment(), np.asarray(last.state.agent.params)
    for seed in range(2):
        returns = []
        for key in jax.random.split(jax.random.key(run.EVALUATION_SEED), 2):
            obs, total = env.reset(jax.random.split(key)[0]).obs, 0.0
            for _ in range(5):
                obs = obs + 0.1 * np.tanh(params[seed] @ obs)
                total -= np.sum(obs**2)
            returns.append(total)
        np.testing.assert_allclose(
            last.metrics["eval/return"][seed], np.mean(returns), rtol=1e-4
        )


def test_evaluation_comes_as_often_as_asked_and_at_the_end():
    evaluated = [
        "eval/return" in epoch.metrics
        for epoch in toy.train(config=config(total_steps=24 * 5, evaluate_every=2))
    ]
    assert evaluated == [False, True, False, True, True]


def test_without_evaluation_episodes_no_evaluation_is_compiled():
    report = KeepingReport()
    for epoch in toy.train(config=config(evaluation_episodes=0), report=report):
        assert "eval/return" not in epoch.metrics
    assert report.compiled == ["training"]


# ---------------------------------------------------------------------------- failures


def test_a_state_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path):
    with pytest.raises(UserError) as error:
        list(toy.train(directory=tmp_path, demos=toy.demonstrations(nan_round=5)))
    assert "seed 0 became not finite at step 72 in value" in str(error.value)
    assert f"{tmp_path}/000000000048 is kept" in str(error.value)
    assert checkpoint.steps(tmp_path) == [24, 48]


def test_the_seed_that_became_not_finite_is_named():
    init = jax.jit(functools.partial(loop.init, toy.agent(), toy.environment(), toy.LOOP))
    keys = [jax.random.key(seed) for seed in range(10, 16)]
    draws = [float(init(key).agent.params[0, 0]) for key in keys]
    low = next(i for i in range(5) if draws[i] < draws[i + 1])
    demos = toy.demonstrations(nan_round=0, nan_above=draws[low])
    keeping = KeepingReport()
    next(toy.train(count=2, first=10 + low, demos=demos, report=keeping))
    assert keeping.said[-1] == (
        f"seed {11 + low} became not finite at step 24 in value and stopped; its "
        "parameters of step 0 are kept and the other goes on."
    )


def test_more_state_than_memory_is_refused_with_what_to_lower(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda device: 100)
    traces: list[int] = []
    with pytest.raises(UserError) as error:
        next(toy.train(count=2, traces=traces))
    assert str(error.value).endswith(
        "(env 72 B), but 100 B are free; lower seeds, loop.num_envs."
    )
    assert len(traces) == 0


def test_a_replay_that_fills_the_memory_is_refused_with_its_capacity(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda device: 100)
    agent = {"params": jnp.zeros(2), "replay": jnp.zeros(30)}
    state = TrainState(agent, jnp.zeros(5), (), jax.random.key(0))
    with pytest.raises(UserError) as error:
        memory.require(state, 0, jax.devices()[:1])
    assert str(error.value).endswith(
        "(agent.replay 120 B), but 100 B are free; lower seeds, "
        "agent.replay.capacity (or agent.capacity), loop.num_envs."
    )


def test_memory_parts_are_counted_by_hand():
    agent, env = toy.agent(), toy.environment()
    state = jax.eval_shape(
        lambda key: loop.init(agent, env, toy.LOOP, key), jax.random.key(0)
    )
    parts = memory.parts(state)
    assert parts["agent.history"] == 7 * 3
    assert parts["agent.value"] == 4 + 3 * 2
    assert parts["agent.params"] == 2 * 2 * 4
    assert parts["env"] == 3 * (2 * 4 + 4)
    assert memory.size(state) == sum(parts.values())


@pytest.mark.parametrize(
    ("changes", "count"), [({"seeds_by": "pmap"}, 1), ({"total_steps": 0}, 1), ({}, 0)]
)
def test_an_impossible_setting_of_the_run_is_refused(changes, count):
    with pytest.raises(UsageError):
        next(toy.train(count=count, config=config(**changes)))


# ------------------------------------------------------------------ stopping and resuming


def test_a_resumed_run_continues_bit_for_bit(tmp_path):
    straight, whole_run = finish(toy.train())
    _, first_half = finish(toy.train(config=config(total_steps=48), directory=tmp_path))
    resumed, second_half = finish(toy.train(directory=tmp_path))
    assert_bitwise_equal(resumed, straight)
    assert [step for step, _ in second_half] == [72, 96]
    for (step, a), (other, b) in zip(whole_run, first_half + second_half, strict=True):
        assert step == other
        assert_bitwise_equal(a, b)


def test_checkpoints_do_not_disturb_the_state(tmp_path):
    without, _ = finish(toy.train(config=config(evaluate_every=None)))
    with_, _ = finish(toy.train(directory=tmp_path))
    assert_bitwise_equal(with_, without)


def test_a_finished_run_is_not_trained_further(tmp_path):
    list(toy.train(directory=tmp_path))
    assert list(toy.train(directory=tmp_path)) == []


KILLED = """
import os, signal, sys, toy
from planil_jax.training import checkpoint, report
real = {victim}
def deadly(*args):
    if "72" in str(args[0]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)
{victim} = deadly
with report.Report({logdir!r}, console=False) as writer:
    for _ in toy.train(directory={logdir!r} + "/checkpoints", report=writer): pass
"""


# Before the arrays of step 72, after them, and before the last rename.
@pytest.mark.parametrize(
    "victim", ["checkpoint._write", "checkpoint._checksums", "os.rename"]
)
def test_a_run_killed_while_saving_resumes_bit_for_bit(python, tmp_path, victim):
    script = KILLED.format(victim=victim, logdir=str(tmp_path))
    died = python(script)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] == 48
    assert list((tmp_path / "checkpoints").glob(".unfinished-*"))
    lines = (tmp_path / report.METRICS_FILE).read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 72

    with report.Report(tmp_path, console=False) as writer:
        resumed, _ = finish(toy.train(directory=tmp_path / "checkpoints", report=writer))
    straight, epochs = finish(toy.train())
    assert_bitwise_equal(resumed, straight)
    steps, values = report.read_metrics(tmp_path)["toy/target"]
    assert steps.tolist() == [24, 48, 72, 96]
    np.testing.assert_array_equal(values, [metrics["toy/target"] for _, metrics in epochs])
    assert not list((tmp_path / "checkpoints").glob(".unfinished-*"))


def test_a_seed_s_key_depends_on_its_number_alone():
    data = jax.random.key_data(seeds.keys(4, 3))
    assert np.array_equal(data[1], jax.random.key_data(jax.random.key(5)))


# ------------------------------------------------------------------------------- settings


def sweep(rates, count=2, config=toy.RUN, **options):
    """Trains the toy with these learning rates side by side."""

    def make_agent(settings):
        return toy.agent(rate=settings["rate"])

    demos, env = toy.demonstrations(), toy.environment()
    settings = {"rate": np.asarray(rates)}
    args = (make_agent, env, toy.LOOP, config, demos, (0, count))
    return run.train(*args, settings=settings, **options)


def test_settings_side_by_side_learn_as_they_do_alone():
    both, epochs = finish(sweep([0.01, 0.2]))
    for point, rate in enumerate((0.01, 0.2)):
        alone, epochs_alone = finish(sweep([rate]))
        mine = slice(2 * point, 2 * point + 2)  # all seeds with the first, then the second
        for many, one in zip(
            jax.tree.leaves(both.agent), jax.tree.leaves(alone.agent), strict=True
        ):
            np.testing.assert_allclose(
                many[mine].astype(np.float32), one.astype(np.float32), rtol=1e-5, atol=1e-5
            )
        np.testing.assert_allclose(
            epochs[-1][1]["eval/return"][mine],
            epochs_alone[-1][1]["eval/return"],
            rtol=1e-4,
        )
    assert not np.allclose(both.agent.params[:2], both.agent.params[2:])


def test_a_setting_that_is_the_default_changes_nothing():
    swept, _ = finish(sweep([0.01]))
    plain, _ = finish(toy.train())
    np.testing.assert_allclose(swept.agent.params, plain.agent.params, rtol=1e-5)


def test_a_sweep_is_resumed_bit_for_bit(tmp_path):
    whole, _ = finish(sweep([0.01, 0.2]))
    list(sweep([0.01, 0.2], config=config(total_steps=48), directory=tmp_path))
    resumed, _ = finish(sweep([0.01, 0.2], directory=tmp_path))
    assert_bitwise_equal(resumed, whole)


def test_a_setting_that_shapes_the_program_is_refused_in_one_sentence():
    def make_agent(settings):
        return toy.agent(weak=bool(settings["rate"] > 0))

    demos, env = toy.demonstrations(), toy.environment()
    epochs = run.train(
        make_agent,
        env,
        toy.LOOP,
        toy.RUN,
        demos,
        (0, 2),
        settings={"rate": np.ones(2)},
    )
    with pytest.raises(UsageError, match="sweep over rate is not possible"):
        next(epochs)
