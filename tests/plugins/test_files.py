"""Plugins that are not installed: files, import paths, modules, objects, classes."""

import math
import sys

import pytest

from trainbus import PluginError, Trainer, hookimpl

HOOKS = """
from trainbus import hookimpl

@hookimpl
def on_fit_start(run):
    run.header["file"] = __name__
"""


class Plugin:
    """A plugin that is made in a script."""

    @hookimpl
    def on_fit_start(self, run):
        run.header["object"] = "was here"


def refusal(*plugins):
    with pytest.raises(PluginError) as caught:
        Trainer(plugins=plugins)
    return str(caught.value)


# --- files ---------------------------------------------------------------------------------------


def test_the_marked_functions_of_a_file_listen(tmp_path, fit):
    (tmp_path / "hooks.py").write_text(HOOKS)
    run = fit("./hooks.py")
    assert "file" in run.header
    assert "hooks (Trainer)" in run.header["plugins"]


def test_a_file_in_the_trainer_is_meant_relative_to_the_working_directory(
    tmp_path, monkeypatch, load
):
    (tmp_path / "trainbus.toml").write_text("")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "hooks.py").write_text(HOOKS)
    monkeypatch.chdir(tmp_path / "inner")
    assert load("hooks.py")["hooks"].source == str(tmp_path / "inner" / "hooks.py")


def test_a_file_in_the_project_file_is_meant_relative_to_it(tmp_path, monkeypatch, load):
    (tmp_path / "trainbus.toml").write_text('plugins = ["./hooks.py"]')
    (tmp_path / "hooks.py").write_text(HOOKS)
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert load()["hooks"].source == str(tmp_path / "hooks.py")


@pytest.mark.parametrize("name", ["-hooks", "no:hooks", "-./hooks.py"])
def test_a_file_can_be_switched_off(tmp_path, load, name):
    (tmp_path / "trainbus.toml").write_text('plugins = ["./hooks.py"]')
    (tmp_path / "hooks.py").write_text(HOOKS)
    assert "hooks" not in load(name)


def test_a_missing_file_is_named_with_the_directory(tmp_path):
    message = refusal("./hooks.py")
    assert "hooks.py' does not exist" in message
    assert str(tmp_path) in message


def test_a_file_that_cannot_be_imported_is_named_with_the_reason(tmp_path):
    (tmp_path / "hooks.py").write_text("import no_such_module")
    message = refusal("./hooks.py")
    assert "hooks.py cannot be imported" in message
    assert "ModuleNotFoundError: No module named 'no_such_module'" in message


def test_a_file_that_is_no_python_is_named(tmp_path):
    (tmp_path / "hooks.py").write_text("def on_fit_start(run)")
    assert "hooks.py cannot be imported: SyntaxError" in refusal("./hooks.py")


def test_a_file_that_ends_the_process_is_named(tmp_path):
    (tmp_path / "hooks.py").write_text("raise SystemExit('needs a GPU')")
    assert "hooks.py cannot be imported: SystemExit: needs a GPU" in refusal("./hooks.py")


def test_a_file_with_nothing_marked_is_refused(tmp_path):
    (tmp_path / "hooks.py").write_text("def on_fit_start(run): ...")
    assert "hooks.py has no function marked @hookimpl" in refusal("./hooks.py")


def test_a_function_that_lacks_its_marker_is_named(tmp_path):
    (tmp_path / "hooks.py").write_text(HOOKS + "\ndef on_fit_end(run): ...")
    message = refusal("./hooks.py")
    assert "plugin 'hooks'" in message
    assert "on_fit_end is named like a hook but not marked" in message


def test_two_files_of_one_name_are_refused_not_merged(tmp_path):
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "hooks.py").write_text(HOOKS)
    assert "'hooks'" in refusal("one/hooks.py", "other/hooks.py")


