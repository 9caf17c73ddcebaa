"""Every agent at a tiny size on the point mass, and its program, compiled once."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax.agents import (
    adversarial,
    bc,
    cmil,
    iqmpc,
    latent,
    mail,
    mpail,
    mpail2,
    ppo,
    sac,
    scripted,
    tdmpc2,
)
from planil_jax.base import Agent, Demonstrations, Environment, TrainState
from planil_jax.envs import point_mass
from planil_jax.models import ensemble, rssm, simulator
from planil_jax.nets import forward, heads, mlp
from planil_jax.nets import latent as latent_nets
from planil_jax.nets import rssm as rssm_nets
from planil_jax.planners import mppi
from planil_jax.training import loop

BOUND = 0.3  # of actions; below the planners' noise, so that it is met
LOOP = loop.Config(environments=3, steps=6, rounds=2, resets=2)
ENTRIES = (0, 1, 2, 3)
_PLANNER = mppi.Config(samples=8, horizon=3, iterations=2)
_NETWORK = mlp.Config(hidden=(8, 8))
_POLICY = heads.Config(network=mlp.Config(hidden=(8,), activation="tanh"))
_LATENT = latent.Config(
    network=latent_nets.Config(latent=8, encoder=(8,), hidden=(8,), critics=2),
    planner=dataclasses.replace(
        _PLANNER,
        horizon=2,
        iterations=1,
        sampling="gaussian",
        noise=(3.0,),
        explore="noise",
    ),
    horizon=2,
    temperature=1e-3,
    proposals=2,
    warm_up=6,
    ratio=0.2,
    batch=8,
    capacity=20,
    rate=1e-2,
)
_PPO = ppo.Config(policy=_POLICY, value=_NETWORK, epochs=2, minibatches=2, rate=1e-2)


def _mpail(online: bool = False):
    config = mpail.Config(
        planner=_PLANNER,
        discriminator=dataclasses.replace(_NETWORK, activation="leaky_relu"),
        value=_NETWORK,
        temperature=1e-3,  # so that single plans act, which meet the bounds
        final_temperature=1e-4,
        discriminator_steps=3,
        value_steps=3,
        batch=16,
        imagined_batch=16,
        history=20,
        online=online,
        model=ensemble.Config(network=forward.Config(network=_NETWORK), members=2),
        model_steps=30,
        model_batch=16,
        model_rate=1e-2,
    )

    def make(env: Environment) -> Agent:
        model = simulator.make(env)  # which can start from an observation, so it imagines
        return mpail.make(env.spec, model, config, LOOP.environments, ENTRIES)

    return make


def _scripted(env: Environment) -> Agent:
    model = simulator.prior_or_physics(env)
    config = scripted.Config(planner=_PLANNER, temperature=1e-3)
    return scripted.make(env, model, config)


def _adversarial(form: str, deploy: str = "policy"):
    config = adversarial.Config(
        form=form,
        learner=_PPO,
        discriminator=_NETWORK,
        steps=3,
        batch=16,
        rate=1e-2,
        deploy=deploy,
        planner=_PLANNER,
        temperature=1e-3,
    )

    def make(env: Environment) -> Agent:
        return adversarial.make(env.spec, config, ENTRIES, simulator.make(env))

    return make


def _bc(env: Environment) -> Agent:
    return bc.make(env.spec, bc.Config(policy=_POLICY, steps=3, batch=16), ENTRIES)


def _ppo(env: Environment) -> Agent:
    return ppo.make(env.spec, _PPO)


def _sac(env: Environment) -> Agent:
    policy = dataclasses.replace(_POLICY, std_of_state=True)
    config = sac.Config(policy=policy, critic=_NETWORK, steps=3, batch=16, capacity=20)
    return sac.make(env.spec, config, LOOP.environments)


def _iqmpc(env: Environment) -> Agent:
    return iqmpc.make(env.spec, iqmpc.Config(core=_LATENT), LOOP.environments)


def _mpail2(env: Environment) -> Agent:
    config = mpail2.Config(core=_LATENT, reward=_NETWORK)
    return mpail2.make(env.spec, config, LOOP.environments)


def _mail(env: Environment) -> Agent:
    config = mail.Config(
        policy=_POLICY,
        discriminator=_NETWORK,
        model=ensemble.Config(network=forward.Config(network=_NETWORK), members=2),
        horizon=3,
        ratio=0.2,
        batch=8,
        policy_batch=4,
        capacity=20,
        policy_rate=1e-2,
    )
    return mail.make(env.spec, config, LOOP.environments)


_CMIL = cmil.Config(
    model=rssm.Config(
        network=rssm_nets.Config(deter=8, stoch=4, hidden=8, heads=2),
        vectors=_NETWORK,
    ),
    policy=dataclasses.replace(_POLICY, std_of_state=True),
    discriminator=_NETWORK,
    critic=_NETWORK,
    horizon=3,
    pretrain=2,
    clone=1,
    length=4,
    batch=4,
    capacity=20,
    policy_rate=1e-2,
)


def _cmil(config: cmil.Config):
    return lambda env: cmil.make(env.spec, config, LOOP.environments)


def _tdmpc2(env: Environment) -> Agent:
    return tdmpc2.make(env.spec, tdmpc2.Config(core=_LATENT), LOOP.environments)


AGENTS: dict[str, Callable[[Environment], Agent]] = {
    "mpail": _mpail(),
    "mpail_om": _mpail(online=True),
    "bc": _bc,
    "gail": _adversarial("gail"),
    "gaifo": _adversarial("gaifo"),
    "airl": _adversarial("airl"),
    "irl_mpc": _adversarial("gaifo", deploy="planner"),
    "ppo": _ppo,
    "sac": _sac,
    "iqmpc": _iqmpc,
    "mpail2": _mpail2,
    "mail": _mail,
    "cmil": _cmil(_CMIL),
    "vmail": _cmil(cmil.vmail(_CMIL)),
    "tdmpc2": _tdmpc2,
    "scripted": _scripted,
}
# Agents on the parts of another, after whom they take; tests/slow tries them.
KIN = {
    "mpail_om": "mpail",
    "mpail2": "mail",
    "vmail": "cmil",
    "tdmpc2": "sac",
    "gail": "gaifo",
}


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
        entries=ENTRIES,
    )


@functools.cache
def bench(name: str) -> Bench:
    env = point_mass.make(episode_length=4, action_bound=BOUND)
    agent, traces = AGENTS[name](env), []

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
    demos = demonstrations(0, agent.needs_actions)
    act = jax.jit(agent.act, static_argnums=4)
    return Bench(agent, env, demos, jax.jit(init), jax.jit(epoch), act, traces)


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
