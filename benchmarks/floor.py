"""A lower bound of the time to compute a plan: its operations, counted manually.

Every operation of the equations is counted once. Nothing is copied or computed twice, all
memory is cache, and all cores are always busy. The costs of single operations are measured
on this machine in the same run (`timing.Units`).

Of one rollout step of one sample, with U = 2 actions:

    random numbers   U / 2: half are mirrored
    sampling         U (σ ε, + drift, 2 to clip, sum, + mean, 2 to clip)              = 8 U
    car              v, δ, v tan δ, / L, ψ + ω dt: 6;  x and y: 3 each                = 12
    tan, cos, sin    1 each
    task cost        distance: 6 and a root;  10 |v - 2|: 3;  sums: 2                 = 11
    learned cost     the discriminator: its products, and 3 a unit (bias, activation)
    mean             U (w a, sum)                                                     = 2 U

and of one sample: the exponential of its weight and, where costs are learned, the value
network and the discriminator of the last state with itself. Memory: plans are written once
and read twice; scores written and read once.
"""

from dataclasses import dataclass

from benchmarks.timing import Units

ACTIONS, OBSERVATIONS = 2, 7


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One setting of the benchmark."""

    cost: str  # "task" or "learned"
    samples: int
    horizon: int
    num_envs: int
    iterations: int

    @property
    def rollout_steps(self) -> int:
        return self.samples * self.horizon * self.num_envs * self.iterations


def floor(cell: Cell, hidden: tuple[int, ...], units: Units) -> dict[str, float]:
    """Seconds by kind of operation, and their sum, of one plan in every environment.

    Args:
      cell: sizes of the plan, and its cost.
      hidden: units of the hidden layers of both networks.
      units: seconds of single operations.
    """
    steps = cell.rollout_steps
    samples = steps // cell.horizon
    per_step = 8 * ACTIONS + 12 + 2 * ACTIONS + (11 if cell.cost == "task" else 2)
    seconds = {
        "random": steps * ACTIONS / 2 * units.normal,
        "transcendental": steps * (units.tan + units.cos + units.sin) + samples * units.exp,
        "arithmetic": steps * per_step * units.arithmetic,
        "memory": 4 * (3 * steps * ACTIONS + 2 * samples) * units.byte,
        "scan": cell.horizon * cell.iterations * units.scan_step,
        "matmul": 0.0,
    }
    if cell.cost == "task":
        seconds["transcendental"] += steps * units.sqrt
    else:
        discriminator_calls, value_calls = steps + samples, samples
        products = discriminator_calls * _products(2 * OBSERVATIONS, hidden)
        products += value_calls * _products(OBSERVATIONS, hidden)
        seconds["matmul"] = 2 * products * units.matmul
        outputs = sum(hidden) * (discriminator_calls + value_calls)
        seconds["arithmetic"] += 3 * outputs * units.arithmetic
    return seconds | {"total": sum(seconds.values())}


def _products(inputs: int, hidden: tuple[int, ...]) -> int:
    """Multiplications of weights in a perceptron with one output."""
    sizes = (inputs, *hidden, 1)
    return sum(rows * columns for rows, columns in zip(sizes[:-1], sizes[1:], strict=True))
