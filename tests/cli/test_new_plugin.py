"""`trainbus new-plugin`: what it writes installs, is found, and passes its own tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from trainbus import UsageError
from trainbus.cli import new_plugin

KINDS = ("logger", "callback", "accelerator")
NAMES = {"logger": "acme_lines", "callback": "acme_samples", "accelerator": "acme_device"}


def call(*command, cwd, site):
    """Run a command for which the packages of `site` are installed, too."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TRAINBUS_", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd, env=environment | {"PYTHONPATH": str(site)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(
    scope="module",
    params=[pytest.param(each, marks=pytest.mark.slow) for each in KINDS],
)
def package(request, tmp_path_factory):
    """A package of each kind, written by the command and installed by pip: kind, folder, site."""
    directory = tmp_path_factory.mktemp(request.param)
    site = directory / "site"
    name = NAMES[request.param]
    call("trainbus", "new-plugin", name, "--kind", request.param, cwd=directory, site=site)
    call(
        "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation",
        "--no-index", "--target", str(site), f"./trainbus-{name}", cwd=directory, site=site,
    )  # fmt: skip
    return request.param, directory / f"trainbus-{name}", site


def test_it_is_found(package, tmp_path):
    kind, _, site = package
    rows = json.loads(call("trainbus", "plugins", "--json", cwd=tmp_path, site=site))
    (row,) = (row for row in rows if row["name"] == NAMES[kind])
    assert (row["status"], row["distribution"]) == ("available", f"trainbus-{NAMES[kind]}")


def test_it_listens_to_what_its_kind_is_about(package, tmp_path):
    kind, _, site = package
    name = NAMES[kind]
    rows = json.loads(
        call("trainbus", "plugins", "--hooks", "--json", "-p", name, cwd=tmp_path, site=site)
    )
    column = "called in this order"
    hooks = {row["hook"] for row in rows if name in row[column].split(" -> ")}
    records = {
        "on_log_start", "on_params", "on_tags", "on_metrics", "on_artifact", "on_log_flush",
        "on_log_end",
    }  # fmt: skip
    assert (
        hooks
        == {
            "logger": records,
            "callback": {"on_fit_start", "on_train_batch_end", "on_epoch_end"},
            "accelerator": {"provide_accelerator"},
        }[kind]
    )


def test_it_passes_its_own_tests(package):
    _, folder, site = package
    written = call(
        "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", cwd=folder, site=site
    )
    assert "passed" in written
    assert "skipped" not in written
    assert "warning" not in written


def test_it_is_in_the_style_of_this_project(package):
    _, folder, site = package
    config = Path(__file__).parents[2] / "pyproject.toml"
    options = ("--config", str(config), "--no-cache", ".")
    call("ruff", "check", *options, cwd=folder, site=site)
    call("ruff", "format", "--check", *options, cwd=folder, site=site)


@pytest.mark.slow
def test_its_types_are_right(tmp_path):
    for kind in KINDS:
        new_plugin.write(NAMES[kind], kind, tmp_path)
    sources = [f"trainbus-{name}/src" for name in NAMES.values()]
    core = Path(new_plugin.__file__).parents[2]
    call("mypy", "--strict", "--cache-dir", os.devnull, *sources, cwd=tmp_path, site=core)


def test_its_card_has_the_headings_of_a_card(package):
    _, folder, _ = package
    lines = (folder / "README.md").read_text("utf-8").splitlines()
    assert [line[3:] for line in lines if line.startswith("## ")] == [
        "Install", "Switch on", "Options", "Events used", "What it costs", "Limits"
    ]  # fmt: skip


def test_the_command_says_what_to_type_next(trainbus, tmp_path):
    shown = trainbus("new-plugin", "acme", "--dir", str(tmp_path)).stdout
    root = tmp_path / "trainbus-acme"
    assert shown.splitlines() == [
        f"wrote {root}: begin with src/trainbus_acme/__init__.py",
        "next:",
        f'  pip install -e "{root}[test]"',
        "  trainbus plugins --hooks -p acme",
        f'  python -m pytest "{root}"',
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("grad-norm", "did you mean 'grad_norm'?"),
        ("GradNorm", "did you mean 'grad_norm'?"),
        ("trainbus-acme", "did you mean 'acme'?"),
        ("2fast", "did you mean 'fast'?"),
        ("größe", "cannot be the name"),
        ("../acme", "did you mean 'acme'?"),
        ("", "cannot be the name"),
        ("trainbus_acme", "'acme' makes trainbus-acme"),
        ("ema", "is installed (trainbus 0.1.0)"),
        ("true", "means something else"),
        ("core", "means something else"),
        ("artifact", "means something else"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name, says, trainbus, tmp_path):
    assert says in trainbus("new-plugin", name, status=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_a_plugin_of_this_project_that_is_not_installed_keeps_its_name(monkeypatch):
    monkeypatch.setattr(new_plugin.Installed, "group", lambda *group: {})
    with pytest.raises(UsageError, match="pip install trainbus-tensorboard"):
        new_plugin.check_name("tensorboard")


def test_an_existing_folder_is_left_alone(trainbus, tmp_path):
    (tmp_path / "trainbus-acme").mkdir()
    assert "exists already" in trainbus("new-plugin", "acme", status=2).stderr
    assert list((tmp_path / "trainbus-acme").iterdir()) == []


@pytest.mark.parametrize(
    ("version", "range"),
    [("0.1.0", ">=0.1,<0.2"), ("0.9.12", ">=0.9,<0.10"), ("1.4.2", ">=1.4,<2")],
)
def test_the_range_on_the_core_has_an_upper_end(version, range):
    assert new_plugin.compatible(version) == range


def test_the_templates_are_in_the_wheel(tmp_path):
    from zipfile import ZipFile

    root = Path(__file__).parents[2]
    wheel = next(WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"]))
    packed = {name for name in ZipFile(wheel).namelist() if "/templates/" in name}
    templates = root / "core" / "trainbus" / "cli" / "templates"
    here = {str(path.relative_to(root / "core")) for path in templates.rglob("*") if path.is_file()}
    assert packed == here
    assert len(here) == 4 + 3 * 3 + 1
