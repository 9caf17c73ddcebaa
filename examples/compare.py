"""Compares two methods on the same demonstrations, from the same starts.

    python examples/compare.py

`bc` clones the demonstrated actions; `gaifo` sees observations alone, and learns by trying.
Prints a table and where the runs lie. At these sizes gaifo has only begun: raise its
`run.total_steps`, and `seeds` and `episodes`, before you read the table as a result.
"""

import planil_jax as pj

LOGDIR = "runs/compare_bc_gaifo"


def main() -> None:
    demos = pj.collect("point_mass", episodes=16, actions=True)
    found = pj.compare(
        ["bc", "gaifo"],
        "point_mass",
        demos=demos,
        seeds=2,
        episodes=16,
        logdir=LOGDIR,
        settings={
            "bc": {"loop.num_envs": 2, "loop.steps": 50, "run.total_steps": 1_000},
            "gaifo": {"loop.num_envs": 8, "loop.steps": 50, "run.total_steps": 2_000},
        },
    )
    print(found)
    print(f"the runs lie in {LOGDIR}")


if __name__ == "__main__":
    main()
