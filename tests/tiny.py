"""Every agent at a tiny size on the point mass, and its program, compiled once."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax import registry
from planil_jax.agents import (
    adversarial,
    bc,
    cmil,
    iqmpc,
    mail,
    mpail,
    mpail2,
    ppo,
    sac,
    scripted,
    tdmpc2,
)
from planil_jax.agents.common import latent_planning, sequences
from planil_jax.base import (
    Agent,
    Demonstrations,
    Environment,
    Needs,
    Task,
    TrainState,
)
from planil_jax.envs import point_mass
from planil_jax.models import ensemble, rssm, simulator
from planil_jax.nets import forward, heads, mlp
from planil_jax.nets import latent as latent_nets
from planil_jax.nets import rssm as rssm_nets
from planil_jax.planners import mppi
from planil_jax.training import loop
from tests import conftest

BOUND = 0.3  # of actions; below the planners' noise, so that it is met
LOOP = loop.Config(num_envs=3, steps=6, rounds=2, resets=2)
ENTRIES = (0, 1, 2, 3)
CAPACITY = 20  # of every replay
_PLANNER = mppi.Config(samples=8, horizon=3, iterations=2)
_NETWORK = mlp.Config(hidden=(8, 8))
_POLICY = heads.Config(network=mlp.Config(hidden=(8,), activation="tanh"))
_LATENT: dict[str, Any] = {
    "network": latent_nets.Config(latent=8, encoder=(8,), hidden=(8,), critics=2),
    "planner": dataclasses.replace(
        _PLANNER,
        horizon=2,
        iterations=1,
        sampling="gaussian",
        noise=(3.0,),
        explore="noise",
    ),
    "planning": latent_planning.Planning(temperature=1e-3, proposals=2),
    "replay": sequences.Config(batch=8, capacity=CAPACITY),
    "horizon": 2,
    "seed_steps": 6,
    "updates_per_step": 0.2,
}
_ADAM = latent_planning.Optimizer(learning_rate=1e-2)
_PPO = ppo.Config(
    policy=_POLICY, value=_NETWORK, epochs=2, minibatches=2, learning_rate=1e-2
)


_MPAIL = mpail.Config(
    planner=_PLANNER,
    discriminator=dataclasses.replace(_NETWORK, activation="leaky_relu"),
    value=_NETWORK,
    temperature=1e-3,  # so that single plans act, which meet the bounds
    final_temperature=1e-4,
    discriminator_steps=3,
    value_steps=3,
    batch=16,
    imagination=mpail.Imagination(value_batch=16),
    replay=mpail.ReplayOptions(capacity=CAPACITY),
    model=ensemble.Config(network=forward.Config(network=_NETWORK), members=2),
    model_learning=mpail.ModelLearning(
        gradient_steps=30, member_batch=16, learning_rate=1e-2
    ),
)
_ADVERSARIAL = adversarial.Config(
    learner=_PPO,
    discriminator=_NETWORK,
    gradient_steps=3,
    batch=16,
    learning_rate=1e-2,
    planner=_PLANNER,
    temperature=1e-3,
)
_CMIL = cmil.Config(
    model=rssm.Config(
        network=rssm_nets.Config(deter=8, stoch=4, hidden=8, heads=2),
        vectors=_NETWORK,
    ),
    policy=dataclasses.replace(_POLICY, std_of_state=True),
    discriminator=cmil.DiscriminatorConfig(network=_NETWORK),
    critic=_NETWORK,
    replay=cmil.ReplayConfig(capacity=CAPACITY, length=4, batch=4),
    optimizer=cmil.OptimizerConfig(policy_lr=1e-2),
    horizon=3,
    pretrain_steps=2,
    bc_steps=1,
)
CONFIGS: dict[str, Any] = {
    "mpail": _MPAIL,
    "mpail_om": dataclasses.replace(_MPAIL, learned_model=True),
    "bc": bc.Config(policy=_POLICY, gradient_steps=3, batch=16),
    "gail": dataclasses.replace(_ADVERSARIAL, form="gail"),
    "gaifo": dataclasses.replace(_ADVERSARIAL, form="gaifo"),
    "airl": dataclasses.replace(_ADVERSARIAL, form="airl"),
    "irl_mpc": dataclasses.replace(_ADVERSARIAL, form="gaifo", deploy="planner"),
    "ppo": _PPO,
    "sac": sac.Config(
        policy=dataclasses.replace(_POLICY, std_of_state=True),
        critic=_NETWORK,
        gradient_steps=3,
        batch=16,
        capacity=CAPACITY,
    ),
    "iqmpc": iqmpc.Config(**_LATENT, optimizer=_ADAM),
    "mpail2": mpail2.Config(
        **_LATENT,
        reward=_NETWORK,
        horizon_decay=0.5,
        optimizer=mpail2.Optimizer(learning_rate=1e-2, encoder_lr_scale=0.3),
    ),
    "mail": mail.Config(
        policy=_POLICY,
        discriminator=_NETWORK,
        model=ensemble.Config(network=forward.Config(network=_NETWORK), members=2),
        imagination=mail.ImaginationConfig(batch=4),
        optimizer=mail.OptimizerConfig(policy_lr=1e-2),
        horizon=3,
        updates_per_step=0.2,
        batch=8,
        capacity=CAPACITY,
    ),
    "cmil": _CMIL,
    "vmail": cmil.vmail(_CMIL),
    "tdmpc2": tdmpc2.Config(**_LATENT, optimizer=_ADAM),
}
AGENTS = [*CONFIGS, "scripted"]
# Variants of another method, which they resemble; tests/slow tries the contracts on them.
KIN = {
    "mpail_om": "mpail",
    "mpail2": "mail",
    "vmail": "cmil",
    "tdmpc2": "sac",
    "gail": "gaifo",
}


def needs(name: str) -> Needs:
    """What an agent needs at its tiny settings."""
    return Needs() if name == "scripted" else registry.method(name).needs(CONFIGS[name])


def _agent(name: str, env: Environment) -> Agent:
    if name == "scripted":
        config = scripted.Config(planner=_PLANNER, temperature=1e-3)
        return scripted.make(env, simulator.prior_or_physics(env), config)
    model = simulator.make(env)  # which can start from an observation, so it imagines
    task = Task.of(env.spec, dynamics=model, observed=ENTRIES, num_envs=LOOP.num_envs)
    return registry.method(name).make(task, CONFIGS[name])


class Bench(NamedTuple):
    """An agent and its program, compiled once."""

    agent: Agent
    env: Environment
    demos: Demonstrations
    init: Callable[[jax.Array], TrainState]
    # (demos, first_round, (scale, shift) of the reward, state)
    epoch: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    act: Callable[..., tuple[jax.Array, Any]]  # (params, carry, state, key, explore)
    traces: list[int]  # grows by one whenever `update` is traced


def demonstrations(seed: int, actions: bool) -> Demonstrations:
    """Two random walks; the second is shorter and padded."""
    rng = np.random.default_rng(seed)
    obs = np.cumsum(rng.normal(0, 0.2, (2, 10, len(ENTRIES))), axis=1)
    obs[1, 7:] = obs[1, 6]
    moves = rng.uniform(-BOUND, BOUND, (2, 9, 2))
    return Demonstrations(
        obs=jnp.asarray(obs, jnp.float32),
        actions=jnp.asarray(moves, jnp.float32) if actions else None,
        length=jnp.array([9, 6], jnp.int32),
        terminal=jnp.zeros((2,), bool),
        observed=ENTRIES,
    )


@functools.cache
def bench(name: str) -> Bench:
    env = point_mass.make(episode_length=4, action_bound=BOUND)
    agent, traces = _agent(name, env), []

    def update(*args):
        traces.append(1)
        return agent.update(*args)

    def epoch(demos, first_round, reward, state):
        def step(state, action):
            following, transition = env.step(state, action)
            scale, shift = reward
            changed = scale * transition.reward + shift
            return following, transition.replace(reward=changed)

        counted, changed = agent._replace(update=update), env._replace(step=step)
        return loop.epoch(counted, changed, LOOP, demos, first_round, state)

    init = functools.partial(loop.init, agent, env, LOOP)
    demos = demonstrations(0, needs(name).actions)
    act = jax.jit(agent.act, static_argnums=4)
    return Bench(agent, env, demos, jax.jit(init), jax.jit(epoch), act, traces)


def drop_programs() -> None:
    """Frees the memory of all benches. Those of all agents together would fill it."""
    bench.cache_clear()
    conftest.drop_programs()


def epochs(
    name: str, seed: int = 0, demos=None, scale=1.0, shift=0.0
) -> Iterator[tuple[TrainState, dict[str, jax.Array]]]:
    """The TrainState and the metrics: before the first epoch, then after each."""
    made = bench(name)
    demos = made.demos if demos is None else demos
    reward = (jnp.float32(scale), jnp.float32(shift))
    state, metrics = made.init(jax.random.key(seed)), {}
    for number in itertools.count():
        yield state, metrics
        first_round = jnp.int32(number * LOOP.rounds)
        state, metrics = made.epoch(demos, first_round, reward, state)


def train(name: str, seed: int = 0, demos=None, scale=1.0, shift=0.0, count: int = 2):
    """The TrainState and the metrics after `count` epochs."""
    return next(itertools.islice(epochs(name, seed, demos, scale, shift), count, None))