# --- import paths, modules, objects --------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `laboratory` with a class, a module of functions, and nothing else."""
    (tmp_path / "laboratory").mkdir()
    (tmp_path / "laboratory" / "__init__.py").write_text("")
    (tmp_path / "laboratory" / "bench.py").write_text(
        HOOKS
        + """
class LabBench:
    def __init__(self, size: int = 1):
        self.size = size

    @hookimpl
    def on_fit_start(self, run): ...
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("laboratory", "laboratory.bench"):
        sys.modules.pop(name, None)


def test_an_import_path_names_a_class(package, load):
    loaded = load("laboratory.bench:LabBench")["lab_bench"]
    assert type(loaded.object).__name__ == "LabBench"
    assert loaded.source == "laboratory.bench:LabBench"


def test_a_class_by_import_path_takes_options_from_the_command_line(package, told, load):
    told(options=("lab_bench.size=3",))
    assert load("laboratory.bench:LabBench")["lab_bench"].object.size == 3


def test_a_class_by_import_path_takes_options_from_the_project_file(package, tmp_path, load):
    (tmp_path / "trainbus.toml").write_text("[options.lab_bench]\nsize = 3")
    assert load("laboratory.bench:LabBench")["lab_bench"].object.size == 3


def test_a_class_by_import_path_takes_options_from_the_environment(package, monkeypatch, load):
    monkeypatch.setenv("TRAINBUS_LAB_BENCH_SIZE", "3")
    assert load("laboratory.bench:LabBench")["lab_bench"].object.size == 3


def test_a_type_imported_for_checkers_only_does_not_switch_off_the_checks(
    tmp_path, monkeypatch, told
):
    (tmp_path / "checked.py").write_text(
        """
from __future__ import annotations
from typing import TYPE_CHECKING
from trainbus import hookimpl
if TYPE_CHECKING:
    from collections.abc import Sequence

class Checked:
    def __init__(self, size: int = 1, names: Sequence[str] = ()): ...

    @hookimpl
    def on_fit_start(self, run): ...
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    told(options=("checked.size=many",))
    assert "valid integer" in refusal("checked:Checked")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_package:Thing", "No module named 'no_such_package'"),
        ("laboratory.bench:LabBanch", "has no attribute 'LabBanch'"),
    ],
)
def test_an_import_path_that_leads_nowhere_is_named(package, target, reason):
    message = refusal(target)
    assert target in message
    assert reason in message


def test_a_module_is_a_plugin(package, fit):
    import laboratory.bench

    run = fit(laboratory.bench)
    assert run.header["file"] == "laboratory.bench"
    assert "bench (Trainer)" in run.header["plugins"]


def test_an_object_is_a_plugin(fit):
    run = fit(Plugin())
    assert run.header["object"] == "was here"
    assert "plugin (Trainer)" in run.header["plugins"]


def test_an_object_may_say_its_name(load):
    plugin = Plugin()
    plugin.plugin_name = "special"
    assert load(plugin)["special"].object is plugin


def test_an_object_of_an_installed_plugin_has_its_name_and_version(in_zoo, load):
    from trainbus_good import Good

    loaded = load(Good())["good"]
    assert (loaded.version, loaded.distribution) == ("1.0", "trainbus-good")


def test_an_object_takes_the_place_of_the_plugin_of_its_name(in_zoo, tmp_path, load):
    from trainbus_good import Good

    (tmp_path / "trainbus.toml").write_text('plugins = ["good"]')
    mine = Good()
    assert load(mine)["good"].object is mine


def test_an_object_can_be_switched_off_by_name(in_zoo, told, load):
    from trainbus_good import Good

    told("no:good")
    assert "good" not in load(Good())


def test_a_class_without_its_call_is_answered(in_zoo):
    from trainbus_good import Good

    assert "is the class Good; did you forget `()`?" in refusal(Good)


def test_a_class_of_a_script_without_its_call_is_answered():
    assert "is the class Plugin; did you forget `()`?" in refusal(Plugin)


def test_two_objects_of_one_name_are_refused_not_dropped():
    assert "'plugin'" in refusal(Plugin(), Plugin())


@pytest.mark.parametrize("thing", [None, 5, math], ids=["None", "number", "module"])
def test_a_thing_that_listens_to_nothing_is_refused(thing):
    assert "listens to no hook" in refusal(thing)


@pytest.mark.parametrize("item", ["./plug.py:Plug", "plugs/plug.py:Plug"])
def test_a_class_in_a_file_is_named_by_its_module(item):
    with pytest.raises(PluginError, match=r"a file is named alone.*is plug:Plug"):
        Trainer(plugins=[item])
