"""Options: where they come from, what they become, and what is said of wrong ones."""

import json
import sys
from pathlib import Path

import pytest

from trainbus import PluginError, Trainer
from trainbus.plugins.options import placed


@pytest.fixture
def project(tmp_path):
    """`project(text)`: write `trainbus.toml`."""
    return (tmp_path / "trainbus.toml").write_text


def refusal(load, *plugins):
    with pytest.raises(PluginError) as caught:
        load(*plugins)
    return str(caught.value)


# --- what an entry point names -------------------------------------------------------------------


def test_a_dataclass_gets_its_fields(in_zoo, project, load):
    project("[options.typed]\nsteps = 3\nmode = 'max'")
    plugin = load("typed")["typed"].object
    assert (plugin.steps, plugin.mode, plugin.rate) == (3, "max", 0.5)


def test_a_plain_class_gets_its_parameters(in_zoo, project, load):
    project("[options.plain]\nsize = 3")
    plugin = load("plain")["plain"].object
    assert (plugin.size, plugin.name) == (3, "plain")


def test_a_factory_gets_its_parameters(in_zoo, project, load):
    project("[options.made]\nsize = 3")
    plugin = load("made")["made"].object
    assert (plugin.size, plugin.name) == (3, "made")


def test_a_module_is_a_plugin_without_options(in_zoo, project, load):
    assert load("whole")["whole"].object is sys.modules["trainbus_kinds"]
    project("[options.whole]\nsize = 3")
    message = refusal(load, "whole")
    assert "plugin whole (trainbus-kinds 1.0) has no option 'size'" in message


# --- where they come from ------------------------------------------------------------------------


def test_pyproject_can_set_options(in_zoo, tmp_path, load):
    (tmp_path / "pyproject.toml").write_text("[tool.trainbus.options.typed]\nsteps = 3")
    assert load("typed")["typed"].object.steps == 3


def test_the_environment_can_set_options(in_zoo, monkeypatch, load):
    monkeypatch.setenv("TRAINBUS_TYPED_STEPS", "3")
    assert load("typed")["typed"].object.steps == 3


def test_the_command_line_can_set_options(in_zoo, told, load):
    told(options=("typed.steps=3",))
    assert load("typed")["typed"].object.steps == 3


def test_the_nearest_value_counts_and_the_others_stay(in_zoo, project, monkeypatch, told, load):
    project("[options.typed]\nsteps = 1\nrate = 1.0\nlabel = 'file'")
    monkeypatch.setenv("TRAINBUS_TYPED_STEPS", "2")
    monkeypatch.setenv("TRAINBUS_TYPED_RATE", "2.0")
    told(options=("typed.steps=3",))
    plugin = load("typed")["typed"].object
    assert (plugin.steps, plugin.rate, plugin.label) == (3, 2.0, "file")


def test_the_last_of_two_values_on_the_command_line_counts(in_zoo, told, load):
    told(options=("typed.steps=3", "typed.steps=4"))
    assert load("typed")["typed"].object.steps == 4


def test_the_command_passes_options_on(zoo):
    script = """
import sys, click
from trainbus import hookimpl

@hookimpl
def register_commands(commands):
    @commands.command()
    def show():
        from trainbus.plugins.loading import load
        click.echo([each.options["steps"] for each in load(["typed"]) if each.name == "typed"])
"""
    Path("verbs.py").write_text(script)
    done = zoo.trainbus("-p", "./verbs.py", "-p", "typed", "-o", "typed.steps=7", "show")
    assert done.stdout.strip() == "[7]"


# --- what text becomes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("steps", "3", 3),
        ("rate", "1e-3", 0.001),
        ("rate", "2", 2.0),
        ("loud", "true", True),
        ("loud", "yes", True),
        ("loud", "0", False),
        ("tags", '["a", "b"]', ["a", "b"]),
        ("tags", "[]", []),
        ("where", "some/where", Path("some/where")),
        ("mode", "max", "max"),
        ("limit", "5", 5),
        ("label", "5", "5"),
        ("label", "a=b", "a=b"),
        ("label", "", ""),
    ],
)
def test_text_becomes_what_the_type_says(in_zoo, told, monkeypatch, load, key, text, value):
    monkeypatch.setenv(f"TRAINBUS_TYPED_{key.upper()}", text)
    from_environment = getattr(load("typed")["typed"].object, key)
    monkeypatch.delenv(f"TRAINBUS_TYPED_{key.upper()}")
    told(options=(f"typed.{key}={text}",))
    from_command_line = getattr(load("typed")["typed"].object, key)
    assert from_environment == from_command_line == value
    assert type(from_command_line) is type(value) or isinstance(value, Path)


def test_a_project_file_gives_values_with_their_types(in_zoo, project, tmp_path, load):
    project("[options.typed]\nrate = 2\nloud = true\ntags = ['a']\nwhere = 'x'\nlimit = 5")
    plugin = load("typed")["typed"].object
    assert (plugin.rate, plugin.loud, plugin.tags) == (2.0, True, ["a"])
    assert (plugin.where, plugin.limit) == (tmp_path / "x", 5)


