"""`--help` explains every field of every method, the loop, a run and a comparison."""

from operator import attrgetter

import pytest

from planil_jax import config, experiment, registry
from planil_jax.agents import scripted
from planil_jax.evaluation import compare

# Text that is a name or a path of the user's choice.
FREE_TEXT = {"module", "method", "environment", "demonstrations"}

SETTINGS = [
    *(pytest.param(experiment.for_method(name), id=name) for name in registry.methods()),
    pytest.param(scripted.Config(), id="scripted"),
    pytest.param(compare.Comparison(), id="compare"),
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_field_has_a_meaning_of_two_words_or_more(settings):
    fields = config.describe(settings)
    assert fields
    unexplained = [field.path for field in fields if len(field.meaning.split()) < 2]
    assert unexplained == []


@pytest.mark.parametrize("settings", SETTINGS)
def test_no_meaning_begins_in_the_middle_of_a_phrase(settings):
    # "of Adam" says which optimiser, but not that the field is its learning rate.
    beginnings = ("of ", "a round", "by which", "to which", "see ")
    fragments = [
        (field.path, field.meaning)
        for field in config.describe(settings)
        if field.meaning.startswith(beginnings)
    ]
    assert fragments == []


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_field_has_a_kind_and_a_text_field_its_choices(settings):
    for field in config.describe(settings):
        assert field.kind not in ("any", ""), field
        assert field.kind != "text" or field.path in FREE_TEXT, field


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_default_is_one_that_its_field_takes(settings):
    config.check(settings)
    for field in config.describe(settings):
        assert attrgetter(field.path)(settings) == field.default
