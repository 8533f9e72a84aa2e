"""`trainbus fit --profile`: it is all that one has to say to have a run profiled."""

import json

import pytest

from trainbus.plugins import discovery


@pytest.fixture
def profiled(trainbus, config, tmp_path):
    """`profiled(*arguments)`: fit with `--profile`; what was written, and the run's directory."""
    pytest.importorskip("trainbus_profiler")

    def fit(*arguments):
        done = trainbus("fit", str(config), "--profile", *arguments)
        (directory,) = (tmp_path / "runs").iterdir()
        return done.stdout, directory

    return fit


def test_it_prints_the_table_and_names_the_bottleneck_in_the_end(profiled):
    output, directory = profiled()
    assert "waiting for data" in output
    sentence = json.loads((directory / "profile.json").read_text())["bottleneck"]
    assert "% of" in sentence
    assert sentence in output


def test_it_is_the_plugin_profiler_which_takes_options(profiled):
    output, directory = profiled("-o", "profiler.show=false")
    assert "waiting for data" not in output
    manifest = json.loads((directory / "run.json").read_text())
    assert any(
        (each["name"], each["switched on by"]) == ("profiler", "command line")
        for each in manifest["plugins"]
    )


def test_without_it_no_profiler_is_there(trainbus, config, tmp_path):
    trainbus("fit", str(config))
    (directory,) = (tmp_path / "runs").iterdir()
    assert not (directory / "profile.json").exists()


def test_where_the_profiler_is_not_installed_the_message_has_the_line_for_pip(
    trainbus, config, monkeypatch
):
    group = discovery.Installed.group

    def without(*arguments):
        return {k: v for k, v in group(*arguments).items() if k != "profiler"}

    monkeypatch.setattr(discovery.Installed, "group", without)
    done = trainbus("fit", str(config), "--profile", status=2)
    assert "profiler" in done.stderr
    assert "pip install trainbus-profiler" in done.stderr
