"""The report: figures from arrays, one self-contained page, a drive to play."""

import errno
import html
import html.parser
import json
import math
import os
import re
import shlex

import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import config, envs, experiment, recipes, runs
from planil_jax.agents import mpail
from planil_jax.base import Agent, Shows, UsageError, UserError
from planil_jax.compose import compose
from planil_jax.data import demos
from planil_jax.planners import mppi
from planil_jax.reporting import commands, figures, page, report, views
from planil_jax.training import checkpoint
from planil_jax.training import report as training_report
from planil_jax.training.files import DamageWarning

LAYOUTS = (figures.WIDE, figures.NARROW)
NAME = "a <b>bold</b> & 'quoted' name"


@pytest.fixture
def scene():
    line = np.stack([np.linspace(0, 10, 20)] * 2, axis=1)
    return views.Scene([line, line + 0.3], (10.0, 10.0, 1.5), (-4.0, 14.0, -4.0, 14.0))


@pytest.fixture
def drive():
    steps, plans, horizon = 12, 6, 4
    path = np.linspace([0.0, 0.0], [9.0, 9.0], steps + 1)
    rng = np.random.default_rng(0)
    noise = np.cumsum(rng.normal(0, 0.2, (steps, plans, horizon + 1, 2)), axis=2)
    weights = np.full((steps, plans), 1 / plans)
    return views.Drive(
        obs=np.column_stack([path, np.tile([0.6, 0.8, 2.0, 0.0, 0.0], (steps + 1, 1))]),
        reward=np.linspace(-1, 1, steps),
        plans=path[:-1, None, None] + noise,
        weights=weights,
        mean=path[:-1, None] + noise.mean(1),
        effective=np.full(steps, float(plans)),
    )


# -------------------------------------------------------------------------------- figures


@pytest.mark.parametrize("seed_count", [1, 3, 8, 12])
def test_curves_are_drawn_for_any_number_of_seeds_and_for_nan(seed_count):
    steps = np.arange(1, 6) * 1000
    values = np.ones((5, seed_count)) * np.geomspace(1, 100, 5)[:, None]
    with_nan = values.copy()
    with_nan[2:] = np.nan
    metrics = {
        "eval/return": (steps[-1:], values[-1:]),
        "value/loss": (steps, with_nan),
        "discriminator/accuracy": (steps, np.full_like(values, np.nan)),
        "other/metric": (steps, values),
    }
    for layout in LAYOUTS:
        members = [f"seed {seed}" for seed in range(seed_count)]
        drawn = figures.learning_curves(metrics, members, ("expert", 100.0), layout)
        titles = [axes.get_title("left") for axes in drawn.axes]
        assert titles[0] == "Return in evaluation" and "Other: metric" in titles
        assert len(drawn.axes[1].lines) >= seed_count
        assert_on_the_sheet(drawn)
        assert not any(axes.texts for axes in drawn.axes)  # nothing is written over curves
        names = [text.get_text() for text in drawn.legends[0].get_texts()]
        assert {"seed 0", "expert", *members[:10]} <= set(names)
        assert ("and 2 more, in the same colours" in names) == (seed_count == 12)
    page.figure(drawn, "caption", "alt")


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_lowest_panels_and_no_others_name_the_steps(count, layout):
    values = (np.arange(3), np.ones((3, 1)))
    metrics = {"eval/return": values} | {f"part/{i}": values for i in range(count - 1)}
    drawn = figures.learning_curves(metrics, ["seed 0"], layout=layout)
    spans = [axes.get_subplotspec() for axes in drawn.axes]
    for axes, own in zip(drawn.axes, spans, strict=True):
        below = [
            other
            for other in spans
            if other.rowspan.start > own.rowspan.start
            and set(other.colspan) & set(own.colspan)
        ]
        assert bool(axes.get_xlabel()) == (not below)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("height", [0.0, 5.0])
