"""The first example of the documentation, at a tiny size."""

import numpy as np

import planil_jax as pj

TINY = {
    "planner.samples": 8,
    "planner.horizon": 2,
    "loop.num_envs": 2,
    "loop.steps": 10,
    "loop.rounds": 1,
    "run.evaluation_episodes": 2,
    "discriminator_steps": 2,
    "value_steps": 2,
    "batch": 8,
}

demos = pj.collect("navigation", episodes=2)
run = pj.train(
    "mpail",
    env="navigation",
    demos=demos,
    seeds=2,
    total_steps=40,
    logdir="runs/nav",
    settings=TINY,
)
print(run.evaluate(episodes=2))
run.report("nav.html")
policy = run.policy()
observation = np.zeros(7, np.float32)
action = policy(observation)
assert action.shape == (2,) and np.isfinite(action).all()
run = pj.load("runs/nav")
assert np.array_equal(run.policy()(observation), action)
