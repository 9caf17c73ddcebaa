"""Trains 32 seeds in one compiled program.

    python examples/many_seeds.py

Prints the return of each, their interquartile mean with its interval, the worst, and where
the run lies. One compilation serves all; 32 seeds of this size cost a few times one. For
settings side by side as well, add `sweep="agent.learning_rate=1e-4,1e-3"`.
"""

import planil_jax as pj


def main() -> None:
    demos = pj.collect("point_mass", episodes=16, actions=True)
    run = pj.train(
        "bc",
        env="point_mass",
        demos=demos,
        seeds=32,
        total_steps=100,  # in the environment, of each seed
        settings={
            "policy.network.hidden": (32, 32),
            "loop.num_envs": 1,
            "loop.steps": 5,
        },
    )
    found = run.evaluate(episodes=8, expert=False)["in_distribution"]
    print("returns:", " ".join(f"{value:.1f}" for value in found["returns"]))
    summary = found["return"]
    print(f"IQM {summary['mean']:.1f} [{summary['low']:.1f}, {summary['high']:.1f}]")
    print(f"worst {min(found['returns']):.1f}")
    print(f"the run lies in {run.directory}")


if __name__ == "__main__":
    main()
