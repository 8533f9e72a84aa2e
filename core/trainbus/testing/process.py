"""What a run may change for its whole process, and has to put back."""

from __future__ import annotations

import gc
import locale
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch


class Setting(NamedTuple):
    """Something that holds for the process: how it is read, and how it is put back."""

    get: Callable[[], Any]
    set: Callable[[Any], Any]


def _attribute(owner: Any, name: str) -> Setting:
    return Setting(lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def _handler(number: int) -> Setting:
    return Setting(lambda: signal.getsignal(number), lambda value: signal.signal(number, value))


def _set_environment(before: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)


def _content(read: Callable[[], Any]) -> Setting:
    """That of a list, which stays the same object."""
    return Setting(lambda: list(read()), lambda value: read().__setitem__(slice(None), value))


def _collect_garbage(on: bool) -> None:
    (gc.enable if on else gc.disable)()


_SIGNALS = [name for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
#: By what they are called in messages.
SETTINGS: dict[str, Setting] = {
    **{f"the handler of {name}": _handler(getattr(signal, name)) for name in _SIGNALS},
    "torch.is_grad_enabled()": Setting(torch.is_grad_enabled, torch.set_grad_enabled),
    "torch.get_default_dtype()": Setting(torch.get_default_dtype, torch.set_default_dtype),
    "torch.get_num_threads()": Setting(torch.get_num_threads, torch.set_num_threads),
    "torch.get_float32_matmul_precision()": Setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    ),
    "deterministic algorithms": Setting(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    ),
    "torch.is_anomaly_enabled()": Setting(
        torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly
    ),
    "torch.backends.cudnn.benchmark": _attribute(torch.backends.cudnn, "benchmark"),
    "torch.backends.cudnn.deterministic": _attribute(torch.backends.cudnn, "deterministic"),
    "the working directory": Setting(os.getcwd, os.chdir),
    "the environment": Setting(lambda: dict(os.environ), _set_environment),
    "the locale": Setting(
        lambda: locale.setlocale(locale.LC_ALL),
        lambda value: locale.setlocale(locale.LC_ALL, value),
    ),
    "the level of the root logger": Setting(
        lambda: logging.getLogger().level, lambda value: logging.getLogger().setLevel(value)
    ),
    "the level of the logger 'trainbus'": Setting(
        lambda: logging.getLogger("trainbus").level,
        lambda value: logging.getLogger("trainbus").setLevel(value),
    ),
    "logging.disable()": Setting(lambda: logging.root.manager.disable, logging.disable),
    "warnings.filters": _content(lambda: warnings.filters),
    "sys.path": _content(lambda: sys.path),
    "sys.excepthook": _attribute(sys, "excepthook"),
    "threading.excepthook": _attribute(threading, "excepthook"),
    "sys.stdout": _attribute(sys, "stdout"),
    "sys.stderr": _attribute(sys, "stderr"),
    "the garbage collector": Setting(gc.isenabled, _collect_garbage),
    "sys.getrecursionlimit()": Setting(sys.getrecursionlimit, sys.setrecursionlimit),
    "socket.getdefaulttimeout()": Setting(socket.getdefaulttimeout, socket.setdefaulttimeout),
}  # fmt: skip
#: Those that importing a library does not change.
OF_A_RUN = (
    *(name for name in SETTINGS if name.startswith(("the handler", "torch."))),
    "deterministic algorithms", "the working directory",
)  # fmt: skip


def settings() -> dict[str, Any]:
    """What holds now, by the names of the settings."""
    return {name: setting.get() for name, setting in SETTINGS.items()}


def put_back(before: dict[str, Any]) -> None:
    """Make hold what held before."""
    for name, value in before.items():
        if SETTINGS[name].get() != value:
            SETTINGS[name].set(value)


def changes(before: dict[str, Any]) -> list[str]:
    """What holds now and did not before, in words."""
    found = []
    for name, was in before.items():
        now = SETTINGS[name].get()
        if now == was:
            continue
        if isinstance(was, dict):
            for key in sorted(was.keys() | now.keys()):
                if was.get(key) != now.get(key):
                    found.append(f"{name}: {key} is {now.get(key)!r}, it was {was.get(key)!r}")
        elif isinstance(was, list):
            added = [each for each in now if each not in was]
            gone = [each for each in was if each not in now]
            found.append(f"{name}: added are {added!r:.200}, gone are {gone!r:.200}")
        else:
            found.append(f"{name} as {now}; it was {was}")
    return found


def new_threads(before: set[threading.Thread], seconds: float = 2.0) -> list[str]:
    """The names of threads that are alive and were not; those that are about to end get time."""
    deadline = time.monotonic() + seconds
    while True:
        left = [each for each in threading.enumerate() if each not in before]
        if not left or time.monotonic() > deadline:
            return [each.name for each in left]
        time.sleep(0.02)


def open_files() -> set[str]:
    """The files that this process has open, by number and path; none where no system tells."""
    found = set()
    for each in Path("/proc/self/fd").glob("*"):
        try:
            target = each.readlink()
        except OSError:  # the folder itself, which was open to be read
            continue
        if target.is_file():
            found.add(f"{each.name} {target}")
    return found


def random_states() -> dict[str, Any]:
    """The states of the generators that a whole process shares."""
    states: dict[str, Any] = {
        "random": random.getstate(), "torch": torch.get_rng_state().tolist()
    }  # fmt: skip
    if numpy := sys.modules.get("numpy"):
        states["numpy.random"] = str(numpy.random.get_state())
    return states
