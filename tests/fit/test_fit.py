"""`trainbus fit`: what a file and the command line say is what is trained."""

import json
import os
import subprocess
import sys
import tomllib

import pytest
import torch

from trainbus.checkpoints import archive


@pytest.fixture
def fit(trainbus, config):
    """`fit(*arguments, file=config)`: run it in this process."""
    return lambda *arguments, file=config, status=0: trainbus(
        "fit", str(file), *arguments, status=status
    )


@pytest.fixture
def runs(tmp_path):
    """The directories of the runs, the oldest first."""
    return lambda parent="runs": sorted((tmp_path / parent).iterdir())


def written(directory):
    return tomllib.loads((directory / "config.toml").read_text())


def manifest(directory):
    return json.loads((directory / "run.json").read_text())


# --- a run ---------------------------------------------------------------------------------------


def test_it_trains_and_ends_with_status_and_directory(fit, runs):
    (line,) = fit().stdout.splitlines()
    (directory,) = runs()
    assert line == f"completed: {directory.relative_to(directory.parents[1])}"
    assert manifest(directory)["steps"] == 2


def test_data_may_be_one_call_that_makes_both(fit, config, runs):
    text = config.read_text().replace("train = {", "# ").replace("valid = {", "# ")
    config.write_text(text.replace("[data]", '[data]\nclass = "digits:both"\nbatch_size = 2'))
    fit()
    (directory,) = runs()
    assert manifest(directory)["steps"] == 4
    assert "valid/loss" in manifest(directory)["metrics"]


@pytest.mark.parametrize(
    "returned",
    ['{"train": loader("train"), "valid": None}', 'SimpleNamespace(train=loader("train"))'],
    ids=["mapping", "object"],
)
def test_data_may_be_a_mapping_or_an_object(fit, config, tmp_path, returned):
    with (tmp_path / "digits.py").open("a") as module:
        module.write(f"\nfrom types import SimpleNamespace\ndef made():\n    return {returned}\n")
    config.write_text(
        '[task]\nclass = "digits:Digits"\nhidden = 3\n[data]\nclass = "digits:made"\n'
    )
    assert fit().stdout.startswith("completed")


SUPERVISED = """
[task]
class = "trainbus:Task.supervised"
loss = {partial = "torch.nn.functional:cross_entropy"}
optimizer = {partial = "torch.optim:SGD", lr = 0.1}

[task.model]
class = "torch.nn:Sequential"
args = [{class = "torch.nn:Linear", in_features = 4, out_features = 2}, {class = "torch.nn:Tanh"}]

[data]
train = {class = "digits:loader", split = "train"}
"""


def test_tables_among_the_arguments_are_called_first_and_partials_are_not(fit, config, runs):
    config.write_text(SUPERVISED)
    fit("-p", "checkpoint")
    (directory,) = runs()
    assert directory.name.endswith("_Sequential")
    names = archive.read(archive.newest_valid(directory / "checkpoints"))["model"]
    assert set(names) == {"model.0.weight", "model.0.bias"}


def test_a_file_can_be_named_in_place_of_a_module(fit, config, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "digits.py").rename(tmp_path / "other" / "more-digits.py")
    config.write_text(config.read_text().replace('"digits:', '"./other/more-digits.py:'))
    assert fit().stdout.startswith("completed")


def test_modules_are_found_beside_the_file_and_in_the_working_directory(
    fit, config, tmp_path, monkeypatch
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "wide.py").write_text("from digits import Digits\n")
    monkeypatch.chdir(elsewhere)
    assert fit("--set", "task.class=wide:Digits").stdout.startswith("completed")


