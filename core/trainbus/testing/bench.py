"""The plugin under test, trainers with it, and a look at the runs that they make."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainbus import hookspecs
from trainbus.builtin.journal import Journal
from trainbus.checkpoints.sections import Stateful
from trainbus.engine.run import Run
from trainbus.engine.task import Task
from trainbus.engine.trainer import Trainer
from trainbus.errors import PluginError
from trainbus.events.markers import hookimpl, spec_options
from trainbus.events.plugin import marker
from trainbus.plugins import loading
from trainbus.plugins.discovery import Found, Installed, import_target
from trainbus.plugins.names import name_of
from trainbus.plugins.options import Given, build, schema, unknown_option
from trainbus.testing.process import OF_A_RUN, SETTINGS, changes


@dataclass(frozen=True)
class Subject:
    """A plugin under test: what makes it, and how the suite treats it."""

    #: The class or function that makes it; or a module or object that is the plugin.
    target: Any
    #: What the installation tells of it, if it was given by name.
    found: Found | None
    options: Mapping[str, Any]
    beside: Sequence[str | object]
    synchronises: int
    milliseconds: float
    skip: Mapping[str, str]
    task: Callable[[], Task]
    loader: Callable[[], Iterable[Any]]
    #: What a logger's service holds of the run in a directory: steps and values by name.
    read: Callable[[Path], Mapping[str, Sequence[tuple[int, float]]]] | None = None
    #: The module with its tests.
    tests: str = ""

    @classmethod
    def of(cls, plugin: Any, options: Mapping[str, Any], **more: Any) -> Subject:
        """Find and import a plugin. Raises `PluginError` when it is not there."""
        found, target = None, plugin
        if isinstance(plugin, str) and ":" in plugin:
            target = import_target(plugin, plugin, plugin)
        elif isinstance(plugin, str):
            installed = Installed()
            found = installed.every.get(plugin)
            if found is None:
                raise PluginError(loading.unknown(plugin, installed))
            target = found.load()
        subject = cls(target, found, options, **more)
        for name in options:
            if name not in schema(target):
                given = Given(options[name], "conformance(...)")
                raise unknown_option(str(subject), name, given, list(schema(target)))
        return subject

    def __str__(self) -> str:
        if self.found is not None:
            return f"{self.found.name} ({self.found.origin})"
        return str(getattr(self.target, "__name__", type(self.target).__name__))

    def make(self, options: Mapping[str, Any] | None = None) -> Any:
        """A new object of it, its options validated as those of a project's file are."""
        options = self.options if options is None else options
        given = {key: Given(value, "conformance(...)") for key, value in options.items()}
        return build(str(self), self.target, given)[0]

    def listens(self, *kinds: str) -> bool:
        """Whether it listens to a hook of these kinds, or of these names."""
        declared = hookspecs.declared()
        names = [
            name
            for name in dir(self.looked_at)
            if marker(self.looked_at, name) is not None
            and (name in kinds or (name in declared and spec_options(declared[name]).kind in kinds))
        ]
        return bool(names)

    @property
    def looked_at(self) -> Any:
        """Its class, or itself, to see which hooks it has."""
        made_by_function = callable(self.target) and not isinstance(self.target, type)
        return self.make() if made_by_function else self.target

    @property
    def is_logger(self) -> bool:
        """It is handed records on a thread of its own."""
        return self.listens("on_log_start")

    @property
    def only_logs(self) -> bool:
        """It sees of a run what was logged, and nothing else."""
        return self.is_logger and not self.listens("event", "action")

    def fail(self, what: str) -> None:
        """End the test with a message that names the plugin."""
        __tracebackhide__ = True
        pytest.fail(f"plugin {self} {what}", pytrace=False)


