"""Loads a trained run and lets its policy drive, as a robot's control loop would.

    python examples/load_and_act.py [runs/bc_point_mass]

Without an argument it trains a small run first. Prints where the point is once a second;
it should come near 0. `sense` and `actuate` stand for the robot: observations and actions
are plain numpy. Replace them by your drivers, and sleep until the control period is over.
"""

import sys
import time
from pathlib import Path

import numpy as np

import planil_jax as pj


class Point:
    """A point in a plane that is pushed about; here is where a robot would be."""

    def __init__(self, period: float):
        self.position, self.velocity = np.array([0.8, -0.6]), np.zeros(2)
        self.period = period

    def sense(self) -> np.ndarray:
        return np.concatenate([self.position, self.velocity])

    def actuate(self, action: np.ndarray) -> None:
        self.velocity += self.period * action
        self.position += self.period * self.velocity


def trained() -> Path:
    demos = pj.collect("point_mass", episodes=16, actions=True)
    size = {"policy.network.hidden": (32, 32), "loop.num_envs": 2, "loop.steps": 50}
    run = pj.train("bc", "point_mass", demos=demos, total_steps=1_000, settings=size)
    return run.directory


def main() -> None:
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else trained()
    policy = pj.load(directory).policy()
    robot = Point(policy.spec.control_period)
    policy.reset()  # where an episode starts
    policy(robot.sense())  # the first call compiles
    slowest = 0.0  # seconds
    for step in range(50):
        began = time.perf_counter()
        robot.actuate(policy(robot.sense()))
        slowest = max(slowest, time.perf_counter() - began)
        if step % 10 == 9:
            print(f"step {step + 1}: at {robot.position.round(2)} m")
    print(f"the slowest step took {1e3 * slowest:.1f} ms")
    print(f"the run lies in {directory}")


if __name__ == "__main__":
    main()