def test_the_seed_holds_for_the_making_of_the_task(fit, runs):
    for _ in range(2):
        fit("-p", "checkpoint", "--set", "task.lr=0.0")
    first, second = (
        archive.read(archive.newest_valid(run / "checkpoints"))["model"] for run in runs()
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_dry_run_keeps_nothing(fit, tmp_path):
    assert "nothing is kept" in fit("--set", "trainer.dry_run=1").stdout
    assert not (tmp_path / "runs").exists()


def test_a_training_that_fails_shows_its_traceback_and_the_directory(process, config):
    done = process("fit", str(config), "--set", "task.lr=-1", status=1)
    assert "in configure_optimizer" in done.stderr
    assert "Invalid learning rate" in done.stderr


# --- --set ---------------------------------------------------------------------------------------


def test_set_wins_over_the_file_and_makes_tables(fit, runs):
    fit("--set", "trainer.epochs=2", "--set", "options.checkpoint.keep_last=2", "-p", "checkpoint")
    (directory,) = runs()
    assert manifest(directory)["epochs"] == 2
    assert len(list((directory / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("task.hidden=5", "hidden", 5),
        ("task.lr=1", "lr", 1.0),
        ("task.label=7", "label", "7"),
    ],
)
def test_a_value_is_read_as_its_type_says(fit, runs, setting, key, value):
    fit("--set", setting)
    found = written(runs()[0])["task"][key]
    assert (found, type(found)) == (value, type(value))


def test_set_takes_what_is_given_as_text_for_a_union_as_its_number(fit):
    assert fit("--set", "trainer.devices=1").stdout.startswith("completed")


def test_set_takes_lists_and_whole_tables(fit, runs):
    fit(
        "--set", 'plugins=["clip"]',
        "--set", 'data.train={class = "digits:loader", split = "t", batch_size = 1}',
        "--set", "data.train.batch_size=2",
    )  # fmt: skip
    (directory,) = runs()
    assert "clip" in [each["name"] for each in manifest(directory)["plugins"]]
    assert manifest(directory)["steps"] == 4


def test_set_reaches_into_lists(fit, config, runs):
    config.write_text(SUPERVISED)
    fit("--set", "task.model.args.0.out_features=3")
    assert written(runs()[0])["task"]["model"]["args"][0]["out_features"] == 3


# --- plugins -------------------------------------------------------------------------------------


def test_the_nearest_word_on_plugins_and_options_wins(fit, config, tmp_path, runs):
    (tmp_path / "trainbus.toml").write_text(
        "plugins = ['clip', 'summary']\n[options.clip]\nnorm = 1\n"
    )
    head = "plugins = ['clip', 'checkpoint', '-summary']\n"
    config.write_text(head + config.read_text() + "[options.clip]\nnorm = 2\n")
    fit("-p", "no:checkpoint", "-o", "clip.norm=3")
    about = {each["name"]: each for each in manifest(runs()[0])["plugins"]}
    assert about["clip"]["options"] == {"norm": 3.0, "value": None}
    assert about["clip"]["switched on by"] == str(config)
    assert not {"checkpoint", "summary"} & set(about)


def test_without_plugins_there_are_none_but_the_file_is_written(fit, config, runs):
    config.write_text("plugins = ['clip']\n" + config.read_text() + "[options.clip]\nnorm = 2\n")
    fit("--no-plugins")
    (directory,) = runs()
    assert {"config.toml", "run.json", "checkpoints"} & {p.name for p in directory.iterdir()} == {
        "config.toml"
    }


# --- what is written -----------------------------------------------------------------------------


def test_the_written_file_makes_the_same_run_again(fit, config, tmp_path, runs, monkeypatch):
    (tmp_path / "hooks.py").write_text(
        "from trainbus import hookimpl\n\n@hookimpl\ndef on_fit_start(run): run.log_tags({})\n"
    )
    head = "plugins = ['checkpoint', './hooks.py']\n"
    text = config.read_text().replace('"digits:Digits"', '"./digits.py:Digits"')
    config.write_text(head + text)
    fit("--set", "task.hidden=4", "-p", "clip", "-o", "clip.norm=0.5")
    (first,) = runs()
    away = tmp_path / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    fit(file=first / "config.toml")
    (second,) = runs("away/runs")
    models = [
        archive.read(archive.newest_valid(run / "checkpoints"))["model"] for run in (first, second)
    ]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    on = [
        {each["name"]: each["options"] for each in manifest(r)["plugins"]} for r in (first, second)
    ]
    assert on[0] == on[1]
    assert on[0]["clip"] == {"norm": 0.5, "value": None}


def test_values_that_toml_has_no_word_for_are_written_so_that_they_can_be_read(fit, runs):
    fit(
        "-p", "accumulate", "-o", "accumulate.windows={0 = 1, 2 = 3}",
        "--set", "trainer.max_time=3600", "--set", "trainer.run_dir=runs",
    )  # fmt: skip
    (directory,) = runs()
    assert written(directory)["options"]["accumulate"]["windows"] == {"0": 1, "2": 3}
    assert written(directory)["trainer"]["run_dir"] == "runs"
    fit(file=directory / "config.toml")


def test_secrets_are_hidden_and_then_asked_for(fit, config, tmp_path, runs):
    with (tmp_path / "digits.py").open("a") as module:
        module.write(
            "\nclass Guarded(Digits):\n"
            "    def __init__(self, hidden: int, password: str):\n"
            "        super().__init__(hidden)\n"
        )
    fit("--set", "task.class=digits:Guarded", "--set", "task.password=sesame")
    (directory,) = runs()
    assert not [p for p in directory.rglob("*") if p.is_file() and b"sesame" in p.read_bytes()]
    again = directory / "config.toml"
    assert "--set task.password=VALUE" in fit(file=again, status=2).stderr
    fit("--set", "task.password=sesame", file=again)


# --- resume --------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(fit, runs):
    """The directory of a run of one epoch, with checkpoints."""
    fit("-p", "checkpoint", "-o", "checkpoint.monitor=valid/loss")
    return runs()[0]


@pytest.mark.parametrize("how", ["before", "after", "best", "path"])
def test_resume_goes_on_in_the_directory_of_the_run(trainbus, config, interrupted, runs, how):
    path = archive.newest_valid(interrupted / "checkpoints")
    arguments = {
        "before": ["--resume", str(config)],
        "after": [str(config), "--resume"],
        "best": [str(config), "--resume=best"],
        "path": [str(config), f"--resume={path}"],
    }[how]
    trainbus("fit", *arguments, "--set", "trainer.epochs=2", "-p", "checkpoint")
    assert runs() == [interrupted]
    assert manifest(interrupted)["steps"] == 4


def test_another_configuration_keeps_that_of_before(fit, interrupted):
    before = (interrupted / "config.toml").read_text()
    for epochs in (2, 3):
        fit("--resume", "--set", f"trainer.epochs={epochs}", "-p", "checkpoint")
    assert (interrupted / "config-1.toml").read_text() == before
    assert tomllib.loads((interrupted / "config-2.toml").read_text())["trainer"]["epochs"] == 2
    assert written(interrupted)["trainer"]["epochs"] == 3


def test_a_checkpoint_that_does_not_fit_leaves_the_configuration_as_it_was(fit, interrupted):
    before = (interrupted / "config.toml").read_text()
    assert "does not fit" in fit("--resume", "--set", "task.hidden=9", status=2).stderr
    assert [path.name for path in interrupted.glob("config*")] == ["config.toml"]
    assert (interrupted / "config.toml").read_text() == before


def test_the_same_configuration_is_written_once(fit, interrupted):
    fit("--resume", "-p", "checkpoint", "-o", "checkpoint.monitor=valid/loss")
    assert [path.name for path in interrupted.glob("config*")] == ["config.toml"]


# --- several at once -----------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_that_start_together_have_a_directory_each(config, tmp_path, runs):
    command = [sys.executable, "-m", "trainbus", "fit", str(config), "-p", "checkpoint"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * 4
    directories = runs()
    told = {line.removeprefix("completed: ") for text in said for line in text.splitlines()}
    assert told == {str(path.relative_to(tmp_path)) for path in directories}
    assert len(directories) == 4
    for directory in directories:
        assert manifest(directory)["status"] == "completed"
        assert archive.newest_valid(directory / "checkpoints") is not None
        assert written(directory)["task"]["hidden"] == 3


def test_a_plugin_is_used_twice_and_what_is_written_says_so(trainbus, config, tmp_path):
    config.write_text(
        'plugins = ["checkpoint", "best=checkpoint"]\n'
        + config.read_text()
        + '[options.best]\nmonitor = "valid/loss"\n'
    )
    trainbus("fit", str(config))
    (written,) = tmp_path.glob("runs/*/config.toml")
    table = tomllib.loads(written.read_text())
    assert table["plugins"] == ["checkpoint", "best=checkpoint"]
    assert table["options"]["best"] == {"monitor": "valid/loss"}
    trainbus("fit", str(written))


def test_a_misspelt_option_of_a_plugin_used_twice_names_its_own_name(trainbus, config):
    config.write_text(
        'plugins = ["best=checkpoint"]\n' + config.read_text() + "[options.best]\nmonitr = 1\n"
    )
    done = trainbus("fit", str(config), status=2)
    assert "plugin best (checkpoint, trainbus 0.1.0) has no option 'monitr'" in done.stderr
