"""The vocabulary: records and things, and the legend of axis letters.

A *record* is a frozen pytree of arrays and holds no function. A *thing* is a NamedTuple of
pure functions closed over a frozen config and holds no array. There is no third kind.

Things are written for one environment, one observation, one seed; `jax.vmap` makes batches
where the call is.

Axis letters, in the order in which axes lead:

    S seeds · B batch · T rollout steps · E environments · N demonstrations · L their length
    K sampled plans · H planning horizon · M ensemble members
    O observation · U action · F features
"""

import difflib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

import jax
from flax import struct

Params: TypeAlias = Any  # a pytree of arrays
Metrics: TypeAlias = dict[str, jax.Array]  # "part/quantity" -> []


class UserError(Exception):
    """One sentence for the user: what is wrong, with the thing named, and the mend."""

    exit_code = 1


class UsageError(UserError):
    """A `UserError` that a different command line would avoid."""

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str], dashes: str = "") -> str:
    """A hint, " Did you mean --seeds?" with its space, or "" where no name is near."""
    near = [dashes + match for match in difflib.get_close_matches(name, list(known), 2)]
    return f" Did you mean {' or '.join(near)}?" if near else ""


def missing_extra(what: str, module: str, extra: str) -> UserError:
    """The error where an optional dependency is not installed.

    Args:
      what: the subject of the sentence: "drawing a figure".
      module: what is missing: "matplotlib".
      extra: the extra of this package that brings it: "report".
    """
    return UserError(
        f'{what} needs {module}, which is not installed: pip install "planil_jax[{extra}]".'
    )


# --------------------------------------------------------------------------- environments


@struct.dataclass
class EnvState:
    """Where one environment is."""

    sim: Any  # the back end's own; privileged: agents read it through a Dynamics alone
    obs: jax.Array  # [O] what an agent may see
    time: jax.Array  # [] int32, control steps since the reset


@struct.dataclass
class Transition:
    """One step, recorded before any reset: `next_obs` truly follows `obs`."""

    obs: jax.Array  # [O]
    action: jax.Array  # [U]
    next_obs: jax.Array  # [O]
    reward: jax.Array  # [] the task's, for reports; an imitator never reads it
    terminal: jax.Array  # [] bool: the task ended here, nothing follows
    truncated: jax.Array  # [] bool: time ran out, something would have followed


class EnvSpec(NamedTuple):
    """Sizes and units of an environment."""

    name: str
    observation_names: tuple[str, ...]  # one an entry of `obs`, with its unit
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    episode_length: int  # control steps until truncation
    control_period: float  # seconds
    terminates: bool = False  # whether episodes can end for good, before their time
    image: tuple[int, int, int] | None = None  # [H, W, C] of `obs`, uint8; None: it is [O]
    # An action is one of U choices, written as a one-hot vector [U] within bounds 0 and 1.
    discrete: bool = False

    @property
    def frame(self) -> tuple[int, int, int] | tuple[()]:
        """`[H, W, 3]` of one of the pictures that are seen together; (): there are none."""
        return (*self.image[:2], 3) if self.image else ()

    @property
    def frames(self) -> int:
        """How many pictures are seen together; 0: none."""
        return self.image[2] // 3 if self.image else 0

    @property
    def observation_size(self) -> int:
        return len(self.observation_names)

    @property
    def action_size(self) -> int:
        return len(self.action_low)

    @property
    def action_form(self) -> str:
        """What an action is, in words, as in "it takes …"."""
        if self.discrete:
            return f"one of {self.action_size} choices"
        return f"{self.action_size} continuous number" + "s" * (self.action_size > 1)


class Dynamics(NamedTuple):
    """What a planner or a policy rolls forward: a model, right or wrong, of a task."""

    init: Callable[[jax.Array], Params]  # (key) -> params
    start: Callable[[Params, EnvState], Any]  # (params, state) -> z
    step: Callable[[Params, Any, jax.Array, jax.Array], Any]  # (params, z, [U], key) -> z
    # (params, z) -> [O], as the task shows it; or [M, O] of M members, over which planners
    # average their scores
    observe: Callable[[Params, Any], jax.Array]
    # (params, obs [O]) -> z, where an observation tells all that the model needs
    recover: Callable[[Params, jax.Array], Any] | None = None


class Subtasks(NamedTuple):
    """Parts of a task that can be done one by one."""

    names: tuple[str, ...]
    done: Callable[[EnvState], jax.Array]  # (state, however wrapped) -> [K] bool


class Environment(NamedTuple):
    """A task: physics, an end, and what its demonstrator and its planner may use."""

    spec: EnvSpec
    reset: Callable[[jax.Array], EnvState]  # (key) -> state
    step: Callable[[EnvState, jax.Array], tuple[EnvState, Transition]]  # (state, [U])
    prior: Dynamics | None = (
        None  # a model of the physics for planners; None: there is none
    )
    # Cost of the scripted demonstrator: (obs, action, next_obs) -> []
    expert_cost: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None
    success: Callable[[jax.Array], jax.Array] | None = None  # (obs [O]) -> [] bool
    # (state) -> action [U] of a scripted demonstrator, where it is more than a cost
    demonstrator: Callable[[EnvState], jax.Array] | None = None
    # (obs [O]) -> state at time 0, where an observation tells all of it
    recover: Callable[[jax.Array], EnvState] | None = None
    subtasks: Subtasks | None = None


