"""Where the project's file is looked for, and what is said of one that is wrong."""

import os
from pathlib import Path

import pytest

from trainbus import PluginError
from trainbus.plugins.project import find_project


def test_without_a_file_nothing_is_said():
    project = find_project()
    assert (project.path, project.plugins, project.options) == (None, (), {})


def test_the_file_of_a_folder_above_is_found(tmp_path, monkeypatch):
    (tmp_path / "trainbus.toml").write_text('plugins = ["good"]')
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "down")
    assert find_project().path == tmp_path / "trainbus.toml"


def test_the_nearest_file_is_the_only_one_read(tmp_path):
    (tmp_path / "trainbus.toml").write_text('plugins = ["good"]')
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "trainbus.toml").write_text('plugins = ["costs"]')
    assert find_project(tmp_path / "inner").plugins == ("costs",)


def test_a_pyproject_that_does_not_mention_trainbus_is_passed_over(tmp_path):
    (tmp_path / "trainbus.toml").write_text('plugins = ["good"]')
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100")
    assert find_project(tmp_path / "inner").plugins == ("good",)


@pytest.mark.parametrize("text", ["not toml [", "tool = 3", "[tool]\nx = 1"])
def test_a_pyproject_that_is_wrong_for_other_tools_is_none_of_ours(tmp_path, text):
    (tmp_path / "pyproject.toml").write_text(text)
    assert find_project().path is None


def test_trainbus_toml_goes_before_pyproject(tmp_path):
    (tmp_path / "trainbus.toml").write_text('plugins = ["good"]')
    (tmp_path / "pyproject.toml").write_text('[tool.trainbus]\nplugins = ["costs"]')
    assert find_project().plugins == ("good",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plugins = [", "not valid TOML"),
        ("plugin = ['good']", "unknown key 'plugin'; did you mean 'plugins'?"),
        ("plugins = 'good'", "plugins must be a list of names, not 'good'"),
        ("plugins = [1]", "plugins must be a list of names, not [1]"),
        ("options = 3", "options must be tables, [options.NAME]"),
        ("[options]\nsteps = 3", "options must be tables, [options.NAME]"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path, text, said):
    (tmp_path / "trainbus.toml").write_text(text)
    with pytest.raises(PluginError) as caught:
        find_project()
    assert str(caught.value).startswith(f"{tmp_path / 'trainbus.toml'}: ")
    assert said in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "trainbus.toml").write_bytes(b"plugins = ['\xff']")
    with pytest.raises(PluginError, match=r"trainbus\.toml: not valid TOML"):
        find_project()


def test_a_table_in_pyproject_that_is_none_is_named(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool]\ntrainbus = 3")
    with pytest.raises(PluginError, match=r"pyproject\.toml: tool\.trainbus must be a table"):
        find_project()


TEXTS = {
    "trainbus.toml": 'plugins = ["good"]',
    "pyproject.toml": '[tool.trainbus]\nplugins = ["good"]',
}
posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")


def written(folder, name, text=None):
    path = folder / name
    path.write_text(TEXTS[name] if text is None else text)
    return path


@posix
@pytest.mark.parametrize("name", TEXTS)
def test_a_file_that_everybody_may_write_to_is_not_used_and_told(tmp_path, caplog, name):
    path = written(tmp_path, name)
    path.chmod(0o646)
    assert find_project() == find_project(Path("/"))
    assert f"{path} is not used: everybody may write to it" in caplog.text
    assert f"TRAINBUS_TRUST={path}" in caplog.text


@posix
@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root gives files away")
@pytest.mark.parametrize("name", TEXTS)
def test_a_file_of_another_user_is_not_used_and_told(tmp_path, caplog, name):
    path = written(tmp_path, name)
    os.chown(path, 12345, 12345)
    assert find_project().path is None
    assert f"{path} is not used: it belongs to another user (12345)" in caplog.text


@posix
def test_a_file_of_another_user_is_not_even_read(tmp_path):
    written(tmp_path, "trainbus.toml", "not toml [").chmod(0o666)
    assert find_project().path is None


@posix
def test_the_project_is_one_that_is_ones_own_above_it(tmp_path):
    own = written(tmp_path, "trainbus.toml")
    (tmp_path / "inner").mkdir()
    written(tmp_path / "inner", "trainbus.toml").chmod(0o666)
    assert find_project(tmp_path / "inner").path == own


@posix
@pytest.mark.parametrize("trusted", ["{path}", "/elsewhere:{path}", "*"])
def test_a_file_that_is_trusted_is_used(tmp_path, monkeypatch, trusted):
    path = written(tmp_path, "trainbus.toml")
    path.chmod(0o666)
    monkeypatch.setenv("TRAINBUS_TRUST", trusted.format(path=path))
    assert find_project().plugins == ("good",)


@posix
def test_a_file_that_a_group_may_write_to_is_used(tmp_path):
    """As it is where each user has a group of his own."""
    written(tmp_path, "trainbus.toml").chmod(0o664)
    assert find_project().plugins == ("good",)
