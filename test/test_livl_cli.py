"""`ofvl livl` as a user runs it."""

from livl_helpers import recorded
from recording_helpers import ROS2, write_bag
from test_cli import ofvl, refused

from ofvl_core.datasets import load_scene


def test_bags_in_a_data_set_out(tmp_path):
    bag = write_bag(tmp_path / "drive one", recorded(ROS2))
    arguments = ["livl", "build", bag, tmp_path / "my data", "--scene", "Hall 2", "--poses", "topic"]
    output, errors = ofvl(*arguments, "--compare", "none", "--time-offset", "0")
    root = tmp_path / "my data" / "Hall_2"
    assert output.strip() == str(root)
    assert f"report: {root / 'report.html'}" in errors.replace("\n", "")
    assert load_scene(root).frames("train")
    assert "give --overwrite" in refused(*arguments)
    assert "report" in ofvl(*arguments, "--compare", "none", "--time-offset", "0", "--overwrite")[1]


def test_what_is_wrong_is_said_in_one_sentence(tmp_path):
    bag = write_bag(tmp_path / "drive", recorded(ROS2))
    assert "no bag before" in refused("livl", "build", bag, "--scene", "hall")
    out = tmp_path / "data"
    assert "no such bag" in refused("livl", "build", tmp_path / "nothing", out, "--scene", "hall")
    assert "not ROLE=NAME" in refused("livl", "build", bag, out, "--scene", "hall", "--topic", "color")
    assert not out.exists() or not any(out.iterdir())


def test_simulating_refuses_what_makes_no_sense(tmp_path):
    assert "unknown scene" in refused("livl", "simulate", tmp_path / "out", "--scene", "Moon")
