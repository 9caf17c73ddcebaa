"""Pages say sizes that are worth a user's time; here they run at sizes that cost nothing.

Only sizes are lowered: names, types, flags, files and order are those of the page.
"""

import dataclasses
import functools
from typing import Any

# Field of a configuration, at any depth, or argument -> its largest value.
MOST = {
    "num_envs": 4,
    "steps": 32,
    "rounds": 1,
    "resets": 4,
    "samples": 16,
    "iterations": 2,
    "hidden": 16,
    "batch": 16,
    "value_batch": 16,
    "member_batch": 16,
    "gradient_steps": 4,
    "discriminator_steps": 4,
    "value_steps": 4,
    "pretrain_steps": 2,
    "bc_steps": 2,
    "updates_per_step": 0.1,
    "evaluation_episodes": 4,
    "episodes": 8,
    "starts": 8,
}
EPOCHS = 2


def shrink(settings: Any) -> Any:
    """An experiment with every size at most as in MOST, and a few epochs in all."""
    small = _lowered(settings)
    total = min(small.run.total_steps, EPOCHS * small.loop.steps_per_epoch)
    return dataclasses.replace(small, run=dataclasses.replace(small.run, total_steps=total))


def install() -> None:
    """From now on this process trains and evaluates at small sizes."""
    from planil_jax import launch
    from planil_jax.evaluation import collect, evaluate

    train, judge, record = launch.launch, evaluate.evaluate, collect.record

    @functools.wraps(train)
    def launch_small(settings, *arguments, **options):
        return train(shrink(settings), *arguments, **options)

    @functools.wraps(judge)
    def evaluate_small(trained, episodes, fields, starts, expert=True):
        episodes, starts = (
            min(value, MOST[name])
            for name, value in {"episodes": episodes, "starts": starts}.items()
        )
        return judge(trained, episodes, fields, starts, expert)

    @functools.wraps(record)
    def record_anyone(
        *arguments, **options
    ):  # a run that learned nothing demonstrates, too
        return record(*arguments, **options | {"unlearned": True})

    launch.launch = launch_small
    collect.record = record_anyone
    evaluate.evaluate = evaluate_small


def _lowered(config: Any) -> Any:
    values = {
        field.name: _least(field.name, getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.init
    }
    return dataclasses.replace(config, **values)


def _least(name: str, value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _lowered(value)
    if name not in MOST or value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, tuple):
        return tuple(min(number, MOST[name]) for number in value)
    return min(value, MOST[name])