class Network(NamedTuple):
    """A function with parameters."""

    init: Callable[[jax.Array], Params]  # (key) -> params
    apply: Callable[..., jax.Array]  # (params, *inputs) -> output


class Task(NamedTuple):
    """What an agent is made for."""

    spec: EnvSpec
    dynamics: Dynamics | None  # what planners roll forward; None: there is no model
    observed: tuple[int, ...]  # indices of the observation entries that demonstrations hold
    num_envs: int  # E of the loop, by which replays are laid out
    # (obs [O]) -> state at time 0, where an observation tells all of it
    recover: Callable[[jax.Array], EnvState] | None

    @classmethod
    def of(
        cls,
        spec: EnvSpec,
        dynamics: Dynamics | None = None,
        observed: tuple[int, ...] | None = None,
        num_envs: int = 1,
        recover: Callable[[jax.Array], EnvState] | None = None,
    ) -> "Task":
        """A task; unless told otherwise demonstrations hold every observation entry."""
        if observed is None:
            observed = tuple(range(spec.observation_size))
        return cls(spec, dynamics, observed, num_envs, recover)

    def require_dynamics(self, who: str) -> Dynamics:
        """The model, for a method that cannot do without.

        Raises:
          UsageError: there is none.
        """
        if self.dynamics is None:
            raise UsageError(
                f"{who} plans through a model, and {self.spec.name} has none: give the "
                "environment a prior, or choose a method that learns its model."
            )
        return self.dynamics


# ------------------------------------------------------------------------------- planning


@struct.dataclass
class Plan:
    """A distribution over the next H actions."""

    mean: jax.Array  # [H, U]
    std: jax.Array  # [H, U]


class Planner(NamedTuple):
    """Climbs a score; does not know what is scored.

    `plan(score_fn, plan, key, temperature, explore[, proposals]) -> (action [U], plan)`,
    where `score_fn` maps actions [H, U] to a score [] (higher is better).
    """

    init: Callable[[], Plan]
    plan: Callable[..., tuple[jax.Array, Plan]]
    # (score_fn, plan, key, temperature[, proposals]) -> last plans [K, H, U], weights [K]
    plan_samples: Callable[..., tuple[jax.Array, jax.Array]]


# ------------------------------------------------------------------------------- learning


@struct.dataclass
class Demonstrations:
    """Episodes of a demonstrator, padded to one length by repeating their last observation.

    Episode n visits `obs[n, : length[n] + 1]`.
    """

    obs: jax.Array  # [N, L + 1, O] float32; an entry that was not recorded is 0
    actions: jax.Array | None  # [N, L, U] float32, or None: observations only
    length: jax.Array  # [N] int32, transitions of each episode
    terminal: jax.Array  # [N] bool: the episode ended for good, rather than by time
    # Observation entries that the demonstrations hold; static: it shapes the program.
    observed: tuple[int, ...] = struct.field(pytree_node=False)


@struct.dataclass
class Fit:
    """Parameters and the state of their optimiser."""

    params: Params
    opt_state: Any


class Needs(NamedTuple):
    """What a method needs and what it can do: its module's `NEEDS`.

    A method whose needs depend on its settings has a function `(config) -> Needs` there.
    """

    demonstrations: bool = True  # it imitates; or else it learns from the task's reward
    actions: bool = False  # demonstrations must hold actions
    full_observations: bool = False  # demonstrations must hold every observation entry
    sequence: int = 1  # steps of the sequences that it samples from demonstrations
    interacts: bool = True  # it learns from what it does in the environment
    pixels: bool = False  # it can learn from an environment that shows pictures
    discrete: bool = False  # it can act where actions are choices
    simulator: bool = False  # acting reads the simulator's state, not observations alone


class Shows(NamedTuple):
    """What there is to look at in a trained agent; None: it has no such thing.

    Every function takes the parameters that act first.
    """

    # (params, obs [..., O], action [..., U], next_obs [..., O]) -> [...]: the reward that
    # was recovered
    reward: Callable[..., jax.Array] | None = None
    value: Callable[..., jax.Array] | None = None  # (params, obs [..., O]) -> [...]
    # (params, carry, state, key) -> (paths [K, H + 1, O], weights [K], mean [H + 1, O]):
    # the last iteration's plans as the model predicts them, and the plan that is their mean
    plans: Callable[..., tuple[jax.Array, jax.Array, jax.Array]] | None = None
    # (params, obs [T, ...], actions [T, U], observed_steps, key) -> four of [T, ...]: what
    # the world model reads, reconstructs, predicts from the first `observed_steps` and the
    # actions alone, and imagines under its policy's own actions
    world_model: Callable[..., tuple[jax.Array, ...]] | None = None


class Agent(NamedTuple):
    """An algorithm. The loop calls it and does not know which it is."""

    init: Callable[[jax.Array], Any]  # (key) -> State; State.params is the part that acts
    carry: Callable[[], Any]  # () -> Carry of a fresh episode: a plan, a belief or ()
    # (params, carry, EnvState, key, explore) -> (action [U], carry)
    act: Callable[[Params, Any, EnvState, jax.Array, bool], tuple[jax.Array, Any]]
    # (State, rollout [T, E], demos, key, round []) -> (State, Metrics)
    update: Callable[..., tuple[Any, Metrics]]


@struct.dataclass
class TrainState:
    """All that one seed's training is, between two epochs."""

    agent: Any  # the agent's State
    env: EnvState  # [E]
    carry: Any  # [E]
    key: jax.Array
