import dataclasses

import pytest

from planil_jax import config
from planil_jax.base import UsageError


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


def test_thaw_then_freeze_gives_the_same_config():
    assert config.from_config_dict(config.to_config_dict(Run()), Run()) == Run()


def test_an_override_arrives_in_the_frozen_config():
    thawed = config.to_config_dict(Run())
    thawed.agent.planner.horizon = 12
    assert config.from_config_dict(thawed, Run()).agent.planner == Planner(horizon=12)


def test_a_thawed_config_takes_no_new_fields():
    with pytest.raises(AttributeError):
        config.to_config_dict(Run()).rouns = 3


def test_a_thawed_number_has_the_declared_type():
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
