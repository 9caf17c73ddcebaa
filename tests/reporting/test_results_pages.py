"""Pages of results: every row says where it comes from and what was not reached."""

import pytest

from planil_jax.reporting import results_pages
from tests.evaluation.test_results import BENCHMARK, CAMPAIGN, FIRST, LEARNING, RUN

pytestmark = pytest.mark.fast


def page(content, name: str = "nav/x.json") -> str:
    made = results_pages.pages({name: content})
    assert set(made) == {"index.md", "nav.md"} and "nav.md" in made["index.md"]
    return made["nav.md"]


def row(text: str) -> dict[str, str]:
    """The first rows of the page's tables, by column."""
    found = {}
    for block in text.split("\n\n"):
        if block.startswith("|"):
            names, _, values, *_ = (
                [cell.strip() for cell in line.strip("|").split(" | ")]
                for line in block.splitlines()
            )
            found |= dict(zip(names, values, strict=True))
    return found


def test_a_learning_result_stands_beside_its_references():
    text = page(LEARNING)
    assert "## `results/nav/x.json`" in text and "Commit `0123456789`" in text
    assert "planil evaluate \\\n    --run=runs/nav" in text
    found = row(text)
    assert found["return of each seed"] == "820, 710"
    # 765 ± 12.706 · 55 of two seeds
    assert found["mean or IQM [95%]"] == "765 [66.2, 1,464]"
    assert (found["demonstrator"], found["random"]) == ("860", "-20.0")
    assert found["BC, each seed"] == "510, 610"
    assert found["share"] == "0.89" and found["95% reached"] == "**no**"
    assert found["p against BC"] == "0.167"  # 1 of the 6 orders of two against two
    assert found["tried before"] == "9 trials: learning rates; on seeds from 100 on"
    assert found["demonstrations"] == "4, by scripted MPPI, seed 1"
    assert (found["seconds of training"], found["of processors"]) == ("100", "150")
    assert (found["seeds"], found["episodes of each"]) == ("0, 1", "3")


def test_a_flag_in_quotes_stands_on_a_line_of_its_own():
    text = page(LEARNING | {"command": "planil compare --a=1 '--b=one two' --c=3"})
    assert "planil compare \\\n    --a=1 \\\n    '--b=one two' \\\n    --c=3\n" in text


@pytest.mark.parametrize(
    ("settings", "on", "shown"),
    [
        ("nothing", "nothing", "nothing"),
        ("not counted", "seeds 0 to 2", "0 trials: not counted; on seeds 0 to 2"),
    ],
)
def test_what_is_said_of_settings_without_trials_is_shown(settings, on, shown):
    run = RUN | {"tuning": {"trials": 0, "settings": settings, "on": on}}
    assert row(page(LEARNING | {"runs": [run]}))["tried before"] == shown


def test_from_four_seeds_on_the_interquartile_mean_is_shown():
    returns = [[1.0], [900.0], [902.0], [5000.0]]
    run = RUN | {"seeds": [0, 1, 2, 3], "evaluation": RUN["evaluation"]}
    run["evaluation"] = RUN["evaluation"] | {"returns": returns}
    found = row(page(LEARNING | {"runs": [run]}))
    assert found["mean or IQM [95%]"].startswith("901 [") and found["95% reached"] == "yes"


def test_what_is_not_there_says_why():
    run = RUN | {"bc": None, "why": {"bc": "the demonstrations hold no actions"}}
    found = row(page(LEARNING | {"runs": [run]}))
    assert found["not there"] == "the demonstrations hold no actions"
    assert (found["BC, each seed"], found["p against BC"]) == ("–", "–")


def test_a_benchmark_names_its_rivals():
    text = page(BENCHMARK)
    assert (
        "Measured: a plan." in text and "- ratio to reference: against plain MPPI" in text
    )
    assert row(text) == {"planner": "task", "ratio to reference": "2"}


def test_a_campaign_has_a_row_a_case():
    assert row(page(CAMPAIGN)) == {"case": "killed at step 7", "resumed": "yes"}


def test_a_result_of_version_1_stands_under_its_own_title():
    text = page(FIRST)
    before = text.index("## Before the redesign")
    assert before < text.index("### `results/nav/x.json`") < text.index("| planner |")


def test_pages_of_areas_that_are_gone_are_dropped(tmp_path):
    (tmp_path / "results/nav").mkdir(parents=True)
    target = tmp_path / "docs"
    target.mkdir()
    (target / "old.md").write_text("gone")
    results_pages.results.write(tmp_path / "results/nav/x.json", LEARNING)
    results_pages.write(tmp_path / "results", target)
    assert sorted(path.name for path in target.iterdir()) == ["index.md", "nav.md"]
    again = {path.name: path.read_text() for path in target.iterdir()}
    results_pages.write(tmp_path / "results", target)
    assert again == {path.name: path.read_text() for path in target.iterdir()}
