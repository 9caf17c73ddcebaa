"""The methods that an experiment can name, one row each."""

from collections.abc import Callable
from typing import Any, NamedTuple

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
    tdmpc2,
)
from planil_jax.base import Agent, Dynamics, EnvSpec


class Method(NamedTuple):
    """How an agent is built."""

    config: Any  # of its algorithm; what an Experiment's `agent` holds by default
    # (spec, dynamics, config, environments, entries) -> agent
    make: Callable[[EnvSpec, Dynamics, Any, int, tuple[int, ...]], Agent]
    imitates: bool = True  # or else learns from the task's reward, without demonstrations
    whole: bool = False  # whether demonstrations must hold whole observations
    interacts: bool = True  # whether it learns from what it does in the environment
    pictures: bool = False  # whether it can learn from an environment that shows pictures
    choices: bool = False  # whether it can act where actions are choices, not continuous
    maps: bool = False  # whether its reports show what it learned of the plane
    # (its config) -> steps of the sequences that it takes from demonstrations
    sequence: Callable[[Any], int] = lambda config: 1
    # (spec, its config, entries) -> the reward that it recovers, a function of acting
    # params, obs, action and next_obs, of one step; None: it recovers none
    reward: Callable[[EnvSpec, Any, tuple[int, ...]], Callable] | None = None


def _adversarial(spec, dynamics, config, environments, entries) -> Agent:
    return adversarial.make(spec, config, entries, dynamics)


def _mpail_reward(spec, config, entries):
    logit, _ = mpail.critic(spec, config, entries)
    return lambda params, obs, action, next_obs: logit(params, obs, next_obs)


def _airl_reward(spec, config, entries):
    reward = adversarial.recovered_reward(spec, config, entries)
    return lambda params, obs, action, next_obs: reward(params, obs)


def _cmil_row(config: cmil.Config) -> Method:
    return Method(
        config,
        lambda spec, dynamics, config, environments, entries: cmil.make(
            spec, config, environments
        ),
        whole=True,
        pictures=True,
        sequence=lambda config: config.length,
    )


def _adversarial_row(form: str, deploy: str = "policy") -> Method:
    return Method(adversarial.Config(form=form, deploy=deploy), _adversarial)


METHODS: dict[str, Method] = {
    "mpail": Method(mpail.Config(), mpail.make, maps=True, reward=_mpail_reward),
    "mpail_om": Method(
        mpail.Config(online=True), mpail.make, maps=True, reward=_mpail_reward
    ),
    "irl_mpc": _adversarial_row("gaifo", "planner"),
    "gail": _adversarial_row("gail"),
    "gaifo": _adversarial_row("gaifo"),
    "airl": _adversarial_row("airl")._replace(
        whole=True,  # asks its policy about them
        reward=_airl_reward,
    ),
    "iqmpc": Method(
        iqmpc.Config(),
        lambda spec, dynamics, config, environments, entries: iqmpc.make(
            spec, config, environments
        ),
        whole=True,
        pictures=True,
        sequence=lambda config: config.core.horizon,
        reward=lambda spec, config, entries: iqmpc.recovered_reward(spec, config),
    ),
    "mpail2": Method(
        mpail2.Config(),
        lambda spec, dynamics, config, environments, entries: mpail2.make(
            spec, config, environments
        ),
        whole=True,
        pictures=True,
        reward=lambda spec, config, entries: mpail2.recovered_reward(spec, config),
    ),
    "mail": Method(
        mail.Config(),
        lambda spec, dynamics, config, environments, entries: mail.make(
            spec, config, environments, dynamics
        ),
        whole=True,
        choices=True,
        reward=lambda spec, config, entries: mail.recovered_reward(spec, config),
    ),
    "cmil": _cmil_row(cmil.Config()),
    "vmail": _cmil_row(cmil.vmail()),
    "bc": Method(
        bc.Config(),
        lambda spec, dynamics, config, environments, entries: bc.make(
            spec, config, entries
        ),
        interacts=False,
        pictures=True,
        choices=True,
    ),
    # Engines: experts are trained with them.
    "ppo": Method(
        ppo.Config(),
        lambda spec, dynamics, config, environments, entries: ppo.make(spec, config),
        imitates=False,
    ),
    "sac": Method(
        sac.Config(),
        lambda spec, dynamics, config, environments, entries: sac.make(
            spec, config, environments
        ),
        imitates=False,
    ),
    "tdmpc2": Method(
        tdmpc2.Config(),
        lambda spec, dynamics, config, environments, entries: tdmpc2.make(
            spec, config, environments
        ),
        imitates=False,
        pictures=True,
    ),
}
