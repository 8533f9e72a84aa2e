"""What must be on and what may not: of a machine, a project, a command."""

import json

import pytest
import torch

from trainbus import PluginError, Task, Trainer

AUDITED = 'require = ["office"]\n'


@pytest.fixture(autouse=True)
def no_policy_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("TRAINBUS_POLICY", "TRAINBUS_NO_PLUGINS", "TRAINBUS_DISABLE_AUTOLOAD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def machine(tmp_path):
    """Write the policy of the user's configuration directory."""

    def write(text):
        path = tmp_path / "config" / "trainbus" / "policy.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def project(tmp_path):
    """Write the project's file."""
    return lambda text: (tmp_path / "trainbus.toml").write_text(text)


def test_what_a_machine_requires_is_switched_on(machine, load):
    path = machine('require = ["summary"]')
    assert load()["summary"].why == str(path)


def test_nobody_switches_it_off(machine):
    machine('require = ["nonfinite"]')
    with pytest.raises(
        PluginError, match=r"policy.toml requires 'nonfinite', and Trainer switches"
    ):
        Trainer(plugins=["-nonfinite"])


def test_it_is_on_when_no_plugin_is(machine, monkeypatch):
    machine('require = ["summary"]')
    monkeypatch.setenv("TRAINBUS_NO_PLUGINS", "1")
    assert set(Trainer().bus.plugins) == {"core", "summary"}


def test_what_is_not_installed_is_told(machine):
    machine('require = ["acme-audit>=2"]')
    with pytest.raises(PluginError, match=r"requires acme-audit>=2, which is not installed: pip"):
        Trainer()


def test_another_version_is_told(machine):
    machine('require = ["trainbus-progress>=99"]')
    with pytest.raises(PluginError, match=r"requires trainbus-progress>=99, but progress"):
        Trainer()


@pytest.mark.parametrize("name", ["checkpoint", "checkpoint<99"])
def test_what_is_forbidden_and_asked_for_is_refused(machine, name):
    machine(f'forbid = ["{name}"]')
    with pytest.raises(
        PluginError, match=r"policy.toml forbids checkpoint.*, and Trainer switched"
    ):
        Trainer(plugins=["checkpoint"])


def test_a_forbidden_distribution_is_refused_with_all_its_plugins(project):
    project('forbid = ["trainbus-progress"]')
    with pytest.raises(PluginError, match=r"trainbus.toml forbids trainbus-progress"):
        Trainer(plugins=["progress"])


def test_another_version_than_the_forbidden_is_fine(machine):
    machine('forbid = ["checkpoint>99"]')
    assert "checkpoint" in Trainer(plugins=["checkpoint"]).bus.plugins


def test_what_is_on_by_itself_is_left_out(machine):
    path = machine('forbid = ["manifest"]')
    trainer = Trainer()
    assert "manifest" not in trainer.bus.plugins
    assert trainer.switched_off["manifest"] == str(path)


def test_the_machine_goes_before_the_project(machine, project):
    machine('forbid = ["summary"]')
    project('require = ["summary"]')
    with pytest.raises(PluginError, match=r"policy.toml forbids summary"):
        Trainer()


def test_a_file_that_the_environment_names(tmp_path, monkeypatch, load):
    path = tmp_path / "ours.toml"
    path.write_text('require = ["summary"]')
    monkeypatch.setenv("TRAINBUS_POLICY", str(path))
    assert load()["summary"].why == str(path)
    path.unlink()
    with pytest.raises(PluginError, match="which is not there"):
        Trainer()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("require = 3", "require must be a list of names"),
        ('require = ["a b"]', "'a b' is no name with a version"),
        ('requires = ["a"]', "unknown key 'requires'; did you mean 'require'"),
        ("require = [", "cannot be read"),
    ],
)
def test_a_policy_that_says_nothing_sensible_is_an_error(machine, text, message):
    machine(text)
    with pytest.raises(PluginError, match=message):
        Trainer()


def test_what_was_switched_off_is_in_the_manifest():
    task = Task.supervised(torch.nn.Linear(2, 1), torch.nn.functional.mse_loss)
    batch = torch.ones(2, 2), torch.ones(2, 1)
    run = Trainer(plugins=["-nonfinite", "checkpoint"]).fit(task, [batch])
    written = json.loads((run.dir / "run.json").read_text())
    assert written["switched_off"] == {"nonfinite": "Trainer"}


# --- commands ------------------------------------------------------------------------------------


@pytest.fixture
def command(capsys):
    """Run the command in this process."""
    from trainbus.cli import main

    def run(*arguments):
        try:
            status = main(list(arguments)) or 0
        except SystemExit as error:
            status = error.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_the_command_line_requires_and_forbids(command):
    status, _, err = command("--forbid", "checkpoint", "-p", "checkpoint", "plugins", "--hooks")
    assert status == 2
    assert "command line forbids checkpoint, and command line switched checkpoint on" in err
    status, _, err = command("--require", "summary", "-p", "no:summary", "plugins")
    assert status == 2
    assert "command line requires 'summary', and command line switches it off" in err


def test_one_plugin_is_shown_with_its_options_and_where_they_are_from(command, project):
    project("[options.checkpoint]\nevery_steps = 5\n")
    status, out, _ = command(
        "-p", "checkpoint", "-o", "checkpoint.keep_last=2", "plugins", "checkpoint"
    )
    assert status == 0
    rows = {row.split()[0]: row for row in out.splitlines() if row.strip()}
    assert "trainbus.toml" in rows["every_steps"]
    assert "-o checkpoint.keep_last" in rows["keep_last"]
    assert rows["every_epochs"].rstrip().endswith("default")
    assert "on_savepoint" in rows


def test_a_plugin_that_is_not_active_is_told(command):
    status, _, err = command("plugins", "checkpont")
    assert status == 2
    assert "checkpont" in err and "did you mean 'checkpoint'" in err


def test_what_is_on_is_written_for_pip_and_compared(command, tmp_path):
    _, out, _ = command("-p", "progress", "plugins", "--requirements")
    assert "trainbus-progress==" in out
    path = tmp_path / "plugins.txt"
    path.write_text(out)
    status, said, _ = command("-p", "progress", "plugins", "--check", str(path))
    assert (status, "what is on is what" in said) == (0, True)
    status, _, err = command("plugins", "--check", str(path))
    assert status == 2
    assert "trainbus-progress is in the file, and not on" in err
    path.write_text(out.replace("trainbus-progress==0", "trainbus-progress==9"))
    status, _, err = command("-p", "progress", "plugins", "--check", str(path))
    assert "trainbus-progress==9" in err
