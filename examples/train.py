"""Trains an imitator from demonstrations, and says how well it does.

    python examples/train.py

Clones a scripted demonstrator that pushes a point to the origin, two seeds side by side.
Prints each seed's return beside the demonstrator's and its share of it, and where the run
lies. Takes seconds; raise `total_steps`, `seeds` and `episodes` for a result, and name
another method and environment: `planil methods` and `planil envs` list them.
"""

import planil_jax as pj


def main() -> None:
    demos = pj.collect("point_mass", episodes=16, actions=True)
    run = pj.train(
        "bc",
        env="point_mass",
        demos=demos,
        seeds=2,
        total_steps=1_000,  # steps in the environment, of each seed
        settings={"policy.network.hidden": (32, 32), "loop.num_envs": 2, "loop.steps": 50},
    )
    print(run.evaluate(episodes=16))
    print(f"the run lies in {run.directory}")


if __name__ == "__main__":
    main()
