"""The vocabulary: states, batches and bundles, and the legend of the axis letters.

A *state* or a *batch* is a pytree dataclass: a frozen `flax.struct.dataclass` of arrays
that holds no function. A *bundle* is a NamedTuple of pure functions, closed over a frozen
config, that holds no array. There is no third kind.

Every function of a bundle is written for one environment, one observation and one seed.
Batches are made by `jax.vmap` at the call. The signature of each function is a Protocol
below, with its Args and Returns; arguments are passed by position.

Axis letters, in the order in which axes lead:

    S seeds · B batch · T rollout steps · E environments · N demonstrations · L their length
    K sampled plans · H planning horizon · M ensemble members
    O observation · U action · F features
"""

import difflib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, TypeAlias

from flax import struct
from jax import Array

Params: TypeAlias = Any  # a pytree of arrays
Metrics: TypeAlias = dict[str, Array]  # "part/quantity" -> []


class UserError(Exception):
    """One sentence for the user: it names what is wrong and how to mend it."""

    exit_code = 1


class UsageError(UserError):
    """A `UserError` that other arguments would avoid."""

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str], dashes: str = "") -> str:
    """A hint such as " Did you mean --seeds?", or "" if no known name is similar."""
    near = [dashes + match for match in difflib.get_close_matches(name, list(known), 2)]
    return f" Did you mean {' or '.join(near)}?" if near else ""


def printable(text: str, longest: int = 80) -> str:
    """A text that came from a file, as a message shows it: escaped and shortened."""
    shown = text[: longest + 1]
    shown = shown if shown.isprintable() else ascii(shown)[1:-1]
    return shown if len(shown) <= longest else f"{shown[:longest]}…"


def missing_extra(what: str, module: str, extra: str) -> UserError:
    """The error where an optional dependency is not installed.

    Args:
      what: the subject of the sentence: "drawing a figure".
      module: the missing module: "matplotlib".
      extra: the extra of this package that brings it: "report".
    """
    return UserError(
        f'{what} needs {module}, which is not installed: pip install "planil_jax[{extra}]".'
    )


# --------------------------------------------------------------------------- environments


@struct.dataclass
class EnvState:
    """The state of one environment."""

    sim: Any  # the simulator's state; privileged: agents read it through a Dynamics alone
    obs: Array  # [O] what an agent may see; [H, W, C] uint8 of an image environment
    time: Array  # [] int32, control steps since the reset


@struct.dataclass
class Transition:
    """One step, recorded before any reset: `next_obs` is the true successor of `obs`."""

    obs: Array  # [O]
    action: Array  # [U]
    next_obs: Array  # [O]
    reward: Array  # [] the task's reward, for reports; no imitator reads it
    terminal: Array  # [] bool: the task ended here; there is no next state
    truncated: Array  # [] bool: the time limit ended the episode; the task goes on
    # [] bool, written by the loop: False where the step was not finite, so that nothing
    # learns from it. None: every step is valid.
    valid: Array | None = None


class EnvSpec(NamedTuple):
    """Sizes and units of an environment."""

    name: str
    observation_names: tuple[str, ...]  # a name with its unit for each entry of `obs`
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    episode_length: int  # control steps until truncation
    control_period: float  # seconds
    terminates: bool = False  # whether episodes can end before their time limit
    image: tuple[int, int, int] | None = None  # [H, W, C] of `obs`, uint8; None: it is [O]
    # An action is one of U choices, written as a one-hot vector [U] within bounds 0 and 1.
    discrete: bool = False

    @property
    def frame(self) -> tuple[int, int, int] | tuple[()]:
        """Shape `[H, W, 3]` of one frame of the stack in `obs`; () without images."""
        return (*self.image[:2], 3) if self.image else ()

    @property
    def frames(self) -> int:
        """The number of frames that are stacked in `obs`; 0 without images."""
        return self.image[2] // 3 if self.image else 0

    @property
    def observation_size(self) -> int:
        """O, the number of entries of `obs`; 0 with images."""
        return len(self.observation_names)

    @property
    def action_size(self) -> int:
        """U, the number of entries of an action."""
        return len(self.action_low)

    @property
    def action_form(self) -> str:
        """What an action is, in words that complete the sentence "it takes …"."""
        if self.discrete:
            return f"one of {self.action_size} choices"
        return f"{self.action_size} continuous number" + "s" * (self.action_size > 1)


class InitFn(Protocol):
    def __call__(self, key: Array, /) -> Params:
        """Draws new parameters from a key. A fixed model returns ()."""


class StartFn(Protocol):
    def __call__(self, params: Params, state: EnvState, /) -> Any:
        """The model's state z for a state of the environment."""


class ModelStepFn(Protocol):
    def __call__(self, params: Params, z: Any, action: Array, key: Array, /) -> Any:
        """The model's state after one control step under `action` `[U]`."""


