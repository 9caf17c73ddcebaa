"""Brings a robot of one's own: an MJCF model and a few small functions.

    python examples/own_robot.py

A cart on a rail is to come to 0. MPPI demonstrates, planning with the cart's own physics;
then a policy is cloned from what it did. Prints the returns and where the run lies. Most
of the time is compiling. `pj.train(mpail.Config(planner=PLANNER), ...)` instead learns to
plan from observations alone; it compiles for a minute, so raise `total_steps` with it.
"""

import jax
import jax.numpy as jnp

import planil_jax as pj
from planil_jax import mjcf, mppi, scripted

CART = """
<mujoco>
  <option timestep="0.05" integrator="implicitfast" gravity="0 0 0"/>
  <worldbody>
    <body>
      <joint name="rail" type="slide" axis="1 0 0" damping="0.5"/>
      <geom type="box" size="0.1 0.05 0.05" mass="1" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <actuator><motor joint="rail" ctrlrange="-2 2"/></actuator>
</mujoco>
"""
PLANNER = mppi.Config(samples=64, horizon=8)


def make() -> pj.Environment:
    return mjcf.make(
        "cart",
        CART,  # or the path of an .xml file
        lambda data: jnp.concatenate([data.qpos, data.qvel]),
        ("x [m]", "v [m/s]"),
        control_period=0.1,
        episode_length=30,
        reset=lambda key, data: data.replace(qpos=jax.random.uniform(key, (1,), minval=-1)),
        reward=lambda data, action, after: -(after.qpos[0] ** 2),
        expert_cost=lambda obs, action, after: after[0] ** 2 + 0.1 * after[1] ** 2,
        recover=lambda obs: (obs[:1], obs[1:]),  # qpos and qvel of an observation
    )


def main() -> None:
    expert = scripted.Config(planner=PLANNER, temperature=0.02)
    demos = pj.collect(make(), episodes=8, actions=True, expert=expert)
    print("demonstrated returns:", demos.returns.round(2))
    size = {"policy.network.hidden": (32, 32), "loop.num_envs": 1, "loop.steps": 10}
    size |= {"run.evaluation_episodes": 0}  # not while it trains, which compiles faster
    run = pj.train("bc", env=make(), demos=demos, total_steps=200, settings=size)
    print(run.evaluate(episodes=8, expert=False))
    print(f"the run lies in {run.directory}")


if __name__ == "__main__":
    main()
