"""The conformance suite: what every plugin has to be able to do, as tests for pytest."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from trainbus.bus import Bus
from trainbus.checkpoints.sections import Stateful
from trainbus.engine.run import Run
from trainbus.engine.task import Task
from trainbus.engine.trainer import Trainer
from trainbus.errors import PluginError, nearest
from trainbus.plugins.names import name_of
from trainbus.plugins.options import schema, types_of
from trainbus.testing.bench import Bench, Subject
from trainbus.testing.habits import HabitChecks
from trainbus.testing.odd_records import log_odd_things
from trainbus.testing.roles import AcceleratorChecks, LoggerChecks, ObserverChecks, same
from trainbus.testing.scenarios import SCENARIOS
from trainbus.testing.synchronisations import Waiting
from trainbus.testing.tiny import TinyTask, make_loader


def conformance(
    plugin: str | Any,
    /,
    *,
    plugins: Sequence[str | object] = (),
    synchronises: int = 0,
    milliseconds: float = 10.0,
    read: Callable[[Path], Mapping[str, Sequence[tuple[int, float]]]] | None = None,
    skip: Mapping[str, str] | None = None,
    task: Callable[[], Task] = TinyTask,
    loader: Callable[[], Iterable[Any]] = make_loader,
    **options: Any,
) -> type:
    """The tests that a plugin has to pass, as a class for pytest.

    `TestConformance = conformance("wandb", mode="offline")` in a test file is all.

    Args:
        plugin: its name, once it is installed; or its class.
        plugins: others that it cannot do without.
        synchronises: how often it waits for the device in each step, as its documentation says.
        milliseconds: what its listeners may take of each step of a tiny task.
        read: for a logger: what its service holds of the run in a directory, as pairs of a step
            and a value by the metric's name.
        skip: for a check (`constructs_with_defaults`) or a scenario of `survives` (`a dry run`),
            why it is not for this plugin.
        task: makes what is trained, for a plugin that is not for every task.
        loader: makes its batches.
        options: those of the plugin.

    Raises:
        PluginError: there is no such plugin, option, check or scenario.
    """
    subject = Subject.of(
        plugin, options, beside=plugins, synchronises=synchronises, milliseconds=milliseconds,
        read=read, skip=skip or {}, task=task, loader=loader,
        tests=str(sys._getframe(1).f_globals.get("__name__")),
    )  # fmt: skip
    bases: list[type] = [Conformance, HabitChecks]
    if getattr(subject.looked_at, "observer", False) is True:
        bases.insert(0, ObserverChecks)
    if subject.is_logger:
        bases.insert(0, LoggerChecks)
    if subject.listens("provide_accelerator"):
        bases.insert(0, AcceleratorChecks)
    made = type("Conformance", tuple(bases), {"subject": subject})
    checks = [name.removeprefix("test_") for name in dir(made) if name.startswith("test_")]
    for name in subject.skip:
        if name not in checks and name not in SCENARIOS:
            known = [*checks, *SCENARIOS]
            raise PluginError(
                f"conformance(skip={{{name!r}: ...}}): no such check{nearest(name, known)} "
                f"There are {', '.join(known)}"
            )
    return made


class Conformance:
    """What is asked of every plugin."""

    subject: ClassVar[Subject]
    directory: ClassVar[Path | None] = None

    @pytest.fixture(autouse=True)
    def _apart(
        self,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        """Work where nothing is, and let nothing from outside say which plugins are on."""
        check = request.node.originalname.removeprefix("test_")
        if reason := self.subject.skip.get(check):
            pytest.skip(reason)
        # One for all tests of a plugin: a client's data base takes its time to be made.
        kind = type(self)
        if kind.directory is None:
            kind.directory = tmp_path_factory.mktemp("conformance")
        monkeypatch.chdir(kind.directory)
        for name in os.environ:
            if name.startswith("TRAINBUS_"):
                monkeypatch.delenv(name)

    @pytest.fixture
    def empty(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> Path:
        """A directory to see what is written; the plugin's own fixtures write to others."""
        directory = tmp_path_factory.mktemp("empty")
        monkeypatch.chdir(directory)
        return directory

    @pytest.fixture
    def lab(self) -> Iterator[Bench]:
        """Trainers with the plugin."""
        grad = torch.is_grad_enabled()
        yield Bench(self.subject)
        torch.set_grad_enabled(grad)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test of each scenario that has something for the plugin."""
        if "scenario" in metafunc.fixturenames:
            played = [
                name
                for name, scenario in SCENARIOS.items()
                if scenario.records or not self.subject.only_logs
            ]
            metafunc.parametrize("scenario", played)
        if "step" in metafunc.fixturenames:
            steps = {"inside an epoch": 7, "between epochs": 5}
            if self.subject.only_logs:
                del steps["between epochs"]
            metafunc.parametrize("step", steps.values(), ids=steps.keys())

    # --- as it is made -------------------------------------------------------------------------

    def test_constructs_with_defaults(self, empty: Path) -> None:
        """It is made without options, but those without a default; and only made."""
        subject = self.subject
        parameters = schema(subject.target)
        needed = [key for key, each in parameters.items() if each.default is each.empty]
        if missing := [key for key in needed if key not in subject.options]:
            subject.fail(f"needs the option {missing[0]!r}: conformance(..., {missing[0]}=...)")
        shared = [
            key for key, each in parameters.items() if isinstance(each.default, (list, dict, set))
        ]
        if shared:
            subject.fail(
                f"has the option {shared[0]!r} with the default {parameters[shared[0]].default!r}, "
                "which all its objects share; write `= ()` or `= None`"
            )
        untyped = [key for key in parameters if key not in types_of(subject.target)]
        if untyped:
            subject.fail(
                f"has the option {untyped[0]!r} without a type; its values could not be checked"
            )
        threads = threading.active_count()
        plugin = subject.make({key: subject.options[key] for key in needed})
        Bus().register(plugin, name_of(plugin))
        halves = [hasattr(plugin, name) for name in ("state_dict", "load_state_dict")]
        if any(halves) and not all(halves):
            subject.fail("has one of state_dict and load_state_dict; only both are a state")
        if list(empty.iterdir()) or threading.active_count() != threads:
            subject.fail("writes files or starts threads in __init__; wait until a run starts")

    def test_imports_no_sdk(self) -> None:
        """Its module imports only trainbus and the standard library."""
        subject = self.subject
        target = subject.target
        module = str(getattr(target, "__module__", None) or getattr(target, "__name__", ""))
        if module == subject.tests:
            pytest.skip("it is defined in the tests themselves")
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT, module],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode == 3:
            pytest.skip(f"the module {module!r} is no installed one")
        if done.returncode:
            subject.fail(f"cannot be imported in a process of its own:\n{done.stderr}")
        requires = (subject.found.distribution.files.requires or ()) if subject.found else ()
        needed = {text.replace("-", "_") for text in requires if text.startswith("trainbus")}
        allowed = {module.partition(".")[0], "trainbus", *sys.stdlib_module_names}
        foreign = [
            name
            for name in sorted(set(done.stdout.split()) - allowed)
            if not any(text.startswith(name) for text in needed)
        ]
        if foreign:
            subject.fail(
                f"imports {', '.join(foreign)} with its module; import it in the hook that "
                "needs it, and for annotations under `if TYPE_CHECKING`"
            )

    # --- what it survives ----------------------------------------------------------------------

    def test_survives(self, lab: Bench, scenario: str) -> None:
        """It fails in no run, whatever happens in it, and puts back what it changed."""
        if reason := self.subject.skip.get(scenario):
            pytest.skip(reason)
        SCENARIOS[scenario].play(lab)

    def test_survives_odd_records(self, lab: Bench) -> None:
        """Numbers, names and values that a service may choke on end nothing."""
        trainer = lab.trainer()
        log_odd_things(trainer)
        lab.fit(trainer)
        # A logger may say of a record that its service cannot take it.
        lab.ended("completed", allowed="leaves something out")

    def test_adds_no_synchronisation(self, lab: Bench) -> None:
        """Between the first and the last step of an epoch it does not wait for the device."""
        subject = self.subject
        without, _ = _waits(Bench(subject, absent=True))
        places, steps = _waits(lab)
        added = places - without
        if added.total() > subject.synchronises * steps:
            listing = "\n".join(f"{count} times: {place}" for place, count in added.most_common())
            allowed = f", not {subject.synchronises * steps}" if subject.synchronises else ""
            subject.fail(
                f"waits for the device {added.total()} times in {steps} steps{allowed}; "
                f"run.log takes tensors:\n{listing}"
            )

    def test_closes_twice(self, lab: Bench) -> None:
        """The end of a run may come twice."""
        run = lab.fit(lab.trainer())
        plugin = lab.plugin
        bus = Bus()
        bus.register(plugin, lab.name)
        for _ in range(2):
            if bus.on_run_end:
                bus.on_run_end(run, run.status)
            if callable(close := getattr(plugin, "close", None)):
                close()
        if bus.errors:
            self.subject.fail("does not close twice:\n" + "\n".join(bus.errors))
        lab.ended("completed")

    def test_keeps_its_state_through_a_checkpoint(self, lab: Bench, step: int) -> None:
        """A run that was interrupted and resumed ends as one that was not: weights and state."""
        lab.fit(lab.trainer("checkpoint", run_dir="whole"))
        whole, state = lab.weights, lab.state
        lab.ended("completed")

        trainer = lab.trainer("checkpoint", run_dir="parts")
        where = "inside an epoch" if step % len(list(lab.loader())) else "the last of an epoch"
        moment = f"after step {step}, {where}"
        _interrupt_after(trainer, step)
        lab.fit_ending(trainer, KeyboardInterrupt, moment)
        lab.ended("interrupted")
        try:
            run = lab.fit(lab.trainer("checkpoint", run_dir="parts"), resume="auto")
            lab.ended("completed")
        except Exception as error:
            error.add_note(f"in the resume of a run that was interrupted {moment}")
            raise
        assert run.global_step > step, "the run was not resumed"

        if different := [name for name in whole if not same(whole[name], lab.weights[name])]:
            self.subject.fail(
                f"trains other weights after a resume ({', '.join(different)}) of a run that was "
                f"interrupted {moment}: what it needs to "
                "go on belongs into state_dict() and load_state_dict()"
            )
        if isinstance(lab.plugin, Stateful) and not same(state, lab.state):
            self.subject.fail(
                f"has another state after a resume of a run that was interrupted {moment}:\n"
                f"{lab.state}\nwithout one it has:\n{state}"
            )

    def test_works_on_another_rank(
        self, lab: Bench, empty: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """In a process that is not the first it works, prints nothing, and an observer writes no
        file.
        """
        trainer = lab.trainer("-manifest", run_dir="runs")

        @trainer.on("run_start", tryfirst=True)
        def be_second(run: Run) -> None:
            run.rank, run.world_size = 1, 2

        capsys.readouterr()
        lab.fit(trainer)
        lab.ended("completed")
        if printed := capsys.readouterr().out:
            self.subject.fail(f"prints in a process that is not the first: {printed!r:.200}")
        plugin = lab.plugin
        looks_on = getattr(plugin, "observer", False) and not getattr(plugin, "all_ranks", False)
        if looks_on and (written := sorted(each.name for each in empty.rglob("*"))):
            self.subject.fail(
                f"writes in a process that is not the first: {', '.join(written)}; mark the "
                "listener @hookimpl(rank_zero=True)"
            )


# --- what the tests share ------------------------------------------------------------------------

_IMPORT = """
import importlib.util, sys
import trainbus, trainbus.plugins
from trainbus import PluginError, hookimpl, hookspec
before = set(sys.modules)
try:
    spec = importlib.util.find_spec(sys.argv[1])
except ImportError:
    spec = None
if spec is None:
    sys.exit(3)
importlib.import_module(sys.argv[1])
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""


def _waits(lab: Bench) -> tuple[Counter[str], int]:
    """What waits for a device between the first and the last step of a fit of one epoch."""
    waiting = Waiting()
    steps = 0
    trainer = lab.trainer(epochs=1)
    last = len(list(lab.loader())) - 1

    @trainer.on("train_batch_start", tryfirst=True)
    def begin() -> None:
        waiting.on = True

    @trainer.on("train_batch_end", trylast=True)
    def end(run: Run) -> None:
        nonlocal steps
        steps += 1
        if run.batch_index == last:
            waiting.on = False

    with waiting.watching():
        lab.fit(trainer)
    lab.ended("completed")
    return waiting.places, steps


def _interrupt_after(trainer: Trainer, step: int) -> None:
    """End a run by Ctrl-C in the batch that makes this step, as the signal's handler does."""

    @trainer.on("after_optimizer_step", tryfirst=True)
    def ask(run: Run) -> None:
        if run.global_step == step:
            run.interrupt(KeyboardInterrupt())
