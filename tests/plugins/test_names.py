"""What plugins are called: names of one's own, names that clash, and names that are misspelt."""

import json

import pytest

from trainbus import PluginError, Trainer, UsageError, hookimpl
from trainbus.builtin import Checkpoint
from trainbus.plugins import selection as chosen
from trainbus.plugins.discovery import Installed

HOOKS = """
from trainbus import hookimpl

@hookimpl
def on_fit_start(run):
    run.header[__name__] = "was here"
"""


def refusal(*plugins):
    with pytest.raises(PluginError) as caught:
        Trainer(plugins=plugins)
    return str(caught.value)


def install(folder, name, plugin, group="trainbus.plugins"):
    """What pip leaves of a distribution with one plugin."""
    module = name.replace("-", "_")
    info = folder / f"{module}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{plugin} = {module}:P\n")
    (folder / f"{module}.py").write_text(
        "from trainbus import hookimpl\nclass P:\n    @hookimpl\n    def on_fit_start(self): pass\n"
    )


# --- one name, two plugins -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["acme-twin", "other-twin", "Other_Twin"])
def test_where_two_distributions_claim_a_name_each_can_be_named_itself(in_zoo, load, name):
    wanted = name.lower().replace("_", "-")
    assert load(name)["twin"].distribution == wanted


def test_both_of_two_distributions_that_claim_a_name_can_be_used(in_zoo, load):
    loaded = load("one=acme-twin", "two=other-twin")
    assert [loaded[name].distribution for name in ("one", "two")] == ["acme-twin", "other-twin"]


def test_the_name_that_two_claim_means_the_one_that_was_chosen_farther_away(
    in_zoo, tmp_path, told, load
):
    (tmp_path / "trainbus.toml").write_text('plugins = ["other-twin"]')
    told("twin")
    assert load()["twin"].distribution == "other-twin"


@pytest.mark.parametrize("group", ["trainbus.plugins", "trainbus.autoload"])
@pytest.mark.parametrize("name", ["journal", "checkpoint", "core"])
def test_a_package_that_claims_a_name_of_the_core_is_named_and_stops_nobody(
    tmp_path, monkeypatch, caplog, fit, trainbus, group, name
):
    package = f"acme-{name}-{group[9:]}"
    install(tmp_path, package, name, group)
    monkeypatch.syspath_prepend(tmp_path)
    assert fit().status == "completed"
    (warning,) = {record.getMessage() for record in caplog.records}
    assert f"{package} 0.1 offers a plugin {name!r}, a name that is trainbus's own" in warning
    assert package in trainbus("doctor", status=1).stdout
    rows = json.loads(trainbus("plugins", "--json").stdout)
    assert [row["status"] for row in rows if row["distribution"] == package] == ["broken"]


@pytest.mark.parametrize(
    "plugins",
    [
        ("checkpoint", "./checkpoint.py"),
        ("./checkpoint.py", "checkpoint"),
        ("checkpoint", Checkpoint()),
        (Checkpoint(), "checkpoint"),
        ("./checkpoint.py", Checkpoint()),
        ("./checkpoint.py", "other/checkpoint.py"),
        ("best=checkpoint", "best=./checkpoint.py"),
        ("best=checkpoint", "best=early_stopping"),
    ],
    ids=lambda pair: " and ".join(map(str, pair))[:40],
)
def test_two_plugins_of_one_name_in_one_list_are_an_error_whatever_they_are(tmp_path, plugins):
    for folder in (tmp_path, tmp_path / "other"):
        folder.mkdir(exist_ok=True)
        (folder / "checkpoint.py").write_text(HOOKS)
    message = refusal(*plugins)
    assert message.startswith("Trainer: two plugins are named ")
    assert "give one a name of its own" in message


@pytest.mark.parametrize("source", ["trainbus.toml", "TRAINBUS_PLUGINS", "command line"])
def test_that_is_so_in_every_list(tmp_path, monkeypatch, told, source):
    (tmp_path / "checkpoint.py").write_text(HOOKS)
    both = ["checkpoint", "./checkpoint.py"]
    if source == "trainbus.toml":
        (tmp_path / source).write_text(f"plugins = {both}")
    elif source == "command line":
        told(*both)
    else:
        monkeypatch.setenv(source, ",".join(both))
    assert f"{source}: two plugins are named 'checkpoint'" in refusal()


def test_one_plugin_may_be_named_twice(load, tmp_path):
    (tmp_path / "hooks.py").write_text(HOOKS)
    assert len(load("clip", "clip", "./hooks.py", "hooks.py", "hooks")) == 5


