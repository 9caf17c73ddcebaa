"""MAIL's table: Hopper or Walker2d, 4, 11, 18 and 25 trajectories, beside cloning and GAIL.

    python -m experiments.compare --config=experiments/configs/compare_gym.py:Hopper \\
        --demos=demos/hopper25.npz --logdir=runs/compare_hopper

Demonstrations are of an expert of one's own (`expert.py:gym/Hopper` with --episodes=25), or
of others (`experiments.convert`); with fewer than 25 leave the last rows out. GAIL has as
many interactions as MAIL.

Source: Baram, Anschel & Mannor 2016, arXiv 1612.02179, table 1.
"""

from planil_jax import config
from planil_jax.compose import compose
from planil_jax.evaluation import compare

COUNTS = (4, 11, 18, 25)


def methods(task: str, counts: tuple[int, ...] = COUNTS) -> tuple[str, ...]:
    steps = compose("mail", f"gym/{task}")[0].run.total_steps
    more = {"mail": "", "gail": f",run.total_steps={steps}", "bc": "", "bc/holdout": ""}
    return tuple(
        f"{method}:episodes={count}{settings}"
        for count in counts
        for method, settings in more.items()
    )


def get_config(task: str = "Hopper"):
    plan = compare.Comparison(
        tasks=(f"gym/{task}",),
        methods=methods(task),
        seeds=3,
        expert=False,
        episodes=16,
    )
    return config.to_config_dict(plan)