def test_a_map_has_a_panel_for_every_seed_even_where_it_is_flat(scene, signed, height):
    axis = np.linspace(-4, 14, 9)
    values = height * np.random.default_rng(0).normal(size=(3, 9, 9))
    paths = np.zeros((3, 3, 5, 2))
    for layout in LAYOUTS:
        drawn = figures.landscape(
            scene, axis, axis, values, paths, "value", signed, list("abc"), layout
        )
        assert [axes.get_title("left") for axes in drawn.axes[:3]] == list("abc")
        assert_on_the_sheet(drawn)
    page.figure(drawn, "caption", "alt")


def test_a_field_counts_the_starts_that_arrive(scene):
    paths = np.random.default_rng(0).uniform(-20, 20, (2, 4, 6, 2))
    reached = np.array([[True] * 4, [False, True, False, False]])
    for layout in LAYOUTS:
        drawn = figures.field(scene, paths, reached, 40.0, ["seed 5", "seed 6"], layout)
        titles = [axes.get_title("left") for axes in drawn.axes]
        assert titles == ["seed 5: 4 of 4 arrive", "seed 6: 1 of 4 arrive"]
        assert_on_the_sheet(drawn)
    page.figure(drawn, "caption", "alt")


def test_the_still_shows_four_steps_of_the_drive(scene, drive):
    for layout in LAYOUTS:
        drawn = figures.plans_still(scene, drive, layout=layout)
        steps = [int(axes.get_title("left").split()[-1]) for axes in drawn.axes[1:]]
        assert len(steps) == 4 and sorted(set(steps)) == steps
        assert_on_the_sheet(drawn)
    page.figure(figures.plans_still(scene, drive, [3]), "caption", "alt")


def test_trajectories_have_a_panel_for_every_entry():
    learner = np.zeros((2, 3, 6, 4))
    learner[:, :, 4:] = np.nan
    names = ["a", "b", "c", "d"]
    members = ["seed 0, agent.learning_rate=0.0001", "seed 0, agent.learning_rate=0.001"]
    for layout in LAYOUTS:
        drawn = figures.trajectories(
            names, learner, [np.ones((5, 4))], 0.1, members, layout
        )
        assert [axes.get_title("left") for axes in drawn.axes] == names
        assert_on_the_sheet(drawn)
    page.figure(drawn, "caption", "alt")


# ----------------------------------------------------------------------------------- page


def test_a_notebook_shows_the_whole_page_in_a_frame():
    written = page.assemble(NAME, [page.player({"note": NAME}, NAME)])
    frame = page.inline(written)
    (source,) = re.findall(r'srcdoc="([^"]*)"', frame)
    assert html.unescape(source) == written
    Balance().check(frame)


def test_every_text_is_escaped():
    parts = [
        page.header(NAME, [NAME], NAME),
        page.section(NAME, page.text(NAME), page.tiles([(NAME, NAME, NAME)])),
        page.table(NAME, [(NAME, NAME, True)]),
        page.figure(
            figures.trajectories(["a"], np.zeros((1, 1, 2, 1)), [], 1.0, [NAME]),
            NAME,
            NAME,
        ),
    ]
    written = page.assemble(NAME, parts)
    assert "<b>" not in written and "&lt;b&gt;bold" in written
    assert_whole(written)


def test_a_phone_is_given_a_figure_of_its_own():
    wide, narrow = (
        figures.trajectories(["a"], np.zeros((1, 1, 2, 1)), [], 1.0, ["seed 0"], layout)
        for layout in LAYOUTS
    )
    written = page.figure(wide, "caption", "alt", narrow)
    widths = [int(width) for width in re.findall(r"width='(\d+)'", written)]
    assert widths[0] < 390 < widths[1]  # the source comes before the image that it replaces
    assert written.index("<source media='(max-width:") < written.index("<img")
    assert len(set(re.findall(r"src(?:set)?='(data:[^']*)'", written))) == 2