class ObserveFn(Protocol):
    def __call__(self, params: Params, z: Any, /) -> Array:
        """The observation of z: `[O]`, in the units of the environment.

        A model of M members returns `[M, O]`; planners average their scores over M.
        """


class ModelRecoverFn(Protocol):
    def __call__(self, params: Params, obs: Array, /) -> Any:
        """The model's state z for an observation `[O]` alone."""


class ModelTerminalFn(Protocol):
    def __call__(self, params: Params, z: Any, action: Array, next_z: Any, /) -> Any:
        """The probability [] in [0, 1] that the step from z to `next_z` ends the task."""


class Dynamics(NamedTuple):
    """A model of a task, right or wrong, that a planner or a policy rolls forward."""

    init: InitFn
    start: StartFn
    step: ModelStepFn
    observe: ObserveFn
    recover: ModelRecoverFn | None = None  # None: an observation does not determine z
    # None: the model knows no ends. No planner reads it yet.
    terminal: ModelTerminalFn | None = None


class Subtasks(NamedTuple):
    """Parts of a task that can be done one by one."""

    names: tuple[str, ...]
    done: Callable[[EnvState], Array]  # (state, wrapped or not) -> [len(names)] bool


class ResetFn(Protocol):
    def __call__(self, key: Array, /) -> EnvState:
        """Draws the first state of an episode, at time 0."""


class StepFn(Protocol):
    def __call__(self, state: EnvState, action: Array, /) -> tuple[EnvState, Transition]:
        """The next state and the transition to it. A step never resets by itself.

        Args:
          state: before the step.
          action: `[U]`; entries beyond their bounds act as the bounds do.
        """


class CostFn(Protocol):
    def __call__(self, obs: Array, action: Array, next_obs: Array, /) -> Array:
        """The cost [] of a step, of `[O]`, `[U]` and `[O]`; lower is better."""


class SuccessFn(Protocol):
    def __call__(self, obs: Array, /) -> Array:
        """Whether an observation `[O]` shows the task done, [] bool."""


class DemonstratorFn(Protocol):
    def __call__(self, state: EnvState, /) -> Array:
        """The action `[U]` of a scripted demonstrator."""


class RecoverFn(Protocol):
    def __call__(self, obs: Array, /) -> EnvState:
        """The state at time 0 that shows the observation `[O]`."""


class Environment(NamedTuple):
    """A task: its physics, its ends, and what demonstrators and planners may use."""

    spec: EnvSpec
    reset: ResetFn
    step: StepFn
    prior: Dynamics | None = None  # a model of the physics for planners
    expert_cost: CostFn | None = None  # what a planning demonstrator minimises
    success: SuccessFn | None = None
    demonstrator: DemonstratorFn | None = None  # for one that no cost describes
    recover: RecoverFn | None = None  # None: observations do not determine the state
    subtasks: Subtasks | None = None
    engine: str | None = None  # what steps its physics, "c" or "mjx"; None: no choice


class ApplyFn(Protocol):
    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        """(params, *inputs) -> the output, of one input vector or of many alike."""


class Network(NamedTuple):
    """A function with parameters."""

    init: InitFn
    apply: ApplyFn


