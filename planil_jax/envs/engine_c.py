"""MuJoCo in C as pure functions that a compiled program calls.

    step:  bits -> mj_setState -> mj_step × substeps -> mj_getState -> bits, fields

`bits` are the doubles of all that MuJoCo integrates (mjSTATE_INTEGRATION), written as pairs
of uint32. They lose nothing, need no double precision in JAX, and go through `vmap`, `scan`
and checkpoints like any array. So a step is a pure function of its inputs, and gives the
same bits for any batch, order and number of threads.

`fields` are those of MuJoCo's data that the functions of an environment read; they are
found out when it is made. Where one of them is computed, such as a site's place or a
sensor, `mj_forward` computes it of the moment after the step. It runs after `mj_getState`,
so it does not touch the state.

A batch under any nesting of `vmap` is one call. It is divided among threads, each with an
MjData of its own. A line whose state or control is not finite becomes NaN, as it would on
MJX. MuJoCo would start it anew or act by a control of 0.

Source: Todorov, Erez & Tassa 2012, MuJoCo.
Departures: there is no derivative.
"""

import concurrent.futures
import copy
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from planil_jax.base import UsageError, did_you_mean
from planil_jax.envs.engines import Engine

CONTACTS = 64  # rows of the fields of contacts, unless told otherwise
FAR = 1.0  # distance of a row without a contact, metres
_ROWS = 4  # fewest that are worth a thread
_WHOLE = int(mujoco.mjtState.mjSTATE_INTEGRATION)
# Fields that the state holds, which `reset` may set.
STATE_FIELDS = {
    "time": mujoco.mjtState.mjSTATE_TIME,
    "qpos": mujoco.mjtState.mjSTATE_QPOS,
    "qvel": mujoco.mjtState.mjSTATE_QVEL,
    "act": mujoco.mjtState.mjSTATE_ACT,
    "qacc_warmstart": mujoco.mjtState.mjSTATE_WARMSTART,
    "ctrl": mujoco.mjtState.mjSTATE_CTRL,
    "qfrc_applied": mujoco.mjtState.mjSTATE_QFRC_APPLIED,
    "xfrc_applied": mujoco.mjtState.mjSTATE_XFRC_APPLIED,
    "eq_active": mujoco.mjtState.mjSTATE_EQ_ACTIVE,
    "mocap_pos": mujoco.mjtState.mjSTATE_MOCAP_POS,
    "mocap_quat": mujoco.mjtState.mjSTATE_MOCAP_QUAT,
    "userdata": mujoco.mjtState.mjSTATE_USERDATA,
}
# Fields that MuJoCo computes of a state.
_COMPUTED = (
    *("qacc", "act_dot", "sensordata", "energy"),
    *("xpos", "xquat", "xmat", "xipos", "ximat", "xanchor", "xaxis", "subtree_com"),
    *("geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "cam_xpos", "cam_xmat"),
    *("light_xpos", "light_xdir", "cvel", "cdof", "cdof_dot", "cinert", "crb"),
    *("ten_length", "ten_velocity", "actuator_length", "actuator_velocity"),
    *("actuator_force", "qfrc_actuator", "qfrc_bias", "qfrc_gravcomp", "qfrc_fluid"),
    *("qfrc_spring", "qfrc_damper", "qfrc_passive", "qfrc_smooth", "qacc_smooth"),
    *("qfrc_constraint", "cacc", "cfrc_int", "cfrc_ext"),
    *("subtree_linvel", "subtree_angmom"),
)
# Fields that mj_forward leaves out, and who computes them.
_AFTER = {
    mujoco.mj_rnePostConstraint: ("cacc", "cfrc_int", "cfrc_ext"),
    mujoco.mj_subtreeVel: ("subtree_linvel", "subtree_angmom"),
    mujoco.mj_energyPos: ("energy",),
    mujoco.mj_energyVel: ("energy",),
}
# Fields of contacts: the shape of a row, the value of a row without a contact, and whether
# they are whole numbers.
_CONTACT: dict[str, tuple[tuple[int, ...], float, bool]] = {
    "dist": ((), FAR, False),
    "pos": ((3,), 0.0, False),
    "frame": ((3, 3), 0.0, False),
    "includemargin": ((), 0.0, False),
    "friction": ((5,), 0.0, False),
    "solref": ((2,), 0.0, False),
    "solreffriction": ((2,), 0.0, False),
    "solimp": ((5,), 0.0, False),
    "dim": ((), 0, True),
    "geom": ((2,), -1, True),
    "geom1": ((), -1, True),
    "geom2": ((), -1, True),
    "efc_address": ((), -1, True),
}


class FieldError(UsageError, AttributeError):
    """A field that C does not give, in one sentence."""


class Data:
    """Stands in for `mjx.Data` where the functions of an environment are given one.

    It has the same fields, in float32. `data.contact` has a fixed number of rows. A row
    without a contact has `dist` 1 and `geom` -1. `data._impl` is the same object.
    """

    def __init__(
        self,
        name: str,
        values: Mapping[str, Any],
        read: set[str] | None = None,
        replaced: frozenset[str] = frozenset(),
    ):
        """
        Args:
          name: of the environment, for messages.
          values: field -> array; of a contact's "contact.dist" and so on.
          read: collects the names of the fields that are read.
          replaced: names of the fields that `replace` set.
        """
        self.__dict__.update(_name=name, values=values, _read=read, replaced=replaced)

    def __getattr__(self, field: str) -> Any:
        if field.startswith("__"):
            raise AttributeError(field)
        if field == "_impl":
            return self
        if field == "contact":
            return _Contact(self)
        return self._get(field)

    def _get(self, field: str) -> Any:
        if field not in self.values:
            raise FieldError(
                f"environment {self._name!r}: MuJoCo in C gives no field {field!r}."
                f"{did_you_mean(field, self.values)} Read another one, or choose "
                "engine=mjx."
            )
        if self._read is not None:
            self._read.add(field)
        return self.values[field]

    def replace(self, **fields: Any) -> "Data":
        """The data with other values in fields of the state."""
        for field in fields:
            if field not in STATE_FIELDS:
                raise FieldError(
                    f"environment {self._name!r}: reset sets {field!r}, which the state "
                    f"does not hold; it may set {', '.join(STATE_FIELDS)}."
                )
        replaced = self.replaced | set(fields)
        return Data(self._name, {**self.values, **fields}, self._read, replaced)

    def over(self, values: Mapping[str, Any]) -> "Data":
        """The same data with all its values replaced, such as by traced ones."""
        return Data(self._name, values, self._read, self.replaced)

    def __setattr__(self, field: str, value: Any) -> None:
        raise FieldError(
            f"environment {self._name!r}: data cannot be changed in place; write "
            f"data.replace({field}=...)."
        )


class _Contact:
    """The contacts of a `Data`."""

    def __init__(self, data: Data):
        self._data = data

    def __getattr__(self, field: str) -> Any:
        if field.startswith("__"):
            raise AttributeError(field)
        return self._data._get(f"contact.{field}")


@struct.dataclass
class State:
    """The simulator's state; its fields are attributes too: `state.qpos`."""

    bits: jax.Array  # [2n] uint32, the doubles of mjSTATE_INTEGRATION
    fields: dict[str, jax.Array]  # those that were asked for, of the same moment

    def __getattr__(self, field: str) -> jax.Array:
        if field.startswith("__") or field not in self.__dict__.get("fields", {}):
            raise AttributeError(field)
        return self.fields[field]


def make(
    name: str,
    model: mujoco.MjModel,
    substeps: int,
    fields: Iterable[str] = ("qpos", "qvel"),
    contacts: int = CONTACTS,
    threads: int | None = None,
    forward: bool = True,
) -> Engine:
    """The engine of a model.

    Args:
      name: of the environment, for messages.
      model: is copied.
      substeps: of MuJoCo in a control step.
      fields: which every state holds, names of `home`.
      contacts: rows of the fields of contacts, where they are asked for.
      threads: None: one for each core that this process may use.
      forward: whether computed fields are of the moment after the step, by `mj_forward`.
        Else they are those that `mj_step` leaves behind, as in Gymnasium's environments,
        and what `mj_forward` does not compute is 0 at a start.

    Raises:
      UsageError: the model uses what its state does not hold.
    """
    simulator = _Simulator(name, model, substeps, fields, contacts, threads, forward)
    outputs = (
        jax.ShapeDtypeStruct((2 * simulator.size,), np.uint32),
        jax.ShapeDtypeStruct((simulator.width,), np.float32),
    )

    def call(function: Callable, *arguments: jax.Array) -> State:
        bits, packed = jax.pure_callback(
            function, outputs, *arguments, vmap_method="broadcast_all"
        )
        return State(bits=bits, fields=simulator.unpack(packed))

    def start(data: Data) -> State:
        names = tuple(sorted(data.replaced))
        # The batch of a callback comes from its arguments, of which there must be one.
        values = [jnp.asarray(data.values[field], jnp.float32) for field in names]
        return call(functools.partial(simulator.start, names), *(values or [jnp.zeros(())]))

    def step(state: State, ctrl: jax.Array) -> State:
        return call(simulator.step, state.bits, ctrl)

    def data(state: State, time: jax.Array) -> Data:
        del time  # the state has a clock
        return Data(name, state.fields)

    home = {field: jnp.asarray(value) for field, value in simulator.home.items()}
    return Engine(Data(name, home), start, step, data)


def template(
    name: str, model: mujoco.MjModel, contacts: int, read: set[str] | None = None
) -> Data:
    """Data with the shapes of all fields that C gives; nothing is computed.

    Args:
      read: collects the names of those that are read.
    """
    shapes = {
        field: jax.ShapeDtypeStruct(value.shape, value.dtype)
        for field, value in _home(model, contacts).items()
    }
    return Data(name, shapes, read)


# ------------------------------------------------------------------------------- the host


class _Simulator:
    """Steps batches of states with MuJoCo, on threads."""

    def __init__(
        self,
        name: str,
        model: mujoco.MjModel,
        substeps: int,
        fields: Iterable[str],
        contacts: int,
        threads: int | None,
        forward: bool,
    ):
        _require_whole_state(name, model)
        self._model = copy.deepcopy(model)
        # A state that is not finite stays so. MuJoCo would start it anew in silence.
        self._model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        self._name, self._substeps, self._contacts = name, substeps, contacts
        self._threads = threads or _cores()
        self.size = mujoco.mj_stateSize(self._model, _WHOLE)
        self._places = _places(self._model)
        self.home = _home(self._model, contacts)
        asked = sorted(set(fields))
        of_state = [field for field in asked if field in STATE_FIELDS]
        self._computed = [field for field in asked if field not in STATE_FIELDS]
        self._layout = _layout([*of_state, *self._computed], self.home)
        self.width = sum(self.home[field].size for field in asked)
        # Where the state's fields lie among its doubles; they come first.
        places = [np.arange(self.size)[self._places[field]] for field in of_state]
        self._copied = np.concatenate([np.zeros(0, int), *places])
        late = {f: set(found) & set(self._computed) for f, found in _AFTER.items()}
        functions = [function for function, found in late.items() if found]
        self._after_step = [mujoco.mj_forward] * forward + functions
        self._after_start = [mujoco.mj_forward] + functions * forward
        self._zero_at_start = [] if forward else sorted(set().union(*late.values()))
        self._idle: list[_Worker] = []  # append and pop are atomic

    def start(self, names: tuple[str, ...], *values: Any) -> tuple[np.ndarray, np.ndarray]:
        """States `[..., 2n]` and fields `[..., F]` at the home pose but for some fields."""
        lead = np.shape(values[0])[: np.ndim(values[0]) - self._rank(names)]
        states = np.tile(self._home_state, (int(np.prod(lead)), 1))
        for field, value in zip(names, values, strict=False):
            place = self._places[field]
            states[:, place] = np.asarray(value).reshape(len(states), -1)
        return self._run(lead, states, None)

    def step(self, bits: Any, ctrl: Any) -> tuple[np.ndarray, np.ndarray]:
        """States and fields after a control step; of `[..., 2n]` and `[..., U]`."""
        lead = np.shape(bits)[:-1]
        states = np.array(bits, np.uint32).reshape(-1, 2 * self.size).view(np.float64)
        states[:, self._places["ctrl"]] = np.asarray(ctrl).reshape(len(states), -1)
        return self._run(lead, states, self._substeps)

    def unpack(self, packed: jax.Array) -> dict[str, jax.Array]:
        """The fields that `[F]` numbers are."""
        return {
            field: packed[place]
            .reshape(self.home[field].shape)
            .astype(self.home[field].dtype)
            for field, place in self._layout.items()
        }

    def _rank(self, names: tuple[str, ...]) -> int:
        """The rank of the first of these fields; of none, that of a lone number."""
        return self.home[names[0]].ndim if names else 0

    @functools.cached_property
    def _home_state(self) -> np.ndarray:
        state = np.zeros(self.size)
        mujoco.mj_getState(self._model, _at_home(self._model), state, _WHOLE)
        return state

    def _run(
        self, lead: tuple[int, ...], states: np.ndarray, substeps: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Steps `[B, n]` states in place where there are substeps, and reads the fields."""
        fields = np.full((len(states), self.width), np.nan, np.float32)
        sound = np.isfinite(states).all(axis=1)
        states[~sound] = np.nan
        rows = np.flatnonzero(sound)
        if substeps or self._computed:
            count = max(1, min(self._threads, len(rows) // _ROWS))
            work = functools.partial(self._work, states, fields, substeps)
            parts = np.array_split(rows, count)
            if count == 1:
                work(rows)
            else:
                list(_pool(self._threads).map(work, parts))
        with np.errstate(over="ignore"):
            fields[:, : len(self._copied)] = states[:, self._copied]
        bits = states.view(np.uint32).reshape(*lead, 2 * self.size)
        return bits, fields.reshape(*lead, self.width)

    def _work(
        self,
        states: np.ndarray,
        fields: np.ndarray,
        substeps: int | None,
        rows: np.ndarray,
    ) -> None:
        """Some rows of a batch, on one thread."""
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _Worker(self._model, self._computed, self._layout)
        model, data = self._model, worker.data
        functions = self._after_step if substeps else self._after_start
        for row in rows:
            state = states[row]
            mujoco.mj_setState(model, data, state, _WHOLE)
            if substeps:
                mujoco.mj_step(model, data, substeps)
                mujoco.mj_getState(model, data, state, _WHOLE)
            if self._computed:
                for function in functions:
                    function(model, data)
                worker.read(fields[row])
                if worker.contacts:
                    self._read_contacts(data, fields[row])
        if not substeps:
            for field in self._zero_at_start:
                fields[rows, self._layout[field]] = 0.0
        self._idle.append(worker)

    def _read_contacts(self, data: mujoco.MjData, row: np.ndarray) -> None:
        """Writes the fields of contacts into a row of fields."""
        if data.ncon > self._contacts:
            raise UsageError(
                f"environment {self._name!r}: a state has {data.ncon} contacts, and its "
                f"data has room for {self._contacts}: pass contacts={2 * data.ncon} to "
                "mjcf.make."
            )
        for field, place in self._layout.items():
            if field == "ncon":
                row[place] = data.ncon
            elif field.startswith("contact."):
                name = field.removeprefix("contact.")
                row[place] = _contact(data, name, self._contacts).ravel()


class _Worker:
    """An MjData of one thread at a time, and where its fields are read."""

    def __init__(
        self, model: mujoco.MjModel, computed: list[str], layout: dict[str, slice]
    ):
        self.data = mujoco.MjData(model)
        # MuJoCo keeps these arrays in their places as long as the data lives.
        self._views = [
            (layout[field], getattr(self.data, field).reshape(-1))
            for field in computed
            if not _of_contacts(field)
        ]
        self.contacts = any(map(_of_contacts, computed))

    def read(self, row: np.ndarray) -> None:
        """Writes the fields but those of contacts into a row."""
        for place, view in self._views:
            row[place] = view


def _require_whole_state(name: str, model: mujoco.MjModel) -> None:
    """Refuses models whose next step depends on more than mjSTATE_INTEGRATION."""
    sleep = getattr(mujoco.mjtEnableBit, "mjENBL_SLEEP", None)
    if sleep is not None and model.opt.enableflags & int(sleep):
        raise UsageError(
            f"environment {name!r}: its MJCF lets bodies sleep, and MuJoCo's state does "
            'not say which do: write <flag sleep="disable"/>.'
        )


def _at_home(model: mujoco.MjModel) -> mujoco.MjData:
    """MuJoCo's data at the first keyframe, or in the initial pose of a model without."""
    data = mujoco.MjData(model)
    if model.nkey:
        mujoco.mj_resetDataKeyframe(model, data, 0)
    return data


def _home(model: mujoco.MjModel, contacts: int) -> dict[str, np.ndarray]:
    """Every field that C gives, at the home pose."""
    data = _at_home(model)
    before = {name: np.array(getattr(data, name)) for name in STATE_FIELDS}
    for function in (mujoco.mj_forward, *_AFTER):
        function(model, data)
    fields = before | {
        name: np.array(getattr(data, name)) for name in _COMPUTED if hasattr(data, name)
    }
    fields = {
        # MJX's matrices are square.
        name: value.reshape(-1, 3, 3) if name.endswith("mat") else value
        for name, value in fields.items()
    }
    for name in _CONTACT:
        fields[f"contact.{name}"] = _contact(data, name, contacts)
    fields["ncon"] = np.array(data.ncon)
    return {name: value.astype(_kind(name, value)) for name, value in fields.items()}


def _kind(name: str, value: np.ndarray) -> Any:
    """The type of a field in JAX: float32, but for whole numbers and flags."""
    if value.dtype in (np.uint8, np.bool_):
        return value.dtype
    return np.int32 if np.issubdtype(value.dtype, np.integer) else np.float32


def _of_contacts(field: str) -> bool:
    return field == "ncon" or field.startswith("contact.")


def _contact(data: mujoco.MjData, name: str, rows: int) -> np.ndarray:
    """A field of the contacts, in a fixed number of rows; those beyond are left out."""
    shape, empty, whole = _CONTACT[name]
    padded = np.full((rows, *shape), empty, np.int32 if whole else np.float64)
    found = np.asarray(getattr(data.contact, name))[:rows]
    padded[: len(found)] = found.reshape(-1, *shape)
    return padded


def _places(model: mujoco.MjModel) -> dict[str, slice]:
    """Where each field lies among the doubles of mjSTATE_INTEGRATION."""
    places = {}
    for field, bit in STATE_FIELDS.items():
        first = mujoco.mj_stateSize(model, _WHOLE & (int(bit) - 1))  # all lower bits
        places[field] = slice(first, first + mujoco.mj_stateSize(model, int(bit)))
    return places


def _layout(fields: list[str], home: Mapping[str, np.ndarray]) -> dict[str, slice]:
    """Where each field lies among the numbers that a call returns."""
    layout, first = {}, 0
    for field in fields:
        layout[field] = slice(first, first + home[field].size)
        first += home[field].size
    return layout


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _pool(threads: int) -> concurrent.futures.ThreadPoolExecutor:
    """The threads of this process, shared by all engines."""
    return concurrent.futures.ThreadPoolExecutor(threads, "mujoco")