def test_the_player_cannot_be_ended_by_its_data():
    written = page.player({"note": "</script><b>"}, NAME)
    assert "<b>" not in written
    assert drive_in(written) == {"note": "</script><b>"}


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    page.save(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"report\.html .*No space left on device\.$"):
        page.save(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


# --------------------------------------------------------------------------------- report


def test_a_run_off_the_plane_that_was_not_evaluated_is_reported(tmp_path):
    trained = untrained("pendulum", tmp_path / "a <b>")
    path = report.write(trained)
    written = path.read_text()
    assert_whole(written)
    assert "has not been evaluated yet" in written and "--field" not in written
    assert "has no metrics yet" in written
    assert "MPAIL on pendulum" in written
    assert 'id="player"' not in written


def test_a_drive_has_a_frame_a_step_and_shows_the_plans_that_weigh_most(
    tmp_path, monkeypatch
):
    def plans(params, carry, state, key):
        paths = jnp.broadcast_to(state.obs, (4, 4, *state.obs.shape))
        weights = jnp.arange(4) / 6
        return paths, weights, paths[0]

    shows = Shows(
        reward=lambda params, obs, action, next_obs: next_obs[..., 0] - obs[..., 0],
        value=lambda params, obs: -jnp.linalg.norm(obs[..., :2] - 10.0, axis=-1),
        plans=plans,
    )
    monkeypatch.setattr(mpail, "shows", lambda task, config: shows)
    trained = untrained("navigation", tmp_path)
    written = report.write(trained).read_text()
    assert_whole(written)
    animation = drive_in(written)
    steps = trained.env.spec.episode_length
    assert len(animation["frames"]) == steps
    assert all(len(curve["values"]) == steps for curve in animation["traces"])
    np.testing.assert_allclose(animation["goal"], [10.0, 10.0, 1.5], atol=0.1)
    first = animation["frames"][0]
    assert first["weights"] == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0], abs=1e-3)
    assert first["mean"][:2] == pytest.approx(first["pose"][:2], abs=0.01)
    effective = animation["traces"][2]["values"]  # 1 / Σ w²
    assert effective[0] == pytest.approx(36 / 14, abs=0.1)
    landscape = views.landscape(trained, views.scene(trained))
    top = np.unravel_index(landscape.value[0].argmax(), landscape.value[0].shape)
    assert landscape.y[top[0]] == pytest.approx(10.0, abs=0.3)
    assert landscape.x[top[1]] == pytest.approx(10.0, abs=0.3)


@pytest.mark.parametrize(
    ("can", "words", "absent"),
    [
        ({}, ["Observations over time"], ["Maps of the"]),
        (
            {"reward": lambda params, obs, action, next_obs: obs[..., 0]},
            ["Observations over time", "Maps of the reward"],
            ["Maps of the value"],
        ),
        (
            {"value": lambda params, obs: obs[..., 0]},
            ["Observations over time", "Maps of the value"],
            ["Maps of the reward"],
        ),
    ],
)
def test_a_report_shows_what_the_method_can_show(tmp_path, monkeypatch, can, words, absent):
    monkeypatch.setattr(mpail, "shows", lambda task, config: Shows(**can))
    trained = untrained("navigation:episode_length=5", tmp_path)
    written = report.render(trained)
    assert_whole(written)
    assert all(word in written for word in words)
    assert not any(word in written for word in (*absent, 'id="player"'))
    assert not (tmp_path / report.REPORT_FILE).exists()  # render writes nothing
    assert not (tmp_path / report.PLANS_FILE).exists()


def test_an_evaluation_is_the_headline_and_says_where_it_is_of_another_step(tmp_path):
    summary = {"mean": 0.9, "low": 0.8, "high": 0.95}
    inside = {
        "return": summary,
        "expert_return": 850.0,
        "share_of_expert": summary,
        "shares": [0.9, 0.88],
        "cross_track_m": {"mean": 0.25, "largest": 1.5},
    }
    field = {"side_m": 40.0, "starts": 32, "successes": [0.5, 1.0], "mean_success": 0.75}
    found = {"step": 7, "seeds": 2, "members": ["seed 0", "seed 1"]}
    found |= {"in_distribution": inside, "fields": [field]}
    (tmp_path / "evaluation.json").write_text(json.dumps(found))
    written = report.write(untrained("pendulum", tmp_path)).read_text()
    for text in ("90%", "80–95%", "75%", "0.25 m", "These numbers are of step 7"):
        assert text in written


