"""A run records the engine of its physics, and is continued and read on that one."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest

import planil_jax as pj
from planil_jax import experiment
from planil_jax.envs import mjcf, registry
from planil_jax.training import rundir

CART = """
<mujoco>
  <option timestep="0.02" gravity="0 0 0"/>
  <worldbody>
    <body><joint name="x" type="slide" axis="1 0 0"/><geom size=".1" mass="1"/></body>
  </worldbody>
  <actuator><motor joint="x" ctrlrange="-1 1"/></actuator>
</mujoco>
"""
LOOP = {
    "loop.num_envs": 2,
    "loop.steps": 5,
    "loop.rounds": 1,
    "run.evaluation_episodes": 0,
}
TINY = LOOP | {"policy.network.hidden": (8,), "gradient_steps": 2, "batch": 4}
on_cpu = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="auto is another engine there"
)


def make(engine: str = "auto", push: float = 1.0):
    return mjcf.make(
        "cart",
        CART,
        lambda data: jnp.concatenate([data.qpos, data.qvel]),
        ("x [m]", "v [m/s]"),
        control_period=0.04,
        episode_length=8,
        reset=lambda key, data: data.replace(qpos=jax.random.normal(key, (1,))),
        reward=lambda data, action, after: -jnp.abs(after.qpos[0]) * push,
        engine=engine,
    )


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))
    pj.register_env("cart", make)


def demos() -> pj.Demos:
    obs = [np.zeros((9, 2), np.float32)] * 2
    return pj.Demos.from_arrays(obs, [np.zeros((8, 1), np.float32)] * 2)


def train(logdir, env="cart", steps=20, resume=False, **settings):
    return pj.train(
        "bc",
        env=env,
        demos=None if resume else demos(),
        total_steps=steps,
        logdir=logdir,
        resume=resume,
        settings=TINY | settings,
        recipe=False,
    )


def config_of(logdir) -> dict:
    return json.loads((pathlib.Path(logdir) / rundir.CONFIG).read_text())


def arrays_of(logdir) -> dict:
    """The arrays of the newest checkpoint."""
    newest = max((logdir / rundir.CHECKPOINTS).iterdir())
    return orbax.checkpoint.PyTreeCheckpointer().restore(newest / "arrays")


def forget(logdir) -> None:
    """Makes the run one of the time before there was a choice."""
    path = pathlib.Path(logdir) / rundir.CONFIG
    saved = config_of(logdir)
    del saved["engine"]
    path.write_text(json.dumps(saved, indent=2) + "\n")


@on_cpu
def test_a_run_in_c_records_it_and_resumed_it_equals_one_that_was_not_cut(tmp_path):
    def learn(logdir, steps, resume=False):
        settings = LOOP | {"batch": 4, "gradient_steps": 2}
        options = {"logdir": logdir, "resume": resume, "settings": settings}
        pj.train("sac", env="cart", total_steps=steps, recipe=False, **options)

    learn(tmp_path / "cut", 20)
    saved = config_of(tmp_path / "cut")
    assert (saved["environment"], saved["engine"]) == ("cart", "c")
    learn(tmp_path / "cut", 40, resume=True)
    learn(tmp_path / "whole", 40)
    cut, whole = (arrays_of(tmp_path / name) for name in ("cut", "whole"))
    assert "env.sim.bits" in cut  # MuJoCo's state is among them
    for name, array in cut.items():
        np.testing.assert_array_equal(array, whole[name], err_msg=name)


@on_cpu
def test_a_run_is_read_and_resumed_on_the_engine_that_it_records(tmp_path):
    train(tmp_path, engine="mjx")
    assert config_of(tmp_path)["engine"] == "mjx"
    found = pj.load(tmp_path)
    assert found.env.engine == "mjx"
    assert found.settings.environment == "cart:engine=mjx"
    again = train(tmp_path, steps=30, resume=True)  # which asks for auto
    assert (again.env.engine, again.step) == ("mjx", 30)


@on_cpu
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_without_a_recorded_engine_is_one_of_mjx(tmp_path):
    train(tmp_path, env="cart:engine=mjx")
    forget(tmp_path)
    assert pj.load(tmp_path).env.engine == "mjx"
    with pytest.raises(pj.UsageError, match="engine is c, but .*engine=mjx"):
        train(tmp_path, env="cart:engine=mjx", resume=True, engine="c")
    assert train(tmp_path, env="cart:engine=mjx", steps=30, resume=True).step == 30
    assert pj.load(tmp_path, env=make("mjx")).env.engine == "mjx"


@on_cpu
def test_an_engine_that_is_not_that_of_the_run_is_refused(tmp_path):
    train(tmp_path)
    with pytest.raises(pj.UsageError, match='engine is "c" there, "mjx" here'):
        train(tmp_path, resume=True, engine="mjx")
    with pytest.raises(pj.UsageError, match="engine is c, but the environment cart was"):
        train(tmp_path, env="cart:engine=mjx", resume=True)
    with pytest.raises(pj.UsageError, match="make it with engine=c"):
        pj.load(tmp_path, env=make("mjx"))


@on_cpu
def test_the_name_of_an_environment_takes_the_engine_only_where_it_is_needed():
    assert experiment.on_engine("cart", "c") == "cart"  # it is what auto chooses
    assert experiment.on_engine("cart", "mjx") == "cart:engine=mjx"
    assert experiment.on_engine("cart:push=2.0", "mjx") == "cart:push=2.0,engine=mjx"
    assert experiment.on_engine("cart:engine=c", "mjx") == "cart:engine=c"
    assert experiment.on_engine("pendulum", "mjx") == "pendulum"  # it has no choice
    assert experiment.on_engine("gym/Hopper", "mjx") == "gym/Hopper:engine=mjx"
    assert experiment.on_engine("object/cart", "mjx") == "object/cart"


@pytest.mark.parametrize("name", ["gym/Hopper", "navigation_mjx", "course_mjx", "kitchen"])
@pytest.mark.parametrize("engine", ["c", "mjx"])
def test_the_engine_is_an_option_of_every_mujoco_environment(name, engine):
    if name.startswith("gym/"):
        pytest.importorskip("gymnasium")
    assert pj.make_env(f"{name}:engine={engine}").engine == engine
    with pytest.raises(pj.UsageError, match="'cc'"):
        pj.make_env(f"{name}:engine=cc")
