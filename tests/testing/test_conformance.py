"""The suite finds what it is there to find, and says which plugin it is and what to do."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from trainbus import PluginError
from trainbus.testing import conformance

pytestmark = pytest.mark.slow

PRELUDE = """
import os, signal, sys, threading
from pathlib import Path

import torch

from trainbus import Accelerator, PluginError, hookimpl
from trainbus.testing import conformance
"""


#: By check: a plugin that does not pass it, and what is said of it.
BAD = {
    "constructs_with_defaults: an option is needed": (
        """
class Bad:
    def __init__(self, path: str) -> None:
        self.path = path
    @hookimpl
    def on_fit_start(self): ...
""",
        "needs the option 'path': conformance(..., path=...)",
    ),
    "constructs_with_defaults: an option has no type": (
        """
class Bad:
    def __init__(self, path="x") -> None:
        self.path = path
    @hookimpl
    def on_fit_start(self): ...
""",
        "has the option 'path' without a type",
    ),
    "constructs_with_defaults: it does more": (
        """
class Bad:
    def __init__(self) -> None:
        Path("bad.log").touch()
    @hookimpl
    def on_fit_start(self): ...
""",
        "wait until a run starts",
    ),
    "survives[a step that fails]": (
        """
class Bad:
    @hookimpl(wrapper=True)
    def training_step(self):
        try:
            return (yield)
        except Exception:
            raise ValueError("something is wrong")
""",
        "ValueError: something is wrong",
    ),
    "survives[a run that fails before it begins]": (
        """
class Bad:
    @hookimpl
    def on_run_start(self):
        self.file = open("bad.log", "w")
    @hookimpl
    def on_run_end(self):
        self.file.close()
""",
        "'Bad' object has no attribute 'file'",
    ),
    "survives[several runs of one trainer]": (
        """
class Bad:
    started = False
    @hookimpl
    def on_fit_start(self):
        assert not self.started, "started twice"
        self.started = True
""",
        "started twice",
    ),
    "survives[another thread]": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
""",
        "signal only works in main thread",
    ),
    "survives[fit]: the process": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        torch.set_default_dtype(torch.float64)
""",
        "left torch.get_default_dtype() as torch.float64; it was torch.float32",
    ),
    "survives[fit]: the task": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self, run):
        run.task.head.register_forward_hook(lambda *a: None)
""",
        "left a hook on the module 'head'",
    ),
    "survives[fit]: an observer": (
        """
class Bad:
    observer = True
    @hookimpl
    def on_epoch_end(self, run):
        raise KeyError("nobody looked")
""",
        "KeyError: 'nobody looked'",
    ),
    "survives_odd_records": (
        """
class Bad:
    @hookimpl
    def on_metrics(self, metrics):
        assert all(value < float("inf") for value in metrics.values()), "not a number"
""",
        "AssertionError: not a number",
    ),
    "adds_no_synchronisation: a number": (
        """
class Bad:
    @hookimpl
    def on_train_batch_end(self, run):
        self.loss = float(run.loss)
""",
        "waits for the device 5 times in 5 steps*run.log takes tensors*on_train_batch_end*reads",
    ),
    "adds_no_synchronisation: a list": (
        """
class Bad:
    @hookimpl
    def on_after_loss(self, run):
        self.loss = run.loss.tolist()
""",
        "5 times*on_after_loss*reads values (tolist)",
    ),
    "adds_no_synchronisation: the metrics": (
        """
class Bad:
    @hookimpl
    def on_train_batch_end(self, run):
        self.metrics = run.metrics
""",
        "5 times*on_train_batch_end*fetches what was logged",
    ),
    "adds_no_synchronisation: the device itself": (
        """
class Bad:
    @hookimpl
    def on_train_batch_end(self, run):
        run.accelerator.synchronize()
""",
        "5 times*on_train_batch_end*synchronizes",
    ),
    "closes_twice": (
        """
class Bad:
    @hookimpl
    def on_run_start(self):
        self.files = ["one"]
    @hookimpl
    def on_run_end(self):
        self.files.pop()
""",
        "does not close twice*IndexError: pop from empty list",
    ),
    "keeps_its_state_through_a_checkpoint[inside an epoch]: not at all": (
        """
class Bad:
    steps = 0
    @hookimpl
    def on_after_backward(self, run):
        self.steps += 1
        run.task.head.weight.grad.mul_(self.steps)
""",
        "trains other weights after a resume (*head.weight*belongs into state_dict()",
    ),
    "keeps_its_state_through_a_checkpoint[inside an epoch]: the wrong one": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        self.steps = 0
    @hookimpl
    def on_train_batch_end(self):
        self.steps += 1
    def state_dict(self):
        return {"steps": self.steps}
    def load_state_dict(self, state):
        pass
