import dataclasses
import sys
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import pytest
from absl import flags
from ml_collections import config_flags

from planil_jax import config
from planil_jax.base import UsageError

pytestmark = pytest.mark.fast


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planner:
    horizon: int = 10
    temperature: float = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tree:
    depth: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agent:
    planner: Planner | Tree = Planner()
    widths: tuple[int, ...] = (64, 64)
    bounds: tuple[float, float] = (0.0, 1.0)
    relu: bool = True
    name: str = "mpail"
    rate: float = 1  # type: ignore[assignment]  # a whole number where a float is declared


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    agent: Agent = Agent()
    rounds: int = 5


def refusal(values: dict, template=Run()) -> str:  # noqa: B008  # frozen
    with pytest.raises(UsageError) as caught:
        config.from_config_dict(values, template)
    return str(caught.value)


def test_a_config_dict_gives_the_same_config_back():
    assert config.from_config_dict(config.to_config_dict(Run()), Run()) == Run()


def test_an_override_arrives_in_the_frozen_config():
    settings = config.to_config_dict(Run())
    settings.agent.planner.horizon = 12
    assert config.from_config_dict(settings, Run()).agent.planner == Planner(horizon=12)


def test_a_config_dict_takes_no_new_fields():
    with pytest.raises(AttributeError):
        config.to_config_dict(Run()).rouns = 3


def test_a_number_of_a_config_dict_has_the_declared_type():
    assert type(config.to_config_dict(Run()).agent.rate) is float


def test_a_whole_number_becomes_a_float_where_a_float_is_declared():
    rate = config.from_config_dict({"agent": {"rate": 3}}, Run()).agent.rate
    assert rate == 3.0 and type(rate) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rounds": 6.5}, "rounds must be int, not 6.5."),
        ({"rounds": True}, "rounds must be int, not True."),
        ({"agent": {"relu": 1}}, "agent.relu must be bool, not 1."),
        ({"agent": {"rate": True}}, "agent.rate must be float, not True."),
        ({"agent": {"name": 3}}, "agent.name must be str, not 3."),
        ({"agent": {"widths": [8, 0.5]}}, "agent.widths[1] must be int, not 0.5."),
        ({"agent": {"widths": 8}}, "agent.widths must be tuple[int, ...], not 8."),
        (
            {"agent": {"bounds": (1.0,)}},
            "agent.bounds must be tuple[float, float], not (1.0,).",
        ),
        ({"agent": 3}, "agent must be a group of fields, not 3."),
    ],
)
def test_a_wrong_type_is_refused_by_field_value_and_wanted_type(values, message):
    assert refusal(values) == message


def test_a_list_becomes_a_tuple_of_converted_elements():
    agent = config.from_config_dict(
        {"agent": {"bounds": [0, 2], "widths": [8]}}, Run()
    ).agent
    assert agent.bounds == (0.0, 2.0) and type(agent.bounds[0]) is float
    assert agent.widths == (8,)


def test_an_unknown_field_is_refused_with_the_nearest_and_all_names():
    message = refusal({"agent": {"planner": {"horizn": 3}}})
    assert "agent.planner.horizn" in message
    assert "Did you mean horizon?" in message
    assert "agent.planner has: horizon, temperature." in message


def test_the_template_says_which_of_several_configs_a_field_holds():
    template = Run(agent=Agent(planner=Tree()))
    run = config.from_config_dict({"agent": {"planner": {"depth": 7}}}, template)
    assert run.agent.planner == Tree(depth=7)
    assert "horizon" in refusal({"agent": {"planner": {"horizon": 7}}}, template)


def test_a_field_that_is_not_given_keeps_the_value_of_the_template():
    assert (
        config.from_config_dict({"rounds": 9}, Run(agent=Agent(name="bc"))).agent.name
        == "bc"
    )


def test_json_gives_the_same_config_back():
    run = Run(agent=Agent(widths=(), rate=1e-30, name='"é"'), rounds=-1)
    assert config.from_json(config.to_json(run), Run()) == run


def test_text_that_is_not_json_is_refused_in_one_sentence():
    with pytest.raises(UsageError, match="not JSON"):
        config.from_json("{", Run())
    with pytest.raises(UsageError, match="JSON object"):
        config.from_json("[1]", Run())


def test_differences_name_the_dotted_field_and_both_values():
    there, here = Run(rounds=4), Run(agent=Agent(planner=Planner(horizon=12)))
    assert config.differences(there, here) == [
        "agent.planner.horizon: 10 there, 12 here",
        "rounds: 4 there, 5 here",
    ]


def test_equal_configs_do_not_differ_even_where_one_wrote_a_float_as_a_whole_number():
    assert config.differences(Run(agent=Agent(rate=1)), Run(agent=Agent(rate=1.0))) == []