class Task(NamedTuple):
    """What an agent is made for."""

    spec: EnvSpec
    dynamics: Dynamics | None  # what planners roll forward; None: there is no model
    observed: tuple[int, ...]  # indices of the observation entries that demonstrations hold
    num_envs: int  # E of the loop, by which replays are laid out
    recover: RecoverFn | None  # None: observations do not determine the state

    @classmethod
    def of(
        cls,
        spec: EnvSpec,
        dynamics: Dynamics | None = None,
        observed: tuple[int, ...] | None = None,
        num_envs: int = 1,
        recover: RecoverFn | None = None,
    ) -> "Task":
        """A task with defaults: demonstrations hold every entry of the observation."""
        if observed is None:
            observed = tuple(range(spec.observation_size))
        return cls(spec, dynamics, observed, num_envs, recover)

    def require_dynamics(self, who: str) -> Dynamics:
        """The model, for the method `who` that needs one.

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
    """A Gaussian distribution over the next H actions."""

    mean: Array  # [H, U]
    std: Array  # [H, U]


# actions [H, U] -> score [], or [M] by M members; higher is better
ScoreFn: TypeAlias = Callable[[Array], Array]


class PlanFn(Protocol):
    def __call__(
        self,
        score_fn: ScoreFn,
        plan: Plan,
        key: Array,
        temperature: Any,
        explore: bool,
        proposals: Array | None = None,
        /,
    ) -> tuple[Array, Plan]:
        """One decision: the action `[U]`, and the plan where the next search starts.

        Args:
          score_fn: the score to maximise.
          plan: where the search starts.
          key: consumed.
          temperature: [] in units of the score; towards 0 the best plan takes all weight.
          explore: static; whether the action is drawn, or is that of the mean.
          proposals: `[P, H, U]` plans that compete in every iteration; or None.
        """


class PlanSamplesFn(Protocol):
    def __call__(
        self,
        score_fn: ScoreFn,
        plan: Plan,
        key: Array,
        temperature: Any,
        proposals: Array | None = None,
        /,
    ) -> tuple[Array, Array]:
        """The plans `[K, H, U]` that a `PlanFn` weighs last, and their weights `[K]`."""


class Planner(NamedTuple):
    """Maximises a score over actions; it knows neither model nor reward."""

    init: Callable[[], Plan]  # () -> the plan of a fresh episode
    plan: PlanFn
    plan_samples: PlanSamplesFn


# ------------------------------------------------------------------------------- learning


@struct.dataclass
class Demonstrations:
    """Episodes of a demonstrator, padded to one length by repeating their last observation.

    The observations of episode n are `obs[n, : length[n] + 1]`.
    """

    obs: Array  # [N, L + 1, O] float32; an entry that was not recorded is 0
    actions: Array | None  # [N, L, U] float32; None: observations only
    length: Array  # [N] int32, transitions of each episode
    terminal: Array  # [N] bool: the task ended the episode, not the time limit
    # Observation entries that the demonstrations hold; static: it shapes the program.
    observed: tuple[int, ...] = struct.field(pytree_node=False)


@struct.dataclass
class Fit:
    """Parameters and the state of their optimiser."""

    params: Params
    opt_state: Any


class Needs(NamedTuple):
    """What a method needs and what it can do: `NEEDS` of its module.

    A method whose needs depend on its settings has a function `(config) -> Needs` there.
    """

    demonstrations: bool = True  # it imitates; else it learns from the task's reward
    actions: bool = False  # demonstrations must hold actions
    full_observations: bool = False  # demonstrations must hold every observation entry
    sequence: int = 1  # steps of the sequences that it samples from demonstrations
    episodes: int = 1  # the fewest that demonstrations must hold
    interacts: bool = True  # it learns from its own steps in the environment
    pixels: bool = False  # it can learn from images
    discrete: bool = False  # it can act where actions are choices
    # it acts on the simulator's state, by which its planner's dynamics start; where these
    # have a `recover`, observations suffice
    simulator: bool = False


class Shows(NamedTuple):
    """The parts of a trained agent that a report can show; None: it lacks them.

    The first argument of every function is the parameters that act.
    """

    # (params, obs [..., O], action [..., U], next_obs [..., O]) -> recovered reward [...]
    reward: Callable[..., Array] | None = None
    value: Callable[..., Array] | None = None  # (params, obs [..., O]) -> [...]
    # (params, carry, state, key) -> (paths [K, H + 1, O], weights [K], mean [H + 1, O]):
    # the plans of the last iteration as the model predicts them, and their mean
    plans: Callable[..., tuple[Array, Array, Array]] | None = None
    # (params, obs [T, ...], actions [T, U], observed_steps, key) -> four of [T, ...]: what
    # the world model reads; what it reconstructs; what it predicts from the first
    # `observed_steps` and the actions; what it imagines under its own policy
    world_model: Callable[..., tuple[Array, ...]] | None = None


class ActFn(Protocol):
    def __call__(
        self, params: Params, carry: Any, state: EnvState, key: Array, explore: bool, /
    ) -> tuple[Array, Any]:
        """One decision: the action `[U]`, in units of the environment, and the next carry.

        Args:
          params: `State.params`, the part of the agent's State that acts.
          carry: of this episode: a plan, a belief or ().
          state: of the environment; `Needs.simulator` if more of it than `obs` is read.
          key: consumed.
          explore: static; whether to act as in training, or as in evaluation.
        """


class UpdateFn(Protocol):
    def __call__(
        self, state: Any, rollout: Transition, demos: Any, key: Array, round_: Array, /
    ) -> tuple[Any, Metrics]:
        """Learns from one rollout: the agent's next State, and metrics [] of the update.

        Args:
          state: the agent's State; the next one has equal shapes and dtypes.
          rollout: `[T, E]`, the newest steps, all finite. Where `valid` is False stands a
            copy of another step, which is an episode of its own: it is truncated, and an
            episode ended before it.
          demos: all Demonstrations.
          key: consumed.
          round_: [] int32, the number of rounds before this one.
        """


class Agent(NamedTuple):
    """An algorithm. The training loop calls it and does not know which one it is."""

    init: Callable[[Array], Any]  # (key) -> State; State.params is the part that acts
    carry: Callable[[], Any]  # () -> the carry of a fresh episode
    act: ActFn
    update: UpdateFn
    # Whether `update` reads the task's reward; the registry fills it in from NEEDS.
    reads_rewards: bool = False


@struct.dataclass
class TrainState:
    """The whole training state of one seed between two epochs."""

    agent: Any  # the agent's State
    env: EnvState  # [E]
    carry: Any  # [E]
    key: Array