def test_a_nearer_list_replaces_and_the_header_says_so(tmp_path, fit):
    (tmp_path / "trainbus.toml").write_text('plugins = ["./checkpoint.py"]')
    (tmp_path / "checkpoint.py").write_text(HOOKS)
    run = fit("checkpoint")
    assert (run.dir / "checkpoints").is_dir()
    replaced = f"checkpoint (Trainer, in place of {tmp_path / 'checkpoint.py'} of "
    assert f"{replaced}{tmp_path / 'trainbus.toml'})" in run.header["plugins"]


def test_a_file_on_the_command_line_replaces_an_object_of_the_program(tmp_path, told, load):
    (tmp_path / "checkpoint.py").write_text(HOOKS)
    told("./checkpoint.py")
    loaded = load(Checkpoint())["checkpoint"]
    assert loaded.source == str(tmp_path / "checkpoint.py")
    assert "command line, in place of " in loaded.why


def test_an_object_of_the_program_stays_where_its_name_is_said_once_more(told, load):
    mine = Checkpoint(every_epochs=3)
    told("checkpoint")
    assert load(mine)["checkpoint"].object is mine


def test_a_file_stays_where_its_name_is_said_once_more(tmp_path, told, load):
    (tmp_path / "trainbus.toml").write_text('plugins = ["./hooks.py"]')
    (tmp_path / "hooks.py").write_text(HOOKS)
    told("hooks")
    assert load()["hooks"].source == str(tmp_path / "hooks.py")


# --- one plugin, several times -------------------------------------------------------------------


def test_a_plugin_is_used_twice_from_code_by_another_plugin_name(line, loader):
    second = Checkpoint(every_epochs=2)
    second.plugin_name = "second"
    trainer = Trainer(plugins=[Checkpoint(), second])
    assert [*trainer.bus.plugins][-2:] == ["checkpoint", "second"]
    described = {each.name: each for each in trainer.loaded}["second"]
    assert (described.distribution, described.options["every_epochs"]) == ("trainbus", 2)


@pytest.mark.parametrize("source", ["trainbus.toml", "Trainer", "environment", "command line"])
def test_a_plugin_has_a_name_of_its_own_from_every_list(tmp_path, monkeypatch, told, load, source):
    both, argument = ["checkpoint", "best_acc=checkpoint"], []
    if source == "trainbus.toml":
        (tmp_path / "trainbus.toml").write_text(f"plugins = {both}")
    elif source == "Trainer":
        argument = both
    elif source == "environment":
        monkeypatch.setenv("TRAINBUS_PLUGINS", ",".join(both))
    else:
        told(*both)
    loaded = load(*argument)
    assert {"checkpoint", "best_acc"} <= set(loaded)
    assert loaded["checkpoint"].object is not loaded["best_acc"].object
    assert str(loaded["best_acc"]) == "plugin 'best_acc' (checkpoint, trainbus 0.1.0)"


def test_its_options_are_those_under_its_own_name(tmp_path, monkeypatch, told, load):
    (tmp_path / "trainbus.toml").write_text(
        'plugins = ["checkpoint", "best_acc=checkpoint"]\n'
        '[options.best_acc]\nmonitor = "valid/accuracy"\nmode = "max"\n'
    )
    monkeypatch.setenv("TRAINBUS_BEST_ACC_EVERY_EPOCHS", "2")
    told(options=("best_acc.keep_last=5",))
    loaded = load()
    mine, other = loaded["best_acc"].options, loaded["checkpoint"].options
    assert (mine["monitor"], mine["mode"]) == ("valid/accuracy", "max")
    assert (mine["every_epochs"], mine["keep_last"]) == (2, 5)
    assert (other["monitor"], other["every_epochs"]) == (None, 1)


def test_an_unknown_option_names_both_names(told):
    told("best=checkpoint", options=("best.monitr=x",))
    message = refusal()
    assert "-o best.monitr: plugin best (checkpoint, trainbus 0.1.0) has no option" in message
    assert "did you mean 'monitor'?" in message


def test_it_is_switched_off_by_its_own_name(tmp_path, told, load):
    (tmp_path / "trainbus.toml").write_text(
        'plugins = ["clip", "soft=clip"]\n[options.soft]\nnorm = 2.0'
    )
    told("no:soft")
    loaded = load()
    assert "clip" in loaded
    assert "soft" not in loaded


def test_it_has_that_name_in_the_header_and_in_a_checkpoint(tmp_path, fit):
    (tmp_path / "counter.py").write_text(
        "from trainbus import hookimpl\n"
        "@hookimpl\ndef on_fit_start(run): ...\n"
        "def state_dict(): return {'name': __name__}\n"
        "def load_state_dict(state): ...\n"
    )
    run = fit("checkpoint", "one=./counter.py", "two=./counter.py")
    assert "one, two (Trainer)" in run.header["plugins"]
    run.save_checkpoint(run.dir / "mine")
    import torch

    sections = torch.load(run.dir / "mine" / "plugins.pt", weights_only=True)
    assert sections["one"] != sections["two"]