@pytest.mark.parametrize("inner", ["", "inner/deep"])
def test_a_path_in_a_file_is_meant_from_the_file(
    in_zoo, project, tmp_path, monkeypatch, load, inner
):
    project("[options.typed]\nwhere = 'data/x'")
    (tmp_path / inner).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / inner)
    assert load("typed")["typed"].object.where == tmp_path / "data" / "x"


@pytest.mark.parametrize(
    ("annotation", "value", "right"),
    [
        (Path, Path("x"), Path("/f/x")),
        (Path, Path("/else/x"), Path("/else/x")),
        (Path, Path("~/x"), Path("~/x")),
        (str | Path | None, "x", "/f/x"),
        (str | Path | None, "s3://bucket/x", "s3://bucket/x"),
        (str | Path | None, None, None),
        (str, "x", "x"),
        (list[Path], [Path("x")], [Path("/f/x")]),
        (list[str | Path], ["x"], ["/f/x"]),
        (dict[str, Path], {"x": Path("x")}, {"x": Path("/f/x")}),
        (dict[str, str | Path] | None, {"x": "x"}, {"x": "/f/x"}),
        (list[str], ["x"], ["x"]),
    ],
)
def test_what_may_be_a_path_is_placed_and_nothing_else(annotation, value, right):
    assert placed(value, annotation, Path("/f")) == right


# --- wrong ones ----------------------------------------------------------------------------------


def test_an_unknown_option_names_key_file_and_nearest(in_zoo, project, tmp_path, load):
    project("[options.typed]\nstep = 3")
    message = refusal(load, "typed")
    assert message.startswith(str(tmp_path / "trainbus.toml"))
    assert "typed (trainbus-kinds 1.0)" in message
    assert "no option 'step'; did you mean 'steps'?" in message


def test_an_unknown_option_like_no_other_is_answered_with_all(in_zoo, told, load):
    told(options=("made.qqq=3",))
    message = refusal(load, "made")
    assert message.startswith("-o made.qqq")
    assert "did you mean" not in message
    assert "size" in message


@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        ("steps", "2.5", "integer"),
        ("steps", "'many'", "integer"),
        ("rate", "'fast'", "number"),
        ("loud", "'maybe'", "boolean"),
        ("tags", "'a'", "list"),
        ("mode", "'middle'", "'min' or 'max'"),
        ("label", "5", "string"),
    ],
)
def test_an_ill_typed_option_names_key_file_value_and_what_is_right(
    in_zoo, project, tmp_path, load, key, value, right
):
    project(f"[options.typed]\n{key} = {value}")
    message = refusal(load, "typed")
    assert str(tmp_path / "trainbus.toml") in message
    assert f"option {key!r} of plugin typed" in message
    assert f"is {value}" in message
    assert right in message


def test_an_ill_typed_option_names_the_variable(in_zoo, monkeypatch, load):
    monkeypatch.setenv("TRAINBUS_TYPED_STEPS", "many")
    assert refusal(load, "typed").startswith("TRAINBUS_TYPED_STEPS: option 'steps'")


def test_an_ill_typed_option_names_the_option_of_the_command_line(in_zoo, told, load):
    told(options=("typed.steps=many",))
    assert refusal(load, "typed").startswith("-o typed.steps: option 'steps'")


def test_a_missing_option_that_is_required_is_named(in_zoo, load):
    message = refusal(load, "plain")
    assert "plain (trainbus-kinds 1.0)" in message
    assert "needs the option 'size'" in message
    assert "-o plain.size=VALUE" in message


def test_a_value_that_the_plugin_refuses_names_the_plugin_and_its_reason(in_zoo, told, load):
    told(options=("vault.api_key=abc",))
    message = refusal(load, "vault")
    assert "vault (trainbus-vault 1.0)" in message
    assert "ValueError: the key is too short" in message


def test_an_option_of_a_plugin_that_is_not_active_is_refused(in_zoo, told, load):
    told(options=("typed.steps=3",))
    message = refusal(load)
    assert "'typed' is not active" in message
    assert "-p typed" in message


def test_an_option_of_a_misspelt_plugin_is_answered_with_the_nearest(in_zoo, told, load):
    told(options=("tpyed.steps=3",))
    assert "did you mean 'typed'?" in refusal(load, "typed")


@pytest.mark.parametrize("text", ["typed", "typed.steps", "steps=3", "=3", "typed.=3"])
def test_an_option_that_is_not_written_as_such_is_refused(in_zoo, told, load, text):
    told(options=(text,))
    assert "write -o PLUGIN.OPTION=VALUE" in refusal(load, "typed")


def test_a_table_for_no_plugin_is_answered_with_the_nearest(in_zoo, project, tmp_path, load):
    project("[options.typd]\nsteps = 3")
    message = refusal(load)
    assert message.startswith(str(tmp_path / "trainbus.toml"))
    assert "[options.typd] is for no plugin; did you mean 'typed'?" in message