class Bench:
    """Makes trainers with the plugin under test, and keeps their runs.

    Args:
        subject: the plugin under test.
        absent: leave it out, to see what the same run does without it.
    """

    def __init__(self, subject: Subject, absent: bool = False) -> None:
        self.subject = subject
        self.absent = absent
        self.runs: list[Run] = []
        self.tasks: list[Task] = []
        #: The newest object of it, and its name.
        self.plugin: Any = None
        self.name = ""
        #: What its `state_dict` was at the end of the newest fit.
        self.state: Any = None
        self._before: dict[str, Any] = {}

    def trainer(self, *others: str | object, **settings: Any) -> Trainer:
        """A trainer with a new object of the plugin, and others after it."""
        if self.absent:
            mine: list[str | object] = []
        else:
            self.plugin = self.subject.make()
            self.name = name_of(self.plugin)
            mine = [self.plugin]
            settings = _with_accelerator(self.plugin) | settings
        self._before = {name: SETTINGS[name].get() for name in OF_A_RUN}
        # A logger that fails is to be known of soon; numbers are fetched by their count, as on
        # a machine that is never slow.
        journal = [] if self.name == "journal" else [Journal(seconds=60.0, patience=3.0)]
        # What else is installed for every run is not to be blamed on this plugin, nor this on it.
        foreign = [f"-{name}" for name in Installed().autoload]
        others = tuple(each for each in others if each != self.name)
        plugins = [*foreign, *journal, *self.subject.beside, *mine, *others, _Watch(self)]
        return Trainer(plugins=plugins, **{"epochs": 2, "seed": 0} | settings)

    def task(self) -> Task:
        """A new task, the same each time."""
        torch.manual_seed(0)
        self.tasks.append(self.subject.task())
        return self.tasks[-1]

    def loader(self) -> Iterable[Any]:
        """A new loader."""
        return self.subject.loader()

    def fit_ending(self, trainer: Trainer, kind: type[BaseException], moment: str) -> BaseException:
        """The error by which a fit ends, which it has to.

        Args:
            trainer: what fits.
            kind: what is raised.
            moment: when, for the message.
        """
        try:
            self.fit(trainer)
        except kind as error:
            return error
        self.subject.fail(
            f"let a run end well that {kind.__name__} was to end {moment}; a wrapper raises again "
            "what it catches"
        )
        raise AssertionError("unreachable")

    def fit(self, trainer: Trainer, resume: str | None = None, valid: bool = True) -> Run:
        """Fit a new task, with validation."""
        loader = self.loader()
        try:
            return trainer.fit(self.task(), loader, self.loader() if valid else None, resume)
        except BaseException as error:
            left = "".join(f"; it left {change}" for change in changes(self._before))
            error.add_note(f"in a test of plugin {self.subject}{left}")
            raise

    @property
    def weights(self) -> dict[str, Tensor]:
        """Those of the newest task."""
        return self.tasks[-1].state_dict()

    def ended(self, *statuses: str, allowed: str = "") -> None:
        """Check how the runs since the last call ended, and that nothing is left of them.

        Args:
            statuses: how they are to have ended, in their order.
            allowed: what a failure that is in order says of itself.
        """
        runs, self.runs = self.runs, []
        tasks, self.tasks = self.tasks, self.tasks[-1:]
        how = tuple(run.status for run in runs)
        errors = [error for run in runs for error in run.errors]
        failures = [error for error in errors if not (allowed and allowed in error)]
        if failures:
            self.subject.fail("failed, and was told of as follows:\n" + "\n".join(failures))
        if how != statuses:
            self.subject.fail(f"made runs end as {', '.join(how)}, not {', '.join(statuses)}")
        for change in changes(self._before):
            self.subject.fail(f"left {change}")
        for task in tasks:
            self._check_left(task)

    def _check_left(self, task: Task) -> None:
        for name, module in task.named_modules():
            hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
            if any(hooks):
                self.subject.fail(f"left a hook on the module {name or '(all)'!r} of the task")
        for name, parameter in task.named_parameters():
            if not parameter.requires_grad:
                self.subject.fail(f"left the parameter {name!r} frozen")


def _with_accelerator(plugin: Any) -> dict[str, Any]:
    """The accelerator that a plugin provides; skips the test where it is not available."""
    if marker(plugin, "provide_accelerator") is None:
        return {}
    offered = plugin.provide_accelerator()
    if offered is None:
        return {}
    if reason := offered.unavailable():
        pytest.skip(f"accelerator {offered.name!r} is not available here: {reason}")
    return {"accelerator": offered.name}


class _Watch:
    """Tells the lab of each run."""

    plugin_name = "conformance"

    def __init__(self, lab: Bench) -> None:
        self._lab = lab

    @hookimpl(tryfirst=True)
    def on_run_start(self, run: Run) -> None:
        self._lab.runs.append(run)

    @hookimpl(trylast=True)
    def on_fit_end(self) -> None:
        if isinstance(self._lab.plugin, Stateful):
            self._lab.state = copy.deepcopy(self._lab.plugin.state_dict())