""",
        "has another state after a resume*'steps': 3*'steps': 10",
    ),
    "works_on_another_rank: printing": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        print("here I am")
""",
        "prints in a process that is not the first: 'here I am",
    ),
    "works_on_another_rank: writing": (
        """
class Bad:
    observer = True
    @hookimpl
    def on_fit_start(self):
        Path("bad.log").touch()
""",
        "writes in a process that is not the first: bad.log; mark the listener",
    ),
    "changes_nothing": (
        """
class Bad:
    observer = True
    @hookimpl
    def on_train_batch_start(self):
        torch.rand(1)
""",
        "is an observer, and the weights are others with it",
    ),
    "takes_every_record": (
        """
class Bad:
    @hookimpl
    def on_log_start(self): ...
    @hookimpl
    def on_metrics(self):
        raise RuntimeError("the service is down")
""",
        "RuntimeError: the service is down",
    ),
    "begins_and_ends_many_times": (
        """
class Bad:
    @hookimpl
    def on_log_start(self, run):
        self.open = True
    @hookimpl
    def on_log_end(self, run):
        assert self.open, "ended already"
        self.open = False
""",
        "AssertionError: ended already",
    ),
    "provides_an_accelerator: a random state": (
        """
class Bad:
    @hookimpl
    def provide_accelerator(self):
        class Device(Accelerator):
            name = "bad"
            def set_random_state(self, state): ...
        return Device()
""",
        "does not put back the random state of its device",
    ),
    "provides_an_accelerator: a batch": (
        """
class Bad:
    @hookimpl
    def provide_accelerator(self):
        class Device(Accelerator):
            name = "bad"
            def place_batch(self, batch):
                return {key: (value[0], None) for key, value in batch.items()}
        return Device()
""",
        "changes what is no tensor in a batch",
    ),
}


ALL = {**BAD, **runpy.run_path(str(Path(__file__).with_name("harmful.py")))["HARMFUL"]}

SDK = """
import json
import numpy
from trainbus import hookimpl


class Bad:
    @hookimpl
    def on_fit_start(self): ...
"""
IMPORTS = """
from bad_module import Bad
from trainbus.testing import conformance

TestBad = conformance(Bad)
"""
GOOD = """
class Good:
    observer = True
    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.steps = 0
    @hookimpl
    def on_fit_start(self):
        self.steps = 0
    @hookimpl
    def on_before_optimizer_step(self, run):
        self.steps += 1
        run.log(norm=run.task.head.weight.grad.norm())
    def state_dict(self):
        return {"steps": self.steps}
    def load_state_dict(self, state):
        self.steps = state["steps"]

TestGood = conformance(Good, every=2)
TestLess = conformance(Good, skip={"closes_twice": "why not", "a dry run": "it is dry"})
"""
LESS = {"closes_twice": "why not", "survives[a dry run]": "it is dry"}
READING = """
class Reading:
    @hookimpl
    def on_before_optimizer_step(self, run):
        if not torch.isfinite(run.task.head.weight.grad).all():
            raise ValueError

TestOnce = conformance(Reading, synchronises=1)
TestNever = conformance(Reading)
"""
AT_HOME = """
class OneHot:
    @hookimpl
    def on_train_batch_start(self, run):
        self.hot = torch.nn.functional.one_hot(run.batch[1], 3)

class Drawn:
    @hookimpl
    def on_train_batch_start(self, run):
        self.share = float(torch.rand((), device="cpu"))
        self.places = (torch.randperm(4) + torch.tensor(1)).tolist()

class OnTheDevice:
    @hookimpl
    def on_train_batch_start(self, run):
        self.share = float(torch.rand((), device=run.device))

class Mixed:
    @hookimpl
    def on_train_batch_start(self, run):
        self.share = float(run.batch[0].sum() * torch.rand(()))

class Counted:
    @hookimpl
    def on_train_batch_start(self, run):
        self.hot = torch.nn.functional.one_hot(run.batch[1])

TestOneHot = conformance(OneHot)
TestDrawn = conformance(Drawn)
TestOnTheDevice = conformance(OnTheDevice)
TestMixed = conformance(Mixed)
TestCounted = conformance(Counted)
"""
WAITS = {"OneHot": False, "Drawn": False, "OnTheDevice": True, "Mixed": True, "Counted": True}
ONCE = {"Once": "passed", "Never": "failed"}
DEVICE = """
class Device(Accelerator):
    name = "far"
    def unavailable(self):
        return "no driver"

class Far:
    @hookimpl
    def provide_accelerator(self):
        return Device()

TestFar = conformance(Far)
"""
FAR = ("survives[fit]", "closes_twice", "provides_an_accelerator")
LOG = """
from trainbus.testing import MemoryLog
TestLog = conformance(MemoryLog, skip={"imports_no_sdk": "it is for tests"})
"""


