"""planil_jax: planning-based imitation learning in JAX.

    import planil_jax as pj

    demos = pj.collect("navigation", episodes=4)
    run = pj.train("mpail", env="navigation", demos=demos, seeds=3, logdir="runs/nav")
    print(run.evaluate(episodes=64))

Names are imported when they are first used, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from planil_jax.agents import adversarial as adversarial
    from planil_jax.agents import bc as bc
    from planil_jax.agents import cmil as cmil
    from planil_jax.agents import iqmpc as iqmpc
    from planil_jax.agents import mail as mail
    from planil_jax.agents import mpail as mpail
    from planil_jax.agents import mpail2 as mpail2
    from planil_jax.agents import ppo as ppo
    from planil_jax.agents import sac as sac
    from planil_jax.agents import scripted as scripted
    from planil_jax.agents import tdmpc2 as tdmpc2
    from planil_jax.api import Comparison as Comparison
    from planil_jax.api import Evaluation as Evaluation
    from planil_jax.api import Run as Run
    from planil_jax.api import collect as collect
    from planil_jax.api import compare as compare
    from planil_jax.api import evaluate as evaluate
    from planil_jax.api import load as load
    from planil_jax.api import load_demos as load_demos
    from planil_jax.api import train as train
    from planil_jax.base import Agent as Agent
    from planil_jax.base import Dynamics as Dynamics
    from planil_jax.base import Environment as Environment
    from planil_jax.base import EnvSpec as EnvSpec
    from planil_jax.base import EnvState as EnvState
    from planil_jax.base import Needs as Needs
    from planil_jax.base import Shows as Shows
    from planil_jax.base import Task as Task
    from planil_jax.base import Transition as Transition
    from planil_jax.base import UsageError as UsageError
    from planil_jax.base import UserError as UserError
    from planil_jax.data.dataset import Demos as Demos
    from planil_jax.data.recorder import Recorder as Recorder
    from planil_jax.deploy.policy import Policy as Policy
    from planil_jax.envs import mjcf as mjcf
    from planil_jax.planners import mppi as mppi
    from planil_jax.registry import environments as environments
    from planil_jax.registry import make_env as make_env
    from planil_jax.registry import methods as methods
    from planil_jax.registry import register_agent as register_agent
    from planil_jax.registry import register_env as register_env

_HOMES = {
    "api": (
        "Comparison",
        "compare",
        "Evaluation",
        "Run",
        "collect",
        "evaluate",
        "load",
        "load_demos",
        "train",
    ),
    "base": (
        "Agent",
        "Dynamics",
        "EnvSpec",
        "EnvState",
        "Environment",
        "Needs",
        "Shows",
        "Task",
        "Transition",
        "UsageError",
        "UserError",
    ),
    "data.dataset": ("Demos",),
    "data.recorder": ("Recorder",),
    "deploy.policy": ("Policy",),
    "registry": ("environments", "make_env", "methods", "register_agent", "register_env"),
}
_ATTRIBUTES = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = {
    **{
        name: f"agents.{name}"
        for name in (
            "adversarial",
            "bc",
            "cmil",
            "iqmpc",
            "mail",
            "mpail",
            "mpail2",
            "ppo",
            "sac",
            "scripted",
            "tdmpc2",
        )
    },
    "mjcf": "envs.mjcf",
    "mppi": "planners.mppi",
}

__all__ = ["__version__", *sorted(_ATTRIBUTES), *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        module = importlib.import_module(f"planil_jax.{_MODULES[name]}")
        if hasattr(module, "Config"):
            importlib.import_module("planil_jax.config").document(module.Config)
        return module
    if name in _ATTRIBUTES:
        return getattr(importlib.import_module(f"planil_jax.{_ATTRIBUTES[name]}"), name)
    raise AttributeError(f"module 'planil_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
