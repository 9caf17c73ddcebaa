import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import image

from benchmarks import pixels as benchmark
from benchmarks import timing
from planil_jax.base import UsageError
from planil_jax.envs import pendulum

# Seconds, chosen so that every part of a floor has another size.
UNITS = timing.Units(
    normal=0.0,
    tan=0.0,
    sin=0.0,
    cos=0.0,
    sqrt=100.0,
    exp=0.0,
    arithmetic=1.0,
    matmul=0.0,
    byte=1e4,
    scan_step=0.0,
)


def test_operations_are_counted_within_loops_as_often_as_they_run():
    def fn(x):  # [5]
        y = x * x + 1.0  # 10
        y = jax.lax.scan(lambda y, _: (jnp.sqrt(y) - x, None), y, length=7)[0]  # 7 (5 + 5)
        return jax.jit(lambda y: jnp.ones((3, 5)) @ y)(y)  # 3 · 5 products and sums

    assert benchmark.operations(fn, jnp.ones(5)) == (10 + 7 * 5 + 2 * 15, 7 * 5)


def test_operations_of_a_batch_are_the_sum_over_its_members():
    def fn(x):
        return jnp.sqrt(x + 1.0)

    assert benchmark.operations(jax.vmap(fn), jnp.ones(6)) == (6, 6)


def test_a_row_holds_rates_that_agree_and_a_floor_computed_by_hand(monkeypatch):
    monkeypatch.setattr(benchmark, "operations", lambda fn, *args: (1000, 10))

    def in_turn(calls, share):
        calls["pendulum"]()
        return {"pendulum": np.array([4.0, 2.0, 90.0])}

    monkeypatch.setattr(timing, "in_turn", in_turn)
    clock = iter([10.0, 16.0])
    monkeypatch.setattr(benchmark.time, "process_time", lambda: next(clock))
    sims = pendulum.Pendulum(jnp.zeros(5), jnp.zeros(5))
    setting = benchmark.Setting(batch=3, size=8, seconds=0.0, units=UNITS)
    row = benchmark.measure("pendulum", sims, setting)
    assert row["frames_per_second"] == pytest.approx(3 / 4)  # the median
    assert row["processor_seconds_per_frame"] == pytest.approx(6 / 3)
    assert row["rays_per_second"] == pytest.approx(3 * 64 / 4)
    assert row["operations_per_ray"] == pytest.approx(1010 / (3 * 64))
    floor = 1000 * 1.0 + 10 * 100.0 + 3 * 3 * 64 * 1e4
    assert row["floor_share"] == pytest.approx(floor / 4)
    assert " 1333333.3 " in benchmark.line(row)  # microseconds a frame


def test_a_ray_is_intersected_with_every_solid():
    """The work that is counted grows with the pixels, not with the batch, and has roots."""
    sims = pendulum.Pendulum(jnp.zeros(4), jnp.zeros(4))
    per_ray = {}
    for batch, size in ((1, 16), (4, 16), (1, 32)):
        some = jax.tree.map(lambda leaf, b=batch: leaf[:b], sims)
        draw = jax.vmap(benchmark.drawing("pendulum", size))
        arithmetic, roots = benchmark.operations(draw, some)
        per_ray[batch, size] = arithmetic / (batch * size**2)
        assert roots >= 2 * batch * size**2  # two solids
    assert per_ray[4, 16] == pytest.approx(per_ray[1, 16], rel=0.1)
    assert per_ray[1, 32] == pytest.approx(per_ray[1, 16], rel=0.1)
    assert 100 < per_ray[1, 32] < 1000


def test_a_picture_shows_the_scenes_side_by_side_above_finer_than_below(tmp_path):
    picture = benchmark.strip(["pendulum", "navigation"], 48)
    assert picture.shape == (96, 96, 3) and picture.dtype == np.uint8
    below = picture[48:].reshape(16, 3, 32, 3, 3)
    assert np.all(below == below[:, :1, :, :1])
    means = [half.mean() for half in (picture[:48, :48], picture[:48, 48:])]
    assert abs(means[0] - means[1]) > 3  # they are not the same scene
    benchmark.write_picture(str(tmp_path / "strip.png"), picture)
    read = image.imread(tmp_path / "strip.png")[..., :3]
    np.testing.assert_allclose(255 * read, picture, atol=0.5)


def test_a_picture_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"--picture=.*cannot be written"):
        benchmark.write_picture(
            str(tmp_path / "a" / "b.png"), np.zeros((2, 2, 3), np.uint8)
        )