@pytest.mark.parametrize("name", ["typed", "tensorboard"])
def test_a_table_for_a_plugin_that_is_off_or_not_installed_may_stay(in_zoo, project, load, name):
    project(f"[options.{name}]\nanything = 3")
    assert name not in load()


def test_options_for_a_file_are_refused_not_ignored(in_zoo, told, tmp_path, load):
    (tmp_path / "hooks.py").write_text(
        "from trainbus import hookimpl\n\n@hookimpl\ndef on_fit_start(run): ...\n"
    )
    told(options=("hooks.steps=3",))
    assert "steps" in refusal(load, "./hooks.py")


def test_options_for_a_ready_made_plugin_are_refused_not_ignored(in_zoo, told, load):
    from trainbus_kinds import Typed

    told(options=("typed.steps=3",))
    assert "steps" in refusal(load, Typed())


def test_options_of_a_file_for_a_ready_made_plugin_are_refused_not_ignored(
    in_zoo, project, tmp_path, load
):
    from trainbus_kinds import Typed

    project("[options.typed]\nsteps = 3")
    message = refusal(load, Typed())
    assert message.startswith(str(tmp_path / "trainbus.toml"))
    assert "plugin 'typed' was made by the program" in message
    assert "Set it where the program makes the plugin" in message


def test_a_variable_for_a_ready_made_plugin_is_refused_not_ignored(in_zoo, monkeypatch, load):
    from trainbus_kinds import Typed

    monkeypatch.setenv("TRAINBUS_TYPED_STEPS", "3")
    assert refusal(load, Typed()).startswith("TRAINBUS_TYPED_STEPS: plugin 'typed' was made")


# --- what is written down ------------------------------------------------------------------------


def written(run):
    text = (run.dir / "run.json").read_text()
    return text, {each["name"]: each["options"] for each in json.loads(text)["plugins"]}


def test_the_manifest_has_all_options_also_the_defaults(in_zoo, told, fit):
    told(options=("typed.steps=3", "typed.where=x"))
    options = written(fit("typed"))[1]["typed"]
    assert (options["steps"], options["rate"], options["where"]) == (3, 0.5, "x")
    assert options["tags"] == ["first"]


def test_the_manifest_has_the_options_of_a_ready_made_plugin(in_zoo, fit):
    from trainbus_vault import Vault

    assert written(fit(Vault("hunter2", size=5)))[1]["vault"] == {"api_key": "***", "size": 5}


def test_the_manifest_hides_secrets(in_zoo, told, fit):
    told(options=("vault.api_key=hunter2", "vault.size=5"))
    text, options = written(fit("vault"))
    assert options["vault"] == {"api_key": "***", "size": 5}
    assert "hunter2" not in text


def test_the_manifest_hides_the_password_in_an_address(in_zoo, told, monkeypatch, fit):
    address = "https://me:hunter2@host:5000/x"
    monkeypatch.setattr(sys, "argv", ["trainbus", "-o", f"typed.label={address}", "demo"])
    told(options=(f"typed.label={address}",))
    text, options = written(fit("typed"))
    assert "hunter2" not in text
    assert options["typed"]["label"] == "https://me:***@host:5000/x"


def test_the_manifest_hides_secrets_that_stood_on_the_command_line(in_zoo, told, monkeypatch, fit):
    monkeypatch.setattr(sys, "argv", ["trainbus", "-o", "vault.api_key=hunter2", "demo"])
    told(options=("vault.api_key=hunter2",))
    assert "hunter2" not in written(fit("vault"))[0]


@pytest.mark.parametrize(
    "options",
    [
        ("vault.api_key=abc", "vault.size=1"),
        ("vault.api_key=abc", "vault.size=many"),
        ("vault.api_keys=abc",),
        ("nosuch.api_key=abc",),
    ],
    ids=["refused by the plugin", "another option is wrong", "misspelt", "of no plugin"],
)
def test_messages_hide_secrets(in_zoo, told, load, options):
    told(options=options)
    assert "abc" not in refusal(load, "vault")


def test_a_wrong_secret_is_not_shown(in_zoo, project, load):
    project("[options.vault]\napi_key = 12345")
    message = refusal(load, "vault")
    assert "api_key" in message
    assert "12345" not in message


def test_a_trainer_says_the_same(in_zoo, project):
    project("[options.typed]\nstep = 3")
    with pytest.raises(PluginError, match="did you mean 'steps'"):
        Trainer(plugins=["typed"])


def test_a_value_that_the_plugin_itself_refuses_names_plugin_and_place(monkeypatch):
    monkeypatch.setenv("TRAINBUS_CLIP_NORM", "-1")
    with pytest.raises(PluginError, match=r"clip.*: norm=-1.0: give .* \(TRAINBUS_CLIP_NORM\)"):
        Trainer(plugins=["clip"])
