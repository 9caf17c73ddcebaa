"""Measures pictures: frames a second of each environment's scene; or draws the scenes.

    python -m benchmarks.pixels --out=results/benchmarks/pixels_cpu.json
    python -m benchmarks.pixels --picture=docs/images/pixels.png

One row an environment, size and batch:

    compile s   tracing and compiling the function that draws the batch; it makes no
                physics step, but computes the poses of a MuJoCo model's geoms
    frames/s    of all environments of the batch together
    us/frame    the inverse
    cpu us      processor time a frame, summed over all cores; more reliable than the
                others while other programs run
    floor       the share of the time in which the additions, multiplications and roots of
                the program, as it is written, could be done at the speed of this machine,
                and the picture be written to its memory

The option `pixels` adds one frame to a step; a stack of frames also costs a copy.
With --picture nothing is measured: the scenes are drawn side by side, above at 192 pixels
and below at 64, as agents see them.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib import image

from benchmarks import operations as products
from benchmarks import timing
from benchmarks.env import names
from planil_jax import envs
from planil_jax.base import UsageError
from planil_jax.cli import app
from planil_jax.envs import scenes

FLAGS = flags.FLAGS

PACKAGES = ("mujoco", "mujoco-mjx")
ENVIRONMENTS = (
    "pendulum",
    "navigation",
    "playground/CartpoleBalance",
    "playground/CheetahRun",
    "playground/HumanoidWalk",
)
SHOWN = 192  # pixels of a picture's upper row, three times those of its lower
ARITHMETIC = {"add", "sub", "mul", "div", "max", "min", "neg", "abs", "floor", "rem"}
ROOTS = {"sqrt", "rsqrt"}
COLUMNS = f"{'environment':28} size batch compile s   frames/s  us/frame    cpu us  floor"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The setting in which one scene is measured."""

    batch: int
    size: int  # pixels along a side
    seconds: float  # of time
    units: timing.Units


def define_flags() -> None:
    """Not on import: other benchmarks have flags of the same names."""
    flags.DEFINE_list("envs", list(ENVIRONMENTS), "Environments that have a scene.")
    flags.DEFINE_list("sizes", ["64", "128"], "Pixels along a side.")
    flags.DEFINE_list("batch", ["1", "16", "256"], "Pictures drawn in parallel.")
    flags.DEFINE_float("seconds", 2.0, "Time for each program.", lower_bound=0.0)
    flags.DEFINE_float("unit_seconds", 0.5, "Time for each operation.", lower_bound=0.0)
    flags.DEFINE_string("out", None, "File of results to write, .json.")
    flags.DEFINE_string("picture", None, "Only draw the scenes, into this file, .png.")


def main() -> None:
    # A cache would hide the time of compiling in the second run.
    jax.config.update("jax_enable_compilation_cache", False)
    chosen = names(FLAGS.envs)
    if FLAGS.picture is not None:
        timing.writable(FLAGS.picture)
        write_picture(FLAGS.picture, strip(chosen, SHOWN))
        return
    batches = timing.positive_integers("batch", FLAGS.batch)
    sizes = timing.positive_integers("sizes", FLAGS.sizes)
    timing.writable(FLAGS.out)
    timing.say("measuring single operations …")
    units = timing.measure_units(FLAGS.unit_seconds)
    rows = []
    print(COLUMNS)
    for name in chosen:
        sims = starts(name, max(batches))
        for size in sizes:
            for batch in batches:
                setting = Setting(
                    batch=batch, size=size, seconds=FLAGS.seconds, units=units
                )
                rows.append(measure(name, sims, setting))
                print(line(rows[-1]), flush=True)
    measured = timing.Measured(
        work="the pictures of a batch",
        configuration={
            "envs": chosen,
            "sizes": list(sizes),
            "batch": list(batches),
            "seconds": FLAGS.seconds,
        },
        packages=PACKAGES,
    )
    timing.write(FLAGS.out, "pixels", rows, measured)


