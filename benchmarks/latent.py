"""Operations of planning in a latent space, counted manually, and their duration.

Products of weights, of one plan with K samples, P of them from the policy, H steps and I
iterations; h, d, R, π and Q are networks of the paper's sizes, and a first layer of (z, a)
is a product with z and one with a. A product with what all plans share is counted once.

    encoder     h
    proposals   P H (π + d), once
    TD-MPC2     I K [(H - 1) (d + R) + π + 2 Q]  +  I K (d + R without the product with z_0)
    IQ-MPC      I K [(H - 1) (d + π + 2 Q(z, a) and 2 Q(z, ã), whose product with z is one)]
                with d of the first step, and 2 Q of it, without the product with z_0

With several environments, plans are made side by side, or one environment's after another
("in turn", `planning.sequential_vmap`), which keeps those of one in a processor's cache.

Two operations a product; normalisation, activations, samples and weights are not counted.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from planil_jax.agents import iqmpc, tdmpc2
from planil_jax.base import Agent, EnvSpec, EnvState, Task
from planil_jax.losses import two_hot

OBSERVATIONS, ACTIONS = 17, 6  # of CheetahRun
SPEC = EnvSpec(
    "sizes of CheetahRun",
    ("q",) * OBSERVATIONS,
    (-1.0,) * ACTIONS,
    (1.0,) * ACTIONS,
    500,
    0.02,
)
CONFIGS: dict[str, Any] = {
    "iqmpc": (iqmpc, iqmpc.Config()),
    "tdmpc2": (tdmpc2, tdmpc2.Config()),
}
COLUMNS = "planner   envs         GFLOP    ms/plan ms/plan/env  of peak compile s"


def operations(name: str, config: iqmpc.Config | tdmpc2.Config, num_envs: int = 1) -> float:
    """Operations of one plan in every environment."""
    network, planner = config.network, config.planner
    size, hidden, samples = network.latent, network.hidden, planner.samples
    inner = sum(a * b for a, b in zip(hidden, hidden[1:], strict=False))
    first = hidden[0]

    def after(outputs: int) -> int:
        """A network of (z, a) without its product with z."""
        return ACTIONS * first + inner + hidden[-1] * outputs

    with_z = size * first
    policy = with_z + inner + hidden[-1] * 2 * ACTIONS
    step = after(size)
    encoder = (OBSERVATIONS, *network.encoder, size)
    total = sum(a * b for a, b in zip(encoder, encoder[1:], strict=False))
    total += config.planning.proposals * planner.horizon * (policy + with_z + step)
    if name == "tdmpc2":
        reward = after(two_hot.BINS)
        later = (planner.horizon - 1) * (2 * with_z + step + reward)
        end = policy + 2 * (with_z + after(two_hot.BINS))
        per_plan = step + reward + later + end
    else:
        critics = 2 * after(1)
        later = policy + with_z + step + 2 * with_z + 2 * critics
        # Each later step begins with the model's step from the one before; the first of
        # these steps shares its product with z_0, as the first critics do.
        per_plan = critics + (planner.horizon - 1) * later - with_z
    total += planner.iterations * samples * per_plan
    return 2.0 * total * num_envs


def measure(seconds: float, num_envs: Sequence[int]) -> list[dict]:
    """Rows of all planners and numbers of environments.

    They are taken in turn with large products of matrices, whose median speed is the peak
    of `share_of_peak`. Plans side by side are measured last and alone, because they evict
    everything else from a processor's cache.
    """
    multiply, multiplications = timing.products()
    in_turn = [(name, count, count > 1) for name in CONFIGS for count in num_envs]
    alone = [(name, count, False) for name in CONFIGS for count in num_envs if count > 1]
    calls: dict[tuple, timing.Call] = {}
    compile_seconds: dict[tuple, float] = {}
    for name, count, turn in in_turn + alone:
        timing.say(f"compiling {name}, {count} environments …")
        module, config = CONFIGS[name]
        way = name, count, turn
        calls[way], compile_seconds[way] = _call(module, config, count, turn)
    timing.say("measuring …")
    products = "products", 0, False
    first = {products: multiply} | {way: calls[way] for way in in_turn}
    durations = timing.in_turn(first, seconds)
    peak = multiplications / np.median(durations.pop(products))
    durations |= timing.in_turn({way: calls[way] for way in alone}, seconds)
    rows = []
    for (name, count, turn), times in durations.items():
        flops, took = operations(name, CONFIGS[name][1], count), np.median(times)
        row = {
            "planner": name,
            "num_envs": count,
            "in_turn": turn,
            "operations": flops,
            "seconds": float(took),
            "share_of_peak": float(flops / took / peak),
            "peak": float(peak),
            "compile_seconds": compile_seconds[name, count, turn],
            "calls": len(times),
        }
        print(line(row), flush=True)
        rows.append(row)
    return rows


def line(row: dict[str, Any]) -> str:
    took = 1e3 * row["seconds"]
    way = "in turn" if row["in_turn"] else ""
    return (
        f"{row['planner']:9} {row['num_envs']:4} {way:7}"
        f" {row['operations'] / 1e9:5.1f} "
        f"{took:10.1f} {took / row['num_envs']:11.1f} {row['share_of_peak']:8.0%} "
        f"{row['compile_seconds']:9.1f}"
    )


def _call(module, config, num_envs: int, in_turn: bool):
    small = dataclasses.replace(
        config,
        planning=dataclasses.replace(config.planning, sequential_vmap=in_turn),
        replay=dataclasses.replace(config.replay, capacity=config.horizon),
    )
    agent: Agent = module.make(Task.of(SPEC), small)

    def act(params, carry, state, key):
        return agent.act(params, carry, state, key, False)

    params = jax.jit(lambda key: agent.init(key).params)(jax.random.key(0))
    carry = jax.tree.map(lambda leaf: jnp.stack([leaf] * num_envs), agent.carry())
    obs = jax.random.normal(jax.random.key(1), (num_envs, OBSERVATIONS))
    states = EnvState((), obs, jnp.zeros((num_envs,), jnp.int32))
    keys = jax.random.split(jax.random.key(2), num_envs)
    return timing.compiled(jax.vmap(act, (None, 0, 0, 0)), params, carry, states, keys)