def test_fields_of_another_class_are_absent_in_differences():
    assert config.differences(Run(), Run(agent=Agent(planner=Tree()))) == [
        "agent.planner.horizon: 10 there, absent here",
        "agent.planner.temperature: 0.5 there, absent here",
        "agent.planner.depth: absent there, 3 here",
    ]


# ------------------------------------------------------------------- ranges and choices


@dataclasses.dataclass(frozen=True, kw_only=True)
class Net:
    hidden: tuple[config.Count, ...] = (64,)  # units of each hidden layer
    form: Literal["relu", "silu"] = "relu"  # activation of the hidden layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
    net: Net = Net()
    memory: Net | None = None
    learning_rate: config.Positive = 1e-3  # Adam's step size
    # Discount factor γ of the returns,
    # a step.
    discount: config.Share = 0.99
    dropout: config.ShareBelow1 = 0.0
    angle: Annotated[float, config.Range(0.0, 180.0, above=True, below=True)] = 45.0
    batch: config.Count = 128  # transitions in a gradient step,
    # drawn with replacement
    warm_up: config.Natural = 0  # rounds
    penalty: config.NonNegative = 0.0
    clip: config.Positive | None = None  # largest norm of a gradient; None: any
    bounds: tuple[float, float] | None = None
    window: config.Count | None = (
        8  # rounds that are looked at,
        # the last
    )

    def check(self) -> None:
        if self.warm_up > self.batch:
            raise UsageError("warm_up must be at most batch.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    agent: Learner = Learner()
    seed: config.Seed = 0


WRONG = [
    ("learning_rate", -1, "agent.learning_rate must be above 0, not -1."),
    ("learning_rate", 0.0, "agent.learning_rate must be above 0, not 0."),
    (
        "learning_rate",
        float("nan"),
        "agent.learning_rate must be a finite number, not nan.",
    ),
    (
        "learning_rate",
        float("inf"),
        "agent.learning_rate must be a finite number, not inf.",
    ),
    ("learning_rate", "fast", "agent.learning_rate must be float, not 'fast'."),
    ("learning_rate", None, "agent.learning_rate must be float, not None."),
    ("discount", 2, "agent.discount must be from 0 to 1, not 2."),
    ("discount", -0.1, "agent.discount must be from 0 to 1, not -0.1."),
    ("dropout", 1, "agent.dropout must be at least 0 and below 1, not 1."),
    ("angle", 180.0, "agent.angle must be above 0 and below 180, not 180."),
    ("batch", -8, "agent.batch must be at least 1, not -8."),
    ("batch", 0, "agent.batch must be at least 1, not 0."),
    ("batch", 2.5, "agent.batch must be int, not 2.5."),
    ("warm_up", -1, "agent.warm_up must be at least 0, not -1."),
    ("warm_up", 129, "agent: warm_up must be at most batch."),
    ("penalty", -1e-9, "agent.penalty must be at least 0, not -1e-09."),
    ("clip", 0, "agent.clip must be above 0, or None, not 0."),
    ("clip", "none", "agent.clip must be float, or None, not 'none'."),
    ("bounds", (0.0, float("inf")), "agent.bounds[1] must be a finite number, or None,"),
    ("net.hidden", (64, 0), "agent.net.hidden[1] must be at least 1, not 0."),
    ("net.form", "tanh", "agent.net.form is one of 'relu', 'silu', not 'tanh'."),
    ("net", None, "agent.net must be a group of fields, not None."),
    ("memory", 3, "agent.memory must be "),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_a_wrong_setting_is_refused_by_field_rule_and_value(path, value, message):
    with pytest.raises(UsageError) as caught:
        config.set_path(Whole(), f"agent.{path}", value)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_a_config_that_was_made_in_python_is_checked_alike(path, value, message):
    *groups, name = path.split(".")
    learner = dataclasses.replace(Learner(), **({name: value} if not groups else {}))
    if groups:
        learner = Learner(net=dataclasses.replace(Net(), **{name: value}))
    if path == "net":
        message = "agent.net must be test_config.Net, not None."
    with pytest.raises(UsageError) as caught:
        config.check(Whole(agent=learner))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (Run(agent=Tree()), "agent must be test_config.Agent, not test_config.Tree."),
        (
            Run(agent=Agent(planner=Run())),
            "agent.planner must be test_config.Planner or test_config.Tree, not "
            "test_config.Run.",
        ),
        (Run(agent=3), "agent must be test_config.Agent, not 3."),
    ],
)
def test_a_config_of_another_class_than_its_field_s_is_refused(run, message):
    with pytest.raises(UsageError) as caught:
        config.check(run)
    assert str(caught.value) == message


def test_the_bounds_of_a_range_are_taken():
    for path, value in [
        ("dropout", 0),
        ("discount", 0),
        ("discount", 1),
        ("batch", 1),
        ("penalty", 0),
    ]:
        config.set_path(Whole(), f"agent.{path}", value)


