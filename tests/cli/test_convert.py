import csv

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import planil_jax as pj
from planil_jax.base import UsageError
from planil_jax.cli import convert
from planil_jax.data import formats

pytestmark = pytest.mark.fast


@pytest.fixture
def log(tmp_path):
    """Two drives at 20 Hz, in centimetres."""
    path = tmp_path / "log.csv"
    with open(path, "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["stamp", "drive", "px [cm]", "py [cm]", "throttle", "steering"])
        for drive in range(2):
            for k in range(21):
                lines.writerow([0.05 * k, drive, 5.0 * k, 10 * drive, 0.4, 2.0])
    return path


def test_the_flags_are_the_arguments_of_load_demos(log, tmp_path, capsys):
    defined = flags.FlagValues()
    with flagsaver.flagsaver():
        original, convert.FLAGS = convert.FLAGS, defined
        defining = convert.flags
        try:
            convert.flags = _Definer(defined)
            convert.define_flags()
            out = str(tmp_path / "ours.npz")
            command = f"planil {log} --env=navigation --out={out} --time=stamp --clip"
            command += " --split_by=drive --actions=throttle,steering --every=4"
            maps = ["--map=px [cm]=x [m]", "--map=py [cm]=y [m]"]
            _, source = defined([*command.split(), *maps])
            defined["source"].parse(source)
            convert.main()
        finally:
            convert.FLAGS, convert.flags = original, defining
    demos = pj.load_demos(
        log,
        "navigation",
        time="stamp",
        split_by="drive",
        names={"px [cm]": "x [m]", "py [cm]": "y [m]"},
        actions=("throttle", "steering"),
        every=4,
        clip=True,
    )
    written = pj.load_demos(out)
    assert len(demos) == len(written) == 5  # of 10 steps each: 0, 4, 8; and 2, 6
    for one, other in zip(demos, written, strict=True):
        np.testing.assert_array_equal(one.obs, other.obs)
        np.testing.assert_array_equal(one.actions, other.actions)
    assert demos.card.note == written.card.note
    said = capsys.readouterr()
    note = "20 of 40 numbers of actions were clipped to their bounds."
    assert f"note: {note}" in said.out and note in said.err and note in demos.card.note


class _Definer:
    """absl's `flags`, which defines for other values than those of the process."""

    def __init__(self, values):
        self.values = values

    def __getattr__(self, name):
        define = getattr(flags, name)
        return lambda *args, **options: define(*args, **options, flag_values=self.values)


def test_columns_in_order_and_columns_by_names_are_not_mixed():
    assert convert._names(["pos", "vel"]) == ("pos", "vel")
    assert convert._names(["a=b=x [m]"]) == {"a=b": "x [m]"}
    with pytest.raises(UsageError, match="--map=vel: must be THEIRS=OURS, as the others"):
        convert._names(["pos=x [m]", "vel"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every"),
        ({"period": -1.0}, "period"),
        ({"max_gap": 0.0}, "max_gap"),
        ({"clip": 1}, "clip"),
        ({"time_unit": "h"}, "time_unit"),
        ({"episodes": 0}, "episodes"),
        ({"names": (3,)}, "names"),
    ],
)
def test_an_argument_that_is_wrong_is_named(log, options, message):
    with pytest.raises(UsageError, match=message):
        pj.load_demos(log, "navigation", **options)


def test_every_field_of_the_options_is_a_flag_and_an_argument():
    fields = set(formats.Options.__dataclass_fields__)
    assert fields == {*convert._SAME, "names", "actions"}
    assert fields <= set(pj.load_demos.__annotations__)
