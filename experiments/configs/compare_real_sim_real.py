"""Real-Sim-Real: one drive of a "real" car, learned in simulation, driven on the real car.

The real car is heavier, slides more, steers less and later, obeys a tenth of a second late
and sees with noise. Its one demonstration tells position and body velocity alone. It is put
down by hand, within 0.1 m and 0.1 rad of the start; the simulated one within 0.5 and 0.5.
"""

from planil_jax import config
from planil_jax.evaluation import compare, learning

REAL = (
    "course_mjx:mass=1.3,friction=0.7,steering_gain=0.44,steering_lag=0.15,"
    "drive_lag=0.2,action_delay=1,observation_noise=0.02,box=0.2"
)


def get_config():
    return config.to_config_dict(
        compare.Comparison(
            tasks=("course",),
            methods=("mpail", "irl_mpc", "gaifo"),
            seeds=3,
            demonstrations=1,
            demonstrate=REAL,
            observed=(0, 1, 4, 5),
            actions=False,
            deploy=REAL,
            expert=False,  # what counts is the distance to the drive that was demonstrated
            episodes=16,
            tuned=learning.Tuning(
                trials=10,
                settings="of MPAIL alone; its rivals have their settings of navigation",
                on="this task, the same demonstration, other seeds",
            ),
        )
    )
