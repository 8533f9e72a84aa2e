"""A user's mistake is one message on stderr and status 2; never a traceback."""

import pytest

MISTAKES = {
    "no verb of that name": (["bogus"], "No such command 'bogus'"),
    "no option of that name": (["plugins", "--hoks"], "No such option"),
    "not a number": (["demo", "--seed", "x"], "'x' is not a valid integer"),
    "too small": (["demo", "--epochs", "0"], "0 is not in the range"),
    "no hook of that name": (["hooks", "on_fit_strat"], "did you mean 'on_fit_start'?"),
    "no plugin of that name": (
        ["plugins", "--hooks", "-p", "chekpoint"],
        "did you mean 'checkpoint'?",
    ),
    "no file": (["plugins", "--hooks", "-p", "./hooks.py"], "does not exist"),
    "no module": (["plugins", "--hooks", "-p", "no_such.thing:X"], "No module named 'no_such'"),
    "no attribute": (
        ["plugins", "--hooks", "-p", "trainbus.builtin:Checkpont"],
        "has no attribute 'Checkpont'",
    ),
    "no value": (["plugins", "--hooks", "-o", "manifest.x"], "write -o PLUGIN.OPTION=VALUE"),
    "not active": (["plugins", "--hooks", "-o", "clip.norm=1"], "Switch it on with -p clip"),
    "no such option of a plugin": (
        ["plugins", "--hooks", "-p", "clip", "-o", "clip.nrom=1"],
        "did you mean 'norm'?",
    ),
    "ill-typed": (
        ["plugins", "--hooks", "-p", "clip", "-o", "clip.norm=big"],
        "-o clip.norm: option 'norm' of plugin clip",
    ),
    "refused by the plugin": (
        ["plugins", "--hooks", "-p", "clip", "-o", "clip.norm=-1"],
        "greater than 0",
    ),
    "no verb, as its plugin is off": (["greet"], "No such command 'greet'"),
    "nothing is active": (["--no-plugins", "plugins", "--hooks"], "no plugin is active"),
}

FILES = {
    "not TOML": ("plugins = [", "not valid TOML"),
    "unknown key": ("plugin = ['clip']", "unknown key 'plugin'; did you mean 'plugins'?"),
    "not a list": ("plugins = 'clip'", "plugins must be a list of names, not 'clip'"),
    "not names": ("plugins = [3]", "plugins must be a list of names, not [3]"),
    "no tables": ("options = []", "options must be tables"),
    "no plugin of that name": ("plugins = ['clpi']", "did you mean 'clip'?"),
    "options for no plugin": ("[options.clpi]\nnorm = 1", "did you mean 'clip'?"),
    "no such option": ("plugins = ['clip']\n[options.clip]\nnrom = 1", "did you mean 'norm'?"),
}


def is_one_message(done, said):
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert said in done.stderr
    assert sum(line.lower().startswith("error:") for line in done.stderr.splitlines()) == 1
    return True


@pytest.mark.parametrize(("arguments", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_on_the_command_line(trainbus, arguments, said):
    assert is_one_message(trainbus(*arguments, status=2), said)


@pytest.mark.parametrize(("text", "said"), FILES.values(), ids=FILES)
def test_a_mistake_in_the_project_file(trainbus, tmp_path, text, said):
    (tmp_path / "trainbus.toml").write_text(text)
    done = trainbus("plugins", "--hooks", status=2)
    assert is_one_message(done, said)


@pytest.mark.parametrize("text", ["plugins = [", "plugin = []", "[options.clpi]\nnorm = 1"])
def test_a_mistake_in_the_project_file_is_told_with_the_file(trainbus, tmp_path, text):
    (tmp_path / "trainbus.toml").write_text(text)
    stderr = trainbus("plugins", "--hooks", status=2).stderr
    assert stderr.startswith(f"error: {tmp_path / 'trainbus.toml'}")


def test_a_mistake_in_the_environment(trainbus, monkeypatch):
    monkeypatch.setenv("TRAINBUS_PLUGINS", "clpi")
    done = trainbus("plugins", "--hooks", status=2)
    assert is_one_message(done, "did you mean 'clip'?")


def test_the_process_ends_with_the_same_message_and_status(process):
    assert is_one_message(process("-p", "clpi", "plugins", "--hooks", status=2), "'clip'?")


def test_a_misspelt_verb_beside_a_wrong_project_file_is_one_message(trainbus, tmp_path):
    (tmp_path / "trainbus.toml").write_text("plugins = [")
    assert is_one_message(trainbus("bogus", status=2), "not valid TOML")


def test_several_mistakes_are_told_in_one_message(trainbus):
    done = trainbus("plugins", "--hooks", "-p", "clpi", "-p", "./hooks.py", status=2)
    assert is_one_message(done, "did you mean 'clip'?")
    assert "hooks.py" in done.stderr


def test_no_verb_at_all_shows_the_help(trainbus):
    done = trainbus(status=2)
    assert "Usage: trainbus" in done.stdout + done.stderr
    assert "doctor" in done.stdout + done.stderr


def test_a_mistake_that_a_verb_finds(trainbus, verbs):
    done = trainbus("-p", verbs, "mistake", status=2)
    assert is_one_message(done, "error: the learning rate is too small")


def test_a_bug_is_one_message_too_with_a_status_of_its_own(trainbus, verbs):
    done = trainbus("-p", verbs, "bug", status=1)
    assert is_one_message(done, "KeyError: 'nobody thought of this'")
    assert "trainbus --debug" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--debug", "plugins", "--hooks", "-p", "clpi"],
        ["--debug", "-p", "./verbs.py", "mistake"],
        ["--debug", "-p", "./verbs.py", "bug"],
    ],
    ids=["plugin", "mistake", "bug"],
)
def test_debug_shows_where_it_was_raised(process, verbs, arguments):
    assert "Traceback" in process(*arguments, status=1).stderr


def test_a_message_without_a_near_name_is_still_in_sentences(trainbus):
    stderr = trainbus("plugins", "--hooks", "-p", "qqqqqq", status=2).stderr
    assert "no plugin 'qqqqqq' is installed Installed:" not in stderr
