"""Installed plugins that are as they should be: found, listed, switched on, taken away."""

import json
import shutil

import pytest

MODULES = """
import sys
from trainbus.cli import main
main({arguments})
print("MODULES", *sys.modules)
"""


def modules_after(environment, *arguments):
    done = environment.run("-c", MODULES.format(arguments=list(arguments)))
    return set(done.stdout.partition("MODULES")[2].split())


def listed(done):
    return {row["name"]: row for row in json.loads(done.stdout)}


def test_an_installed_plugin_is_listed_as_available(zoo):
    row = listed(zoo.trainbus("plugins", "--json"))["good"]
    assert row["status"] == "available"
    assert row["version"] == "1.0"
    assert row["distribution"] == "trainbus-good"


def test_the_table_shows_the_same(zoo):
    table = zoo.trainbus("plugins").stdout.splitlines()
    assert table[0].split() == ["name", "status", "version", "distribution", "note"]
    (row,) = (line.split() for line in table if line.startswith("good "))
    assert row[:4] == ["good", "available", "1.0", "trainbus-good"]


def test_listing_imports_neither_torch_nor_any_plugin(zoo):
    modules = modules_after(zoo, "plugins")
    assert "trainbus.plugins" in modules
    assert not {name for name in modules if name.startswith(("torch", "trainbus_", "acme"))}


def test_why_imports_neither_torch_nor_any_plugin(zoo):
    modules = modules_after(zoo, "-p", "good", "plugins", "--why")
    assert not {name for name in modules if name.startswith(("torch", "trainbus_", "acme"))}


def test_only_the_plugin_that_is_named_is_imported(zoo):
    modules = modules_after(zoo, "-p", "good", "plugins", "--hooks")
    assert "trainbus_good" in modules
    assert not {name for name in modules if name.startswith(("trainbus_", "acme"))} - {
        "trainbus_good"
    }


def test_a_blocked_plugin_is_never_imported(zoo, tmp_path):
    (tmp_path / "trainbus.toml").write_text('plugins = ["good", "costs"]')
    modules = modules_after(zoo, "-p", "no:good", "plugins", "--hooks")
    assert "acme_hooks" in modules
    assert "trainbus_good" not in modules


def test_a_plugin_that_is_not_named_does_not_take_part(in_zoo, fit):
    run = fit()
    assert "good" not in run.bus.plugins
    assert "good" not in run.header


def test_a_plugin_named_in_the_trainer_takes_part(in_zoo, fit):
    run = fit("good")
    assert run.header["good"] == "was here"
    assert "good 1.0 (Trainer)" in run.header["plugins"]


def test_requirements_of_other_platforms_and_of_extras_are_not_asked_for(in_zoo, load):
    assert load("good")["good"].version == "1.0"


def test_the_manifest_names_distribution_version_and_source(in_zoo, fit):
    run = fit("good")
    plugins = json.loads((run.dir / "run.json").read_text())["plugins"]
    (good,) = (each for each in plugins if each["name"] == "good")
    assert good["distribution"] == "trainbus-good"
    assert good["version"] == "1.0"
    assert good["switched on by"] == "Trainer"
    assert good["source"].startswith("file://")
    assert good["source"].endswith(".whl")


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        (
            {"url": "https://host/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc123"}},
            "https://host/x.git@abc123",
        ),
        ({"url": "file:///home/x", "dir_info": {"editable": True}}, "file:///home/x (editable)"),
        ({"url": "file:///home/x", "dir_info": {}}, "file:///home/x"),
    ],
)
def test_the_source_tells_commits_and_editable_installs(
    in_zoo, tmp_path, monkeypatch, load, origin, source
):
    shutil.copytree(in_zoo.site_packages, tmp_path / "again")
    (record,) = (tmp_path / "again").glob("trainbus_good-*/direct_url.json")
    record.write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(tmp_path / "again")
    assert load("good")["good"].source == source


def test_a_distribution_that_is_twice_on_the_path_counts_once(zoo, tmp_path):
    shutil.copytree(zoo.site_packages, tmp_path / "again")
    path = str(tmp_path / "again")
    row = listed(zoo.trainbus("plugins", "--json", PYTHONPATH=path))["good"]
    assert row["status"] == "available"
    done = zoo.trainbus("-p", "good", "plugins", "--hooks", "--json", PYTHONPATH=path)
    called = {row["hook"]: row["called in this order"] for row in json.loads(done.stdout)}
    assert called["on_fit_start"].split(" -> ").count("good") == 1


def test_the_order_is_the_same_whatever_is_found_first(make_environment):
    # acme-zeta provides alpha, acme-eta omega: neither path nor distribution gives the order.
    first, second = make_environment("acme-zeta"), make_environment("acme-eta")
    for one, other in ((first, second), (second, first)):
        done = one.trainbus("plugins", "--hooks", "--json", PYTHONPATH=str(other.site_packages))
        calls = {row["hook"]: row["called in this order"] for row in json.loads(done.stdout)}
        assert "alpha -> omega" in calls["on_fit_start"]
        done = one.trainbus("plugins", "--json", PYTHONPATH=str(other.site_packages))
        assert list(listed(done)) == sorted(listed(done))


def test_uninstalling_takes_a_plugin_away_and_breaks_nothing(make_environment):
    environment = make_environment("trainbus-good", "acme-hooks")
    assert "good" in listed(environment.trainbus("plugins", "--json"))
    environment.pip("uninstall", "-y", "trainbus-good")
    rows = listed(environment.trainbus("-p", "costs", "plugins", "--json"))
    assert "good" not in rows
    assert rows["costs"]["status"] == "active"
    environment.trainbus("-p", "costs", "plugins", "--hooks")
    done = environment.trainbus("-p", "good", "plugins", "--hooks", status=2)
    assert "no plugin 'good' is installed" in done.stderr
