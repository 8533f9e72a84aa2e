"""A mistake in the file of `trainbus fit` is one message, before anything heavy is imported."""

import pytest

# What is refused without importing torch or the user's module.
STATIC = {
    "not TOML": ("x = [", "not valid TOML"),
    "unknown key": ("plugin = []", "unknown key 'plugin'; did you mean 'plugins'?"),
    "no table": ("task = 3", "task must be a table, [task], not 3"),
    "plugins no list": ("plugins = 'clip'", "plugins must be a list of names"),
    "nothing": ("", "there is no [task]"),
    "no data": ("{task}", "there is no [data]"),
    "no class": ("[task]\nhidden = 1\n{data}", "task has no class"),
    "no train": ("{task}[data]\nvalid = {{class = 'digits:both'}}", "data has no train"),
    "misspelt part": ("{task}[data]\ntrian = 3", "data.trian: unknown key; did you mean 'train'?"),
    "no call": ("{task}[data]\ntrain = 'x'", "data.train: write a table"),
    "trainer argument": (
        "{task}{data}[trainer]\nepoch = 3",
        "trainer.epoch: Trainer has no argument 'epoch'; did you mean 'epochs'?",
    ),
    "trainer type": ("{task}{data}[trainer]\nepochs = 'x'", "trainer.epochs is 'x': Input should"),
    "plugins of the trainer": (
        "{task}{data}[trainer]\nplugins = ['clip']",
        "trainer.plugins: write plugins = [...] at the top",
    ),
    "task argument": (
        "{task}hiden = 3\n{data}",
        "task.hiden: digits:Digits has no argument 'hiden'; did you mean 'hidden'?",
    ),
    "task type": ("{task}lr = 'x'\n{data}", "task.lr is 'x': Input should be a valid number"),
    "missing argument": ("[task]\nclass = 'digits:Digits'\n{data}", "needs task.hidden"),
    "argument inside data": (
        "{task}[data]\ntrain = {{class = 'digits:loader', splt = 'x'}}",
        "data.train.splt: digits:loader has no argument 'splt'; did you mean 'split'?",
    ),
    "no module": ("[task]\nclass = 'digts:Digits'\n{data}", "did you mean 'digits'?"),
    "no file": ("[task]\nclass = './digts.py:Digits'\n{data}", "there is no file"),
    "no name": ("[task]\nclass = 'digits:Digts'\n{data}", "'Digts'; did you mean 'Digits'?"),
    "no colon": ("[task]\nclass = 'digits.Digits'\n{data}", "with a colon, 'digits:Digits'"),
    "class and partial": ("{task}partial = 'x:y'\n{data}", "task: write one target"),
    "plugin": ("plugins = ['clpi']\n{task}{data}", "did you mean 'clip'?"),
    "plugin file": ("plugins = ['./hooks.py']\n{task}{data}", "does not exist"),
    "options of no plugin": ("{task}{data}[options.clpi]\na = 1", "did you mean 'clip'?"),
    "option": (
        "plugins = ['clip']\n{task}{data}[options.clip]\nnrom = 1",
        "has no option 'nrom'; did you mean 'norm'? It has norm, value.",
    ),
    "option type": (
        "plugins = ['clip']\n{task}{data}[options.clip]\nnorm = 'x'",
        "option 'norm' of plugin clip",
    ),
    "pythonpath": ("pythonpath = 'src'\n{task}{data}", "pythonpath must be a list"),
}
TASK = "[task]\nclass = 'digits:Digits'\n"
PARTS = {"task": TASK + "hidden = 3\n", "data": "[data]\nclass = 'digits:both'\n"}

# What is said once it is imported.
IMPORTED = {
    "no argument of C": (
        "[task]\nclass = 'trainbus:Task.supervised'\n"
        "model = {{class = 'torch.nn:Linear', in_feature = 4, out_features = 2}}\n{data}",
        "task.model.in_feature: torch.nn:Linear has no argument 'in_feature'",
    ),
    "wrong kind of object": (
        "[task]\nclass = 'trainbus:Task.supervised'\nmodel = {{class = 'digits:both'}}\n{data}",
        "task.model is made as tuple: Input should be an instance of Module",
    ),
    "constructor": (
        "[task]\nclass = 'digits:Digits'\nhidden = 13\n{data}",
        "task: digits:Digits cannot be made: ValueError: 13 is unlucky (digits.py, line 19)",
    ),
    "refused by the trainer": (
        "{task}{data}[trainer]\nepochs = 0",
        "trainer: Trainer(epochs=0): epochs must be a whole number",
    ),
    "one loader as data": (
        "{task}[data]\nclass = 'digits:loader'\nsplit = 'x'",
        "data: digits:loader gave a DataLoader; it must give (train, valid)",
    ),
}


