"""Plugins that are active when installed: printed, blockable, and never in the way."""

import json
import logging

import pytest

from trainbus import Trainer
from trainbus.plugins import loading


def test_it_is_active_without_being_named(in_office, fit):
    run = fit()
    assert "office" in run.bus.plugins
    assert "office 1.0 (installed)" in run.header["plugins"]


def test_the_listing_says_so(office):
    rows = json.loads(office.trainbus("plugins", "--json").stdout)
    assert {row["name"]: row["status"] for row in rows}["office"] == "active"
    why = json.loads(office.trainbus("plugins", "--why", "--json").stdout)
    assert {"name": "office", "is": "on", "because of": "installed"} in why


@pytest.mark.parametrize("spelling", ["-office", "no:office", "-acme-office"])
def test_it_can_be_blocked(in_office, spelling):
    assert "office" not in Trainer(plugins=[spelling]).bus.plugins


def test_a_blocked_one_is_never_imported(office):
    script = """
import sys
from trainbus.cli import main
main(["-p", "no:office", "plugins", "--hooks"])
print("acme_office" in sys.modules)
"""
    assert office.run("-c", script).stdout.splitlines()[-1] == "False"


def test_what_the_project_blocks_the_command_line_can_switch_on_again(
    in_office, tmp_path, told, load
):
    (tmp_path / "trainbus.toml").write_text('plugins = ["-office"]')
    told("office")
    assert load()["office"].why == "command line"


def test_its_options_come_from_the_project_file(in_office, tmp_path, load):
    (tmp_path / "trainbus.toml").write_text("[options.office]\nteam = 'vision'")
    assert load()["office"].object.team == "vision"


def test_its_options_come_from_the_environment(in_office, monkeypatch, load):
    monkeypatch.setenv("TRAINBUS_OFFICE_TEAM", "speech")
    assert load()["office"].object.team == "speech"


def test_its_options_come_from_the_command_line(in_office, told, load):
    told(options=("office.team=text",))
    assert load()["office"].object.team == "text"


def test_a_broken_one_is_left_out_with_one_warning(in_office, caplog, fit):
    with caplog.at_level(logging.WARNING, "trainbus"):
        run = fit()
    assert "ruin" not in run.bus.plugins
    (message,) = (each.getMessage() for each in caplog.records if "ruin" in each.getMessage())
    assert "acme-ruin 1.0" in message
    assert "the office is closed" in message


def test_the_command_goes_on_beside_a_broken_one(office):
    done = office.trainbus("plugins", "--hooks")
    assert "office" in done.stdout
    assert "the office is closed" in done.stderr


def test_a_broken_one_is_an_error_once_it_is_named(office):
    done = office.trainbus("-p", "ruin", "plugins", "--hooks", status=2)
    assert "acme-ruin 1.0" in done.stderr
    assert "the office is closed" in done.stderr


def test_the_doctor_finds_the_broken_one(in_office, trainbus):
    done = trainbus("doctor", status=1)
    (line,) = (line for line in done.stdout.splitlines() if " broken " in line)
    assert "acme-ruin 1.0" in line


def test_one_that_listens_to_no_hook_is_left_out_too(make_environment):
    environment = make_environment("acme-typo")
    done = environment.trainbus("plugins", "--hooks")
    assert "plugin 'typo' (acme-typo 1.0)" in done.stderr
    assert "did you mean 'on_fit_start'?" in done.stderr


def test_no_plugins_leaves_it_out(in_office, told):
    told(disabled=True)
    assert loading.load() == []