def starts(name: str, batch: int) -> Any:
    """The innermost states `[B]` in which episodes of an environment begin."""
    timing.say(f"resetting {name} …")
    env = envs.make(name)
    return jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), batch)).sim


def drawing(name: str, size: int) -> scenes.Draw:
    """The function that draws an environment, (sim) -> uint8 [size, size, 3]."""
    title = name.partition(":")[0]
    return scenes.find(title)(title, scenes.View(height=size, width=size))


def measure(name: str, sims: Any, setting: Setting) -> dict[str, Any]:
    """One row; the first `batch` of the states are drawn."""
    draw = drawing(name, setting.size)
    drawn = jax.tree.map(lambda leaf: leaf[: setting.batch], sims)
    call, compile_seconds = timing.compiled(jax.vmap(draw), drawn)
    spent = []

    def counted() -> None:
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)

    seconds = float(np.median(timing.in_turn({name: counted}, setting.seconds)[name]))
    arithmetic, roots = operations(jax.vmap(draw), drawn)
    rays = setting.batch * setting.size**2
    units = setting.units
    floor_seconds = (
        arithmetic * units.arithmetic + roots * units.sqrt + 3 * rays * units.byte
    )
    return {
        "environment": name,
        "size": setting.size,
        "batch": setting.batch,
        "repeats": len(spent),
        "compile_seconds": compile_seconds,
        "frames_per_second": setting.batch / seconds,
        "processor_seconds_per_frame": float(np.median(spent)) / setting.batch,
        "rays_per_second": rays / seconds,
        "operations_per_ray": (arithmetic + roots) / rays,
        "floor_share": floor_seconds / seconds,
    }


def operations(fn: Callable, *args: Any) -> tuple[int, int]:
    """Additions, multiplications and their like, and roots, that a function asks for."""
    counts = {"arithmetic": 0, "roots": 0}
    for eqn, times in equations(jax.make_jaxpr(fn)(*args).jaxpr):
        size = times * sum(out.aval.size for out in eqn.outvars)
        if eqn.primitive.name in ARITHMETIC:
            counts["arithmetic"] += size
        elif eqn.primitive.name in ROOTS:
            counts["roots"] += size
        elif eqn.primitive.name == "dot_general":
            counts["arithmetic"] += times * int(products.of_product(eqn))
    return counts["arithmetic"], counts["roots"]


def equations(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """Every equation of a program, within its loops too, and how often it is run."""
    for eqn in jaxpr.eqns:
        yield eqn, times
        turns = times * eqn.params.get("length", 1)
        for inner in eqn.params.values():
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner, turns)


def strip(chosen: list[str], size: int) -> np.ndarray:
    """The scenes side by side, `[2 size, N size, 3]`; below with a third of the pixels."""
    columns = []
    for seed, name in enumerate(chosen):
        sim = jax.tree.map(lambda leaf, s=seed: leaf[s], starts(name, seed + 1))
        fine, coarse = (jax.jit(drawing(name, s))(sim) for s in (size, size // 3))
        columns.append(jnp.concatenate([fine, jnp.kron(coarse, jnp.ones((3, 3, 1)))]))
    return np.asarray(jnp.concatenate(columns, axis=1), np.uint8)


def write_picture(path: str, picture: np.ndarray) -> None:
    try:
        image.imsave(path, picture)
    except (OSError, ValueError) as error:
        raise UsageError(f"--picture={path} cannot be written: {error}.") from error
    print(f"wrote {path}")


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['environment']:28} {row['size']:4} {row['batch']:5} "
        f"{row['compile_seconds']:9.1f} {row['frames_per_second']:10.0f} "
        f"{1e6 / row['frames_per_second']:9.1f} "
        f"{1e6 * row['processor_seconds_per_frame']:9.1f} "
        f"{row['floor_share']:6.1%}"
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