def test_a_report_says_where_the_metrics_end_before_the_checkpoint(tmp_path):
    trained = untrained("pendulum", tmp_path)._replace(step=8)
    line = {"step": 4, "seconds": 1.0, "processor_seconds": 1.0}
    line |= {"metrics": {"train/reward": [0.5] * trained.experiment.seeds}}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.warns(DamageWarning, match="metrics.jsonl: metrics end at step 4, before"):
        written = report.write(trained).read_text()
    assert "metrics end at step 4, before the checkpoint of step 8" in written


def test_a_report_says_which_seed_stopped_and_draws_the_gap(tmp_path):
    trained = untrained("pendulum", tmp_path)
    with training_report.Report(tmp_path, console=False) as writer:
        writer.start(0, 60)
        for step, value in ((20, 1.0), (40, math.nan), (60, math.nan)):
            invalid = np.array([0.0 if step == 20 else math.nan])
            metrics = {"eval/return": np.array([value]), "train/invalid_steps": invalid}
            writer.epoch(step, metrics)
    stopped = checkpoint.Stopped(member=0, step=40, part="value", kept=20)
    written = report.render(trained._replace(stopped=(stopped,)))
    assert_whole(written)
    assert "seed 0 became not finite at step 40 in value and stopped; its" in written


def test_a_seed_that_the_run_lacks_is_refused(tmp_path):
    with pytest.raises(UsageError, match="seed_index=1"):
        report.write(untrained("pendulum", tmp_path), seed_index=1)


def test_every_recipe_is_trained_again_by_its_name_alone(tmp_path):
    for env, name in recipes.names():
        settings = compose(name, env)[0]
        words = commands.train(run_of(settings, tmp_path))
        assert "--set" not in words
        assert told(words) == settings


@pytest.mark.parametrize(
    ("name", "env", "changes"),
    [
        (
            "mpail",
            "pendulum",
            {"planner.samples": 4, "reward": "gail_pos", "run.keep_last": 7},
        ),
        ("iqmpc/steady", "pendulum", {"planner.horizon": 2}),
        ("bc", "point_mass:episode_length=9", {"policy.network.hidden": (4, 4)}),
        (
            "gaifo",
            "navigation",
            {"episodes": 3, "model": ("navigation", "navigation:dt=1")},
        ),
        ("ppo", "pendulum", {"learning_rate": 1e-5}),
    ],
)
def test_the_command_trains_the_run_again_and_sets_what_differs(
    tmp_path, name, env, changes
):
    settings = compose(name, env)[0]
    for path, value in changes.items():
        settings = experiment.with_value(settings, path, value)
    settings = experiment.with_value(settings, "seed", 7)
    settings = experiment.with_value(settings, "run.total_steps", 123)
    words = commands.train(run_of(settings, tmp_path))
    assert words.count("--set ") == len(changes)
    assert ("--demos" in words) == (name != "ppo")
    assert told(words) == settings


def test_what_no_flag_can_tell_is_trained_again_from_a_copy_of_its_configuration(tmp_path):
    directory = tmp_path / "a run"
    settings = experiment.for_method("bc", module="mine")
    first, second, third = commands.train(run_of(settings, directory)).splitlines()
    copied = [str(directory / name) for name in ("config.json", runs.DEMONSTRATIONS)]
    assert shlex.split(second) == ["cp", *copied, shlex.split(first)[-1]]
    assert {"--resume", "--trust_imports"} <= set(third.split())
    for command in (commands.resume, commands.evaluate):
        words = shlex.split(command(run_of(settings, directory)))
        assert "--trust_imports" in words and any(str(directory) in word for word in words)