def refused(done, said):
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert said in done.stderr
    return True


@pytest.mark.parametrize(
    ("text", "said"), [*STATIC.values(), *IMPORTED.values()], ids=[*STATIC, *IMPORTED]
)
def test_a_mistake_in_the_file(trainbus, config, text, said):
    config.write_text(text.format(**PARTS))
    assert refused(trainbus("fit", str(config), status=2), said)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("trainr.epochs=3", "--set trainr.epochs: unknown key 'trainr'; did you mean 'trainer'?"),
        ("trainer.epochs", "write --set KEY=VALUE"),
        ("task.hidden.x=3", "--set task.hidden.x: task.hidden is 3, no table"),
        ("task.lr=high", "--set task.lr: task.lr is 'high': Input should be a valid number"),
        ("task.hiden=3", "--set task.hiden: digits:Digits has no argument 'hiden'"),
        ("options.clip.nrom=3", "--set options.clip.nrom: plugin clip"),
        ("plugins=clip", "plugins must be a list of names, not 'clip'"),
    ],
)
def test_a_mistake_of_set_is_told_with_its_key(trainbus, config, setting, said):
    done = trainbus("fit", str(config), "-p", "clip", "--set", setting, status=2)
    assert refused(done, said)


def test_the_files_nearby_are_suggested(trainbus, config):
    assert refused(trainbus("fit", "fti.toml", status=2), "did you mean 'fit.toml'?")


def test_a_run_s_directory_leads_to_its_file(trainbus, config, tmp_path):
    (tmp_path / "config.toml").write_text("")
    done = trainbus("fit", str(tmp_path), status=2)
    assert refused(done, f"did you mean {str(tmp_path / 'config.toml')!r}?")


def test_no_file_at_all_is_a_mistake(trainbus):
    assert refused(trainbus("fit", status=2), "Missing argument CONFIG.toml")


def test_several_mistakes_are_told_together(trainbus, config):
    text = "plugins = ['clpi']\n{task}hiden = 1\nlr = 'x'\n{data}[trainer]\nepoch = 1\n"
    config.write_text(text.format(**PARTS))
    done = trainbus("fit", str(config), status=2)
    assert refused(done, "4 mistakes:")
    for said in ("'clip'?", "'hidden'?", "task.lr is", "'epochs'?"):
        assert said in done.stderr


def test_a_mistake_in_the_syntax_of_a_module_is_told_with_its_line(trainbus, config, tmp_path):
    (tmp_path / "digits.py").write_text("\nclass Digits(:\n")
    assert refused(trainbus("fit", str(config), status=2), "digits.py, line 2: invalid syntax")


def test_a_module_that_cannot_be_imported_is_told_with_its_line(trainbus, config, tmp_path):
    with (tmp_path / "digits.py").open("a") as module:
        module.write("\nimport no_such_module\n")
    said = "ModuleNotFoundError: No module named 'no_such_module' (digits.py, line "
    assert refused(trainbus("fit", str(config), status=2), said)


def test_debug_shows_the_traceback_of_a_constructor(process, config):
    done = process("--debug", "fit", str(config), "--set", "task.hidden=13", status=1)
    assert 'raise ValueError("13 is unlucky")' in done.stderr


SCRIPT = """
import sys
from trainbus.cli import main
try:
    main(["fit", *sys.argv[1:]])
except SystemExit as ended:
    assert ended.code == 2
assert not {"torch", "digits"} & set(sys.modules), "imported"
"""


@pytest.mark.parametrize(
    "setting",
    [
        "trainr.epochs=3", "trainer.epoch=3", "trainer.epochs=x", "task.hiden=3", "task.hidden=x",
        "data.train.splt=x", "plugins=['clpi']", "options.checkpoint.moniter=x",
    ],
)  # fmt: skip
def test_a_mistake_is_told_without_importing_torch_or_the_module(config, python, setting):
    done = python("-c", SCRIPT, config, "-p", "checkpoint", "--set", setting)
    assert done.stderr.startswith("error: ")
