"""Plugins as real wheels, installed by pip into temporary environments."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder

import trainbus
from trainbus.events import Plugin
from trainbus.plugins import discovery, loading
from trainbus.plugins.selection import CommandLine, command_line

SOURCES = Path(__file__).with_name("sources")


@dataclass(frozen=True)
class Project:
    """A small distribution of one module, `sources/NAME.py`, and what its metadata says."""

    name: str
    #: Entry points: name to the attribute of the module; the module itself for an empty one.
    entries: Mapping[str, str]
    requires: tuple[str, ...] = ()
    extras: Mapping[str, list[str]] = field(default_factory=dict)
    group: str = discovery.GROUP
    core: str = "trainbus>=0.1,<0.2"
    module: str = ""

    def build(self, root: Path, wheels: Path) -> Path:
        """Write the project and make a wheel of it."""
        module = self.name.replace("-", "_")
        targets = {name: f"{module}:{attr}".rstrip(":") for name, attr in self.entries.items()}
        root.mkdir()
        source = SOURCES / f"{self.module or module}.py"
        (root / f"{module}.py").write_text(source.read_text())
        lines = [
            "[build-system]",
            'requires = ["hatchling"]',
            'build-backend = "hatchling.build"',
            "[project]",
            f'name = "{self.name}"',
            'version = "1.0"',
            f"dependencies = {[self.core, *self.requires]}",
            "[project.optional-dependencies]",
            *(f"{name} = {needed}" for name, needed in self.extras.items()),
            f'[project.entry-points."{self.group}"]',
            *(f'{name} = "{target}"' for name, target in targets.items()),
            "[tool.hatch.build.targets.wheel]",
            f'include = ["{module}.py"]',
        ]
        (root / "pyproject.toml").write_text("\n".join(lines))
        return Path(next(WheelBuilder(str(root)).build(directory=str(wheels))))


def _of_the_office(name: str, entries: Mapping[str, str], module: str = "") -> Project:
    return Project(name, entries, group=discovery.AUTOLOAD_GROUP, module=module)


ZOO = (
    Project(
        "trainbus-good",
        {"good": "Good"},
        requires=("not-for-us>=1; sys_platform == 'plan9'",),
        extras={"all": ["no-such-sdk>=2"]},
    ),
    Project("acme-hooks", {"costs": "Costs", "energy": "Energy"}),
    Project("trainbus-broken", {"broken": "Broken"}),
    Project("trainbus-crashed", {"crashed": "Crashed"}),
    Project("acme-twin", {"twin": "Twin"}),
    Project("other-twin", {"twin": "Twin"}),
    Project("trainbus-outdated", {"outdated": "Outdated"}, core="trainbus>=9"),
    Project("trainbus-needy", {"needy": "Needy"}, requires=("no-such-sdk>=2.5",)),
    Project("trainbus-elderly", {"elderly": "Needy"}, ("pluggy>=99",), module="trainbus_needy"),
    Project("trainbus-misspelt", {"misspelt": "Misspelt"}),
    Project("trainbus-vault", {"vault": "Vault"}),
    Project("trainbus-kinds", {"typed": "Typed", "plain": "Plain", "made": "make", "whole": ""}),
)
OFFICE = (
    _of_the_office("acme-office", {"office": "Office"}),
    _of_the_office("acme-ruin", {"ruin": "Ruin"}),
)
OTHERS = (
    _of_the_office("acme-typo", {"typo": "Typo"}),
    _of_the_office("acme-zeta", {"alpha": "Office"}, module="acme_office"),
    _of_the_office("acme-eta", {"omega": "Office"}, module="acme_office"),
)
PROJECTS = {project.name: project for project in (*ZOO, *OFFICE, *OTHERS)}


@dataclass(frozen=True)
class Environment:
    """A virtual environment; commands run in the working directory of the test."""

    directory: Path

    @property
    def python(self) -> Path:
        return self.directory / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.directory / "lib" / version / "site-packages"

    def run(self, *arguments: str, status: int = 0, **variables: str) -> Any:
        """Run Python with `arguments`; it must end with `status`."""
        done = subprocess.run(
            [str(self.python), *arguments],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def trainbus(self, *arguments: str, status: int = 0, **variables: str) -> Any:
        """Run the command."""
        return self.run("-m", "trainbus", *arguments, status=status, **variables)

    def pip(self, *arguments: str) -> None:
        """Run this environment's pip on it."""
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", str(self.python), *arguments],
            check=True,
            capture_output=True,
        )


@pytest.fixture(scope="session")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of the running environment, without any plugin of trainbus."""
    directory = tmp_path_factory.mktemp("third-party")
    for item in Path(sysconfig.get_path("purelib")).iterdir():
        if not item.name.startswith("trainbus_") and item.suffix != ".pth":
            (directory / item.name).symlink_to(item)
    return directory


@pytest.fixture(scope="session")
def make_environment(
    tmp_path_factory: pytest.TempPathFactory, third_party: Path
) -> Callable[..., Environment]:
    """`make_environment(*names)`: build wheels and install them, one pip call for all."""

    def make(*names: str) -> Environment:
        root = tmp_path_factory.mktemp("environment")
        wheels = [PROJECTS[name].build(root / name, root / "wheels") for name in names]
        venv.create(root / "venv", with_pip=False, symlinks=True)
        made = Environment(root / "venv")
        # torch and the core come from the running environment, where the core may be editable.
        core = Path(trainbus.__file__).parent.parent
        (made.site_packages / "running.pth").write_text(f"{third_party}\n{core}\n")
        made.pip("install", "--no-deps", "--no-index", *map(str, wheels))
        return made

    return make


@pytest.fixture(scope="session")
def zoo(make_environment: Callable[..., Environment]) -> Environment:
    """Good plugins, and one of each kind of broken ones."""
    return make_environment(*(project.name for project in ZOO))


@pytest.fixture(scope="session")
def office(make_environment: Callable[..., Environment]) -> Environment:
    """A plugin that is active when installed, and a broken one of that kind."""
    return make_environment("trainbus-good", *(project.name for project in OFFICE))


def _entered(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(environment.site_packages)
    yield environment
    for name in set(sys.modules) - before:
        path = getattr(sys.modules[name], "__file__", None) or ""
        if path.startswith(str(environment.site_packages)):
            del sys.modules[name]


@pytest.fixture
def in_zoo(zoo: Environment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    """This process sees what is installed in the zoo: quicker than a process of its own."""
    yield from _entered(zoo, monkeypatch)


@pytest.fixture
def in_office(office: Environment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    """This process sees what is installed in the office."""
    yield from _entered(office, monkeypatch)


@pytest.fixture
def told() -> Iterator[Callable[..., None]]:
    """`told("-good", options=[...])`: what the command line said."""
    before = command_line.get()

    def tell(*plugins: str, options: tuple[str, ...] = (), disabled: bool = False) -> None:
        command_line.set(CommandLine(plugins, options, disabled))

    yield tell
    command_line.set(before)


@pytest.fixture
def load() -> Callable[..., dict[str, Plugin]]:
    """`load(*plugins)`: what a trainer with these loads, by name."""
    return lambda *plugins: {each.name: each for each in loading.load(plugins)}


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Any]:
    """`fit(*plugins)`: the run of a fit of one step."""
    import torch

    def one_step(*plugins: object) -> Any:
        trainer = trainbus.Trainer(plugins=plugins, max_steps=1, run_dir=tmp_path / "runs")
        batch = (torch.ones(4, 2), torch.zeros(4, dtype=torch.int64))
        return trainer.fit(trainbus.Task.supervised(torch.nn.Linear(2, 2)), [batch])

    return one_step