def test_a_run_whose_environment_was_an_object_has_no_commands(tmp_path):
    settings = experiment.for_method("bc", environment=f"{envs.OBJECT}mine")
    trained = run_of(settings, tmp_path)
    for command in (commands.train, commands.resume, commands.evaluate):
        assert command(trained) is None


def test_a_run_that_came_to_its_end_continues_for_longer(tmp_path):
    settings = experiment.with_value(experiment.for_method("bc"), "run.total_steps", 100)
    trained = run_of(settings, tmp_path)
    assert "--total_steps" not in commands.resume(trained._replace(step=50))
    words = shlex.split(commands.resume(trained._replace(step=128)))
    assert int(words[-1].partition("=")[2]) > 128


# -------------------------------------------------------------------------------- helpers


def untrained(environment, directory):
    """A run of one seed that always acts the same, so that little is compiled."""
    directory.mkdir(exist_ok=True)
    settings = experiment.Experiment(
        environment=environment,
        agent=mpail.Config(planner=mppi.Config(samples=4, horizon=3)),
    )
    env = envs.make(environment)
    size = env.spec.observation_size
    obs = np.linspace(np.zeros(size), np.full(size, 10.0), 8, dtype=np.float32)
    card = demos.Card(
        environment=environment,
        control_period=env.spec.control_period,
        observation_names=env.spec.observation_names,
        action_low=env.spec.action_low,
        action_high=env.spec.action_high,
    )
    episode = demos.Episode(obs=obs, actions=None, rewards=None, terminal=False)
    demos.save(directory / runs.DEMONSTRATIONS, [episode], card)
    loaded = demos.load(directory / runs.DEMONSTRATIONS, env.spec)
    forward = jnp.ones(env.spec.action_size)
    idle = Agent(
        init=lambda key: (),
        carry=lambda: (),
        act=lambda params, carry, state, key, explore: (forward, carry),
        update=lambda state, *_: (state, {}),
    )
    return runs.Run(directory, settings, env, lambda *_: idle, loaded, jnp.zeros(1), {}, 0)


def run_of(settings, directory):
    """A run of which only the configuration is read."""
    env = None
    return runs.Run(directory, settings, env, None, None, None, {}, 0)


def told(words):
    """The experiment that the words of a command ask for, as `planil train` reads it."""
    words = shlex.split(words.replace("\\\n", " "))
    assert words[:2] == ["planil", "train"]
    changes = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    flags = dict(
        word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word
    )
    found = compose(flags["method"], flags["env"])[0]
    found = config.set_path(found, "run.total_steps", int(flags["total_steps"]))
    for change in changes:
        found = experiment.with_value(found, *config.assignment(change))
    for flag in ("seed", "seeds"):
        found = experiment.with_value(found, flag, int(flags[flag]))
    return found


def assert_on_the_sheet(figure):
    """All panels and legends lie within the figure, and no two panels overlap."""
    figure.draw_without_rendering()
    sheet = figure.bbox.padded(1.0)
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    for part in [*figure.axes, *filter(None, legends)]:
        box = part.get_tightbbox()
        assert sheet.containsx(box.x0) and sheet.containsx(box.x1), part
        assert sheet.containsy(box.y0) and sheet.containsy(box.y1), part
    boxes = [axes.get_position() for axes in figure.axes]
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[:i])


def assert_whole(written):
    """One file: nothing is loaded from elsewhere, and every element that opens closes."""
    assert "://" not in written
    assert len(written) < 4e6
    for source in re.findall(r"(?:src|srcset|href)=['\"]?([^'\" >]*)", written):
        assert source.startswith("data:")
    assert "url(" not in written and "@import" not in written
    Balance().check(written)


class Balance(html.parser.HTMLParser):
    """Counts elements that are open."""

    def check(self, written):
        self.open = []
        self.feed(written)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "input", "br", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def drive_in(written):
    found = re.search(r'<script type="application/json" id="drive">(.*?)</script>', written)
    return json.loads(found[1])
