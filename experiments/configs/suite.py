"""DeepMind's control suite on Playground, by recipe: `suite.py:CheetahRun/iqmpc`.

    python -m experiments.expert --config=experiments/configs/suite.py:CheetahRun/sac \\
        --logdir=runs/cheetah_expert --out=demos/cheetah100.npz --episodes=100
    python -m experiments.train --config=experiments/configs/suite.py:CheetahRun/iqmpc \\
        --demos=demos/cheetah100.npz --seeds=3 --logdir=runs/cheetah

`iqmpc` is of a size for a GPU, `iqmpc/small` for two cores. HopperHop's expert learns from
a reward that is shaped, since the task's is 0 until a hopper stands, and then demonstrates
the task:

    python -m experiments.train --config=experiments/configs/suite.py:HopperHop/sac \\
        --logdir=runs/hop_expert
    python -m experiments.collect --run=runs/hop_expert --which=best --episodes=100 \\
        --env=playground/HopperHop:action_repeat=2 --actions --out=demos/hop100.npz
"""

from planil_jax import config
from planil_jax.base import UsageError
from planil_jax.compose import compose

REPEATS = {"CheetahRun": 4, "WalkerRun": 2, "HopperHop": 2}


def get_config(what: str = "CheetahRun/iqmpc"):
    task, _, method = what.partition("/")
    if task not in REPEATS:
        raise UsageError(f"suite.py:{what}: name one of {', '.join(REPEATS)}.")
    environment = f"playground/{task}:action_repeat={REPEATS[task]}"
    if (task, method) == ("HopperHop", "sac"):
        environment += ",shaped=True"
    return config.to_config_dict(compose(method or "iqmpc", environment)[0])