class Result(NamedTuple):
    """How a test ended: passed, failed, skipped or error; and what was said of it."""

    outcome: str
    text: str


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """All of them, run by pytest in one process of its own: results by file, class and test."""
    folder = tmp_path_factory.mktemp("bad")
    asked = []
    for number, (case, (source, _)) in enumerate(ALL.items()):
        text = f"{PRELUDE}\nOPTIONS = {{}}\n{source}\nTestBad = conformance(Bad, **OPTIONS)\n"
        (folder / f"test_{number}.py").write_text(text)
        asked.append(f"test_{number}.py::TestBad::test_{check_of(case)}")
    (folder / "bad_module.py").write_text(SDK)
    (folder / "test_imports.py").write_text(IMPORTS)
    asked.append("test_imports.py::TestBad::test_imports_no_sdk")
    for name, source in {
        "good": GOOD,
        "reading": READING,
        "device": DEVICE,
        "log": LOG,
        "home": AT_HOME,
    }.items():
        (folder / f"test_{name}.py").write_text(PRELUDE + source)
    asked += ["test_good.py::TestGood", "test_log.py"]
    asked += [f"test_good.py::TestLess::test_{check}" for check in LESS]
    asked += [f"test_reading.py::Test{kind}::test_adds_no_synchronisation" for kind in ONCE]
    asked += [f"test_home.py::Test{kind}::test_adds_no_synchronisation" for kind in WAITS]
    asked += [f"test_device.py::TestFar::test_{check}" for check in FAR]
    install_an_audit(folder)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--junitxml=out.xml", *asked],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    found = {}
    for test in ElementTree.parse(folder / "out.xml").iter("testcase"):
        ends = [each for each in test if each.tag in ("failure", "error", "skipped")]
        outcome = {"failure": "failed"}.get(ends[0].tag, ends[0].tag) if ends else "passed"
        text = "".join(f"{each.get('message')}\n{each.text}" for each in ends)
        file, kind = test.get("classname").split(".")[-2:]
        check = test.get("name").removeprefix("test_")
        found.setdefault((file, kind), {})[check] = Result(outcome, text)
    return found


def install_an_audit(folder):
    """A plugin that is active because it is installed, and writes a file in each run."""
    info = folder / "acme_audit-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-audit\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[trainbus.autoload]\naudit = acme_audit:Audit\n")
    (folder / "acme_audit.py").write_text(
        "from trainbus import hookimpl\nclass Audit:\n    @hookimpl\n    def on_run_start(self):\n"
        "        open('audit.log', 'a').close()\n        print('audited')\n"
    )


def check_of(case):
    return case.partition(":")[0]


@pytest.mark.parametrize("case", ALL)
def test_a_bad_plugin_is_found(case, results):
    result = results[f"test_{list(ALL).index(case)}", "TestBad"][check_of(case)]
    assert result.outcome == "failed"
    assert "Bad" in result.text or "'bad'" in result.text, "the plugin is named"
    position = 0
    for part in ALL[case][1].split("*"):
        position = result.text.find(part, position)
        assert position >= 0, f"{part!r} is not said in\n{result.text}"


def test_an_import_of_more_than_trainbus_is_found(results):
    outcome, text = results["test_imports", "TestBad"]["imports_no_sdk"]
    assert outcome == "failed"
    assert "imports numpy with its module; import it in the hook" in text


def test_a_good_plugin_passes(results):
    """Also where a plugin of somebody else is active because it is installed."""
    good = results["test_good", "TestGood"]
    assert len(good) > 30
    skipped = [check for check, result in good.items() if result.outcome == "skipped"]
    assert skipped == ["imports_no_sdk"], "which a class of a test cannot show"
    assert {result.outcome for result in good.values()} == {"passed", "skipped"}


def test_what_is_skipped_says_why(results):
    less = results["test_good", "TestLess"]
    for check, reason in LESS.items():
        assert less[check].outcome == "skipped"
        assert reason in less[check].text


def test_what_is_documented_to_wait_may_wait_as_often(results):
    for kind, outcome in ONCE.items():
        result = results["test_reading", f"Test{kind}"]["adds_no_synchronisation"]
        assert result.outcome == outcome


@pytest.mark.parametrize("kind", WAITS)
def test_only_what_is_on_the_device_is_waited_for(kind, results):
    result = results["test_home", f"Test{kind}"]["adds_no_synchronisation"]
    assert result.outcome == ("failed" if WAITS[kind] else "passed")


def test_where_a_device_is_absent_what_needs_it_is_skipped(results):
    device = results["test_device", "TestFar"]
    assert list(device) == list(FAR)
    for result in device.values():
        assert result.outcome == "skipped"
        assert "accelerator 'far' is not available here: no driver" in result.text


def test_a_plugin_that_only_logs_is_played_what_it_can_see(results):
    log = results["test_log", "TestLog"]
    assert [check for check in log if log[check].outcome != "passed"] == ["imports_no_sdk"]
    assert "survives[fit]" in log
    assert "survives[accumulated batches]" not in log


@pytest.mark.parametrize(
    ("plugin", "options", "says"),
    [
        ("emma", {}, "did you mean 'ema'?"),
        ("ema", {"deacy": 0.5}, "no option 'deacy'; did you mean 'decay'?"),
        ("ema", {"skip": {"a dry ran": "x"}}, "no such check; did you mean 'a dry run'?"),
        ("trainbus.builtin.ema:EMMA", {}, "cannot be imported"),
    ],
)
def test_what_cannot_be_is_said_when_the_tests_are_collected(plugin, options, says):
    with pytest.raises(PluginError) as caught:
        conformance(plugin, **options)
    assert says in str(caught.value)