@pytest.mark.parametrize("alias", ["clip", "tensorboard", "core", "task"])
def test_its_own_name_is_that_of_no_other_plugin(alias):
    assert f"{alias!r} is the name of another plugin" in refusal(f"{alias}=checkpoint")


def test_a_name_of_its_own_for_a_misspelt_plugin_is_answered_with_the_nearest():
    assert "no plugin 'checkpont' is installed; did you mean 'checkpoint'?" in refusal(
        "best=checkpont"
    )


def test_a_name_of_its_own_can_be_given_to_an_import_path(load):
    loaded = load("soft=trainbus.builtin:Clip")["soft"]
    assert type(loaded.object).__name__ == "Clip"


@pytest.mark.parametrize("how", ["alias", "object"])
def test_ordering_by_the_plugins_name_means_all_of_its_kind(how):
    class First:
        @hookimpl(before=["clip"])
        def on_before_optimizer_step(self, run): ...

    class Last:
        @hookimpl(after=["clip"], tryfirst=True)
        def on_before_optimizer_step(self, run): ...

    from trainbus.builtin import Clip

    soft = "soft=clip"
    if how == "object":
        soft = Clip()
        soft.plugin_name = "soft"
    order = Trainer(plugins=[Last(), "clip", soft, First()]).bus.order()
    named = [name for name in order["on_before_optimizer_step"] if name != "nonfinite"]
    assert named.index("first") < min(named.index("clip"), named.index("soft"))
    assert named.index("last") > max(named.index("clip"), named.index("soft"))


def test_why_and_the_listing_know_the_own_name(trainbus):
    rows = json.loads(trainbus("plugins", "--why", "--json", "-p", "best=checkpoint").stdout)
    assert {"name": "best", "is": "on", "because of": "command line"} in rows
    assert "best" in trainbus("plugins", "--hooks", "-p", "best=checkpoint").stdout


# --- a class by import path ----------------------------------------------------------------------


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    folder = tmp_path / "bench_of_names"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "tools.py").write_text(
        "from trainbus import hookimpl\n"
        "class Base:\n    plugin_name = 'aim'\n"
        "    def __init__(self, size: int = 1): self.size = size\n"
        "    @hookimpl\n    def on_fit_start(self): ...\n"
        "class Tool(Base): ...\n"
    )
    (folder / "more.py").write_text("from bench_of_names.tools import Base\nclass Far(Base): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    import sys

    yield
    for name in ("", ".tools", ".more"):
        sys.modules.pop(f"bench_of_names{name}", None)


@pytest.mark.parametrize("path", ["tools:Base", "tools:Tool", "more:Far"])
def test_a_class_by_import_path_has_the_name_that_it_says(laboratory, load, path):
    assert "aim" in load(f"bench_of_names.{path}")


def test_by_the_name_that_it_says_it_has_options_and_is_switched_off(laboratory, told, load):
    told(options=("aim.size=3",))
    assert load("bench_of_names.tools:Tool")["aim"].object.size == 3
    told("no:aim")
    assert "aim" not in load("bench_of_names.tools:Tool")


def test_to_ask_for_its_name_imports_nothing(laboratory):
    import sys

    assert "aim" in chosen.select(["bench_of_names.tools:Tool"]).active
    assert "bench_of_names.tools" not in sys.modules


# --- misspelt ------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", ["-nonfinit", "no:nonfinit", "-tensorbord"])
def test_a_misspelt_name_that_is_switched_off_is_answered_with_the_nearest(off):
    name = off.removeprefix("no:").removeprefix("-")
    right = "nonfinite" if name == "nonfinit" else "tensorboard"
    assert f"-{name} switches off nothing: no plugin {name!r}; did you mean {right!r}?" in refusal(
        off
    )


def test_what_is_known_or_like_nothing_may_be_switched_off(load):
    for name in (*Installed().plugins, "wandb", "trainbus-wandb", "hooks", "acme_metrics"):
        load(f"-{name}")


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_misspelt_name_in_the_order_is_answered_with_the_nearest(caplog, where):
    class Mine:
        @hookimpl(**{where: ["clipp", "absent"]})
        def on_before_optimizer_step(self, run): ...

    Trainer(plugins=["clip", Mine()])
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning == (
        f"plugin 'mine', listener on_before_optimizer_step: {where}=['clipp'] names no plugin "
        "that is active; did you mean 'clip'?"
    )


def test_a_role_that_is_misspelt_is_answered_with_the_nearest(line, loader):
    class Mine:
        @hookimpl
        def on_run_start(self, run):
            run.claim("precison", "mine")

    with pytest.raises(UsageError, match="did you mean 'precision'"):
        Trainer(plugins=[Mine()]).fit(line, loader)