def test_a_field_may_be_of_several_types():
    @dataclasses.dataclass(frozen=True)
    class Size:
        of: config.Count | Literal["all"] | None = "all"  # how many

    for value in (3, "all", None):
        assert config.from_config_dict({"of": value}, Size()).of == value
    for value in (0, "some", 2.5):
        with pytest.raises(UsageError, match="^of must be "):
            config.from_config_dict({"of": value}, Size())
    assert config.describe(Size())[0].kind == (
        "whole number, at least 1, or one of 'all', or None"
    )


@pytest.mark.parametrize("seed", [-1, 2**31, 2**32, 2**63])
def test_a_seed_that_would_be_another_s_is_refused(seed):
    with pytest.raises(UsageError, match="seed must be from 0 to 2147483647, not"):
        config.from_config_dict({"seed": seed}, Whole())
    assert config.from_config_dict({"seed": 2**31 - 1}, Whole()).seed == 2**31 - 1


def test_arrays_that_a_sweep_puts_into_fields_are_left_alone():
    @jax.jit
    def traced(rate, warm_up):
        config.check(Learner(learning_rate=rate, warm_up=warm_up), "agent.")
        return rate

    traced(jnp.float32(-1.0), jnp.int32(1_000))


# --------------------------------------------------------------------------------- absence


def test_none_and_groups_that_may_be_absent_go_through_json_and_the_command_line():
    for learner in (Learner(), Learner(clip=0.5, memory=Net(), bounds=(0.0, 1.0))):
        whole = Whole(agent=learner)
        assert config.from_json(config.to_json(whole), Whole()) == whole
        assert config.from_config_dict(config.to_config_dict(whole), whole) == whole


def parsed(monkeypatch, tmp_path, whole, *overrides):
    """What `config_flags` makes of a config and overrides of its fields."""
    module = tmp_path / "settings.py"
    module.write_text("def get_config():\n    import sys\n    return sys.settings\n")
    monkeypatch.setattr(sys, "settings", config.to_config_dict(whole), raising=False)
    values, argv = flags.FlagValues(), ["prog", f"--config={module}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    return config.from_config_dict(values.config, whole)


def test_a_field_that_may_be_none_takes_a_value_and_none_from_the_command_line(
    monkeypatch, tmp_path
):
    learner = parsed(
        monkeypatch,
        tmp_path,
        Whole(),
        "--config.agent.clip=3",
        "--config.agent.bounds=(0, 2)",
        "--config.agent.window=None",
    ).agent
    assert learner.clip == 3.0 and type(learner.clip) is float
    assert (learner.bounds, learner.window) == ((0.0, 2.0), None)
    with pytest.raises(UsageError, match="agent.clip must be above 0, or None, not -1"):
        parsed(monkeypatch, tmp_path, Whole(), "--config.agent.clip=-1")


def test_a_group_that_is_absent_is_made_by_a_setting_of_one_of_its_fields():
    whole = config.set_path(Whole(), "agent.memory.hidden", (8,))
    assert whole.agent.memory == Net(hidden=(8,))
    assert config.set_path(whole, "agent.memory", None) == Whole()


# -------------------------------------------------------------------------------- meanings


def test_a_config_s_docstring_lists_its_fields_once():
    for _ in range(2):
        config.document(Learner)
    lines = Learner.__doc__.splitlines()
    assert lines[:3] == ["Settings.", "", "Fields:"] and lines.count("Fields:") == 1
    assert "  learning_rate = 0.001: Adam's step size (number, above 0)" in lines
    assert any(line.startswith("  net.hidden = (64,): units of each") for line in lines)


def test_a_field_is_described_by_its_comment_its_kind_and_its_value():
    fields = {field.path: field for field in config.describe(Whole())}
    assert fields["agent.learning_rate"] == (
        "agent.learning_rate",
        "Adam's step size",
        "number, above 0",
        1e-3,
    )
    meanings = {path: field.meaning for path, field in fields.items()}
    assert meanings["agent.net.hidden"] == "units of each hidden layer"
    assert meanings["agent.discount"] == "Discount factor γ of the returns, a step."
    assert meanings["agent.batch"] == (
        "transitions in a gradient step, drawn with replacement"
    )
    assert meanings["agent.penalty"] == ""
    assert meanings["agent.window"] == "rounds that are looked at, the last"
    kinds = {path: field.kind for path, field in fields.items()}
    assert kinds["agent.net.form"] == "one of 'relu', 'silu'"
    assert kinds["agent.clip"] == "number, above 0, or None"
    assert kinds["agent.net.hidden"] == "several, each: whole number, at least 1"
    assert kinds["agent.bounds"] == "2: number; number, or None"
    assert fields["agent.memory"].default is None


def test_a_class_without_a_source_has_no_meanings():
    made = dataclasses.make_dataclass("Made", [("rate", float, 1.0)], frozen=True)
    assert config.describe(made()) == [("rate", "", "number", 1.0)]
