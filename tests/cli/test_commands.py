"""What the verbs print, and with which status they end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainbus import __version__, hookspecs

BUILTIN = {
    "accumulate", "checkpoint", "clip", "early_stopping", "ema", "finetune", "journal", "manifest",
    "nonfinite", "oom", "schedule", "summary",
}  # fmt: skip


def test_the_script_and_the_module_are_the_same_command(process):
    script = Path(sys.executable).with_name("trainbus")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == process("--version").stdout
    assert __version__ in done.stdout


def test_help_lists_the_verbs(trainbus):
    text = trainbus("--help").stdout
    for verb in ("plugins", "hooks", "doctor", "demo"):
        assert f"\n  {verb} " in text


@pytest.mark.parametrize("verb", ["plugins", "hooks", "doctor", "demo"])
def test_each_verb_explains_itself(trainbus, verb):
    assert f"Usage: trainbus {verb}" in trainbus(verb, "-h").stdout


# --- plugins -------------------------------------------------------------------------------------


def test_plugins_lists_what_the_core_ships(trainbus):
    rows = {row["name"]: row for row in json.loads(trainbus("plugins", "--json").stdout)}
    assert set(rows) >= BUILTIN
    assert rows["manifest"]["status"] == "active"
    assert rows["checkpoint"]["status"] == "available"
    assert rows["checkpoint"]["version"] == __version__


def test_plugins_lists_a_file_that_is_switched_on(trainbus, verbs):
    rows = {r["name"]: r for r in json.loads(trainbus("-p", verbs, "plugins", "--json").stdout)}
    assert rows["verbs"]["status"] == "active"


def test_hooks_of_plugins_are_in_calling_order(trainbus):
    done = trainbus("-p", "clip", "-p", "checkpoint", "plugins", "--hooks", "--json")
    order = {row["hook"]: row["called in this order"] for row in json.loads(done.stdout)}
    assert order["on_before_optimizer_step"] == "clip -> checkpoint"
    assert order["on_fit_start"].endswith("checkpoint -> journal -> manifest")  # both `trylast`
    assert list(order) == [hook for hook in hookspecs.declared() if hook in order]


def test_hooks_without_any_plugin_is_an_empty_table_for_programs(trainbus):
    assert json.loads(trainbus("--no-plugins", "plugins", "--hooks", "--json").stdout) == []


def test_no_plugins_lists_all_and_has_none_active(trainbus):
    rows = json.loads(trainbus("--no-plugins", "plugins", "--json").stdout)
    assert {row["name"] for row in rows} >= BUILTIN
    assert not [row for row in rows if row["status"] == "active"]


# --- hooks ---------------------------------------------------------------------------------------


def test_hooks_lists_every_hook_in_firing_order(trainbus):
    lines = trainbus("hooks").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(hookspecs.declared())
    assert all(len(line.split()) > 3 for line in lines)


def test_one_hook_is_shown_with_signature_kind_and_description(trainbus):
    text = trainbus("hooks", "on_metrics").stdout
    assert text.startswith("on_metrics(run, step: int, metrics: Mapping[str, float], time: float)")
    assert "A record." in text
    assert "Numbers logged at one optimizer step" in text


def test_the_reference_has_a_heading_for_every_hook(trainbus):
    text = trainbus("hooks", "--markdown").stdout
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert headings == list(hookspecs.declared())


def test_a_pipe_that_closes_early_is_no_traceback(tmp_path):
    done = subprocess.run(
        f"'{sys.executable}' -m trainbus hooks --markdown | head -c 1",
        shell=True, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr


# --- doctor --------------------------------------------------------------------------------------


def test_the_doctor_tells_versions_device_and_project(trainbus, tmp_path):
    (tmp_path / "trainbus.toml").write_text("plugins = ['clip']")
    text = trainbus("doctor").stdout
    facts = {line.split()[0]: line for line in text.splitlines() if line}
    assert __version__ in facts["trainbus"]
    assert set(facts) >= {"python", "torch", "pluggy", "device"}
    assert str(tmp_path / "trainbus.toml") in facts["project"]
    assert text.splitlines()[-1] == "no problems found"


def test_the_doctor_reports_a_wrong_project_file(trainbus, tmp_path):
    (tmp_path / "trainbus.toml").write_text("plugin = []")
    text = trainbus("doctor", status=1).stdout
    assert "did you mean 'plugins'?" in text
    assert str(tmp_path / "trainbus.toml") in text


# --- verbs of plugins ----------------------------------------------------------------------------


def test_a_plugin_adds_verbs(trainbus, verbs):
    assert trainbus("-p", verbs, "greet", "--name", "Ada").stdout == "hello Ada\n"


def test_verbs_of_the_project_s_plugins_are_in_the_help(trainbus, verbs, tmp_path):
    (tmp_path / "trainbus.toml").write_text(f"plugins = ['{verbs}']")
    text = trainbus("--help").stdout
    assert "greet" in text
    assert "Say hello." in text


def test_verbs_of_plugins_named_on_the_command_line_are_in_the_help(trainbus, verbs):
    assert "greet" in trainbus("-p", verbs, "--help").stdout


def test_a_verb_ends_with_the_status_that_it_asks_for(trainbus, verbs):
    trainbus("-p", verbs, "leave", status=3)


def test_an_interrupted_verb_ends_with_130(trainbus, verbs):
    assert trainbus("-p", verbs, "interrupt", status=130).stderr.strip() == "interrupted"


def test_without_plugins_there_are_no_verbs_of_them(trainbus, verbs):
    assert "greet" in trainbus("--no-plugins", "-p", verbs, "greet", status=2).stderr


def test_help_survives_a_plugin_that_cannot_add_its_verbs(trainbus, tmp_path, monkeypatch):
    (tmp_path / "bad.py").write_text(
        "from trainbus import hookimpl\n\n@hookimpl\ndef register_commands(commands): 1 / 0\n"
    )
    monkeypatch.setenv("TRAINBUS_PLUGINS", "./bad.py")
    done = trainbus("--help")
    assert "plugins" in done.stdout
    assert "'bad'" in done.stderr


def test_the_command_imports_torch_for_no_listing(python):
    script = (
        "import sys; from trainbus.cli import main\n"
        "main(['plugins']); main(['hooks']); main(['plugins', '--hooks'])\n"
        "sys.exit('torch' in sys.modules)"
    )
    python("-c", script)


def test_run_gives_a_script_the_plugins_of_the_command_line(process, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\n"
        "from trainbus import Trainer\n"
        "print(sys.argv[1:], [each.name for each in Trainer(plugins=['clip']).loaded])\n"
    )
    given = ("-p", "checkpoint", "-p", "no:clip")
    done = process("run", *given, script, "--lr", "3", "-p", "mine")
    expected = "['--lr', '3', '-p', 'mine'] ['journal', 'manifest', 'nonfinite', 'checkpoint']"
    assert done.stdout.strip() == expected


def test_run_shows_the_traceback_of_a_script_that_fails(process, tmp_path):
    script = tmp_path / "train.py"
    script.write_text("def learn():\n    raise ValueError('mine')\nlearn()\n")
    done = process("run", script, status=1)
    assert "in learn" in done.stderr and "ValueError: mine" in done.stderr


DRIFT = '''
from trainbus import hookimpl, hookspec

class DriftHooks:
    @hookspec(cadence="step")
    def on_drift(self, run, amount: float):
        """The loss has grown."""

@hookimpl
def register_hookspecs():
    return DriftHooks
'''


def test_hooks_shows_those_that_plugins_declare(trainbus, tmp_path):
    (tmp_path / "drift.py").write_text(DRIFT)
    (line,) = (
        line
        for line in trainbus("hooks", "-p", "./drift.py").stdout.splitlines()
        if line.startswith("on_drift ")
    )
    assert "The loss has grown. Declared by plugin 'drift' (./drift.py)." in line
    one = trainbus("hooks", "-p", "./drift.py", "on_drift").stdout
    assert one.startswith("on_drift(run, amount: float)\n\nAn event. `every=n` counts")
    assert (
        "did you mean 'on_drift'?"
        in trainbus("hooks", "-p", "./drift.py", "on_drfit", status=2).stderr
    )


def test_hooks_shows_those_of_the_core_whatever_a_plugin_does(trainbus):
    done = trainbus("hooks", "-p", "no_such_thing")
    assert "on_fit_start" in done.stdout
    assert "hooks of plugins are missing: no plugin 'no_such_thing'" in done.stderr


def test_a_hooks_arguments_are_shown_by_their_names(trainbus):
    shown = trainbus("hooks", "on_log_end").stdout.splitlines()[0]
    assert shown == "on_log_end(run: RunInfo, status: str)"
    assert trainbus("hooks", "on_run_end").stdout.splitlines()[0] == "on_run_end(run, status: str)"
