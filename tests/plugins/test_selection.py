"""Who switches what on and off: the nearest has the last word, and `--why` tells who it was."""

import json

import pytest

from trainbus import PluginError, Trainer
from trainbus.plugins import selection as chosen

#: From the farthest to the nearest, as `why` calls them.
LEVELS = ("trainbus.toml", "Trainer", "TRAINBUS_PLUGINS", "command line")
PAIRS = [(far, near) for i, far in enumerate(LEVELS) for near in LEVELS[i + 1 :]]


@pytest.fixture
def wish(tmp_path, monkeypatch, told):
    """`wish({level: name})`: what is selected when each level asks for one thing."""

    def select(wishes):
        argument = []
        for level, item in wishes.items():
            if level == "trainbus.toml":
                (tmp_path / "trainbus.toml").write_text(f'plugins = ["{item}"]')
            elif level == "Trainer":
                argument = [item]
            elif level == "TRAINBUS_PLUGINS":
                monkeypatch.setenv("TRAINBUS_PLUGINS", item)
            else:
                told(item)
        return chosen.select(argument)

    return select


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_can_switch_a_plugin_on(in_zoo, wish, level):
    assert wish({level: "good"}).active["good"].why.endswith(level)


def test_pyproject_can_switch_a_plugin_on(in_zoo, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.trainbus]\nplugins = ["good"]')
    assert chosen.select().active["good"].why == str(tmp_path / "pyproject.toml")


@pytest.mark.parametrize("name", ["trainbus-good", "trainbus_good", "Trainbus.Good"])
def test_a_distribution_can_be_named_for_its_plugin(in_zoo, load, name):
    assert load(name)["good"].distribution == "trainbus-good"


@pytest.mark.parametrize("off", ["-good", "no:good", "-trainbus-good", "no:trainbus_good"])
@pytest.mark.parametrize(("far", "near"), PAIRS)
def test_the_nearer_level_switches_off(in_zoo, wish, far, near, off):
    selection = wish({far: "good", near: off})
    assert "good" not in selection.active
    assert selection.blocked["good"].endswith(near)


@pytest.mark.parametrize(("far", "near"), PAIRS)
def test_the_nearer_level_switches_on_again(in_zoo, wish, far, near):
    selection = wish({far: "-good", near: "good"})
    assert selection.active["good"].why.endswith(near)
    assert "good" not in selection.blocked


def test_a_default_can_be_switched_off(in_zoo, load):
    assert "manifest" in load()
    assert "manifest" not in load("-manifest")


def test_switching_off_by_distribution_means_all_of_its_plugins(in_zoo):
    selection = chosen.select(["costs", "energy", "-acme-hooks"])
    assert {"costs", "energy"} <= set(selection.blocked)


def test_the_last_word_of_one_list_counts(in_zoo):
    assert "good" in chosen.select(["-good", "good"]).active
    assert "good" in chosen.select(["good", "-good"]).blocked


def test_several_names_in_the_environment_stand_between_commas(in_zoo, monkeypatch):
    monkeypatch.setenv("TRAINBUS_PLUGINS", " good, -manifest ,,costs")
    selection = chosen.select()
    assert {"good", "costs"} <= set(selection.active)
    assert "manifest" in selection.blocked


def test_plugins_are_called_in_the_order_in_which_they_are_named(in_zoo, load):
    named = ["energy", "good", "costs"]
    assert list(load(*named))[-3:] == named
    called = Trainer(plugins=named).bus.order()["on_fit_start"]
    assert [name for name in called if name in named] == named


def test_a_single_name_instead_of_a_list_is_refused():
    with pytest.raises(PluginError, match=r"plugins='good': give a list, \['good'\]"):
        Trainer(plugins="good")


def test_switching_off_what_is_not_installed_is_no_mistake(load):
    assert "nosuch" not in load("-nosuch")


# --- through the command -------------------------------------------------------------------------


def why(done):
    return {row["name"]: (row["is"], row["because of"]) for row in json.loads(done.stdout)}


def test_why_names_the_file_the_variable_and_the_command_line(zoo, tmp_path):
    file = tmp_path / "trainbus.toml"
    file.write_text('plugins = ["good", "-nonfinite", "costs"]')
    done = zoo.trainbus(
        "-p", "typed", "plugins", "--why", "-p", "no:costs", "--json", TRAINBUS_PLUGINS="energy"
    )
    assert why(done) == {
        "journal": ("on", "built in"),
        "manifest": ("on", "built in"),
        "nonfinite": ("off", str(file)),
        "good": ("on", str(file)),
        "energy": ("on", "TRAINBUS_PLUGINS"),
        "typed": ("on", "command line"),
        "costs": ("off", "command line"),
    }


def test_off_on_the_command_line_may_be_a_hyphen(zoo, tmp_path):
    (tmp_path / "trainbus.toml").write_text('plugins = ["good"]')
    assert why(zoo.trainbus("plugins", "--why", "--json", "-p", "-good"))["good"][0] == "off"


def test_the_listing_names_who_switched_a_plugin_off(zoo, tmp_path):
    (tmp_path / "trainbus.toml").write_text('plugins = ["good"]')
    rows = json.loads(zoo.trainbus("-p", "no:good", "plugins", "--json").stdout)
    (good,) = (row for row in rows if row["name"] == "good")
    assert good["status"] == "off"
    assert good["note"] == "by command line"


def test_the_command_line_reaches_the_trainers_that_a_verb_makes(zoo, tmp_path):
    (tmp_path / "verbs.py").write_text(
        """
import click
from trainbus import hookimpl

@hookimpl
def register_commands(commands):
    @commands.command()
    def show():
        from trainbus.plugins.loading import load  # as a trainer does
        click.echo([each.name for each in load(["costs"])])
"""
    )
    done = zoo.trainbus("-p", "./verbs.py", "-p", "good", "-p", "no:costs", "show")
    assert "'good'" in done.stdout
    assert "'costs'" not in done.stdout
