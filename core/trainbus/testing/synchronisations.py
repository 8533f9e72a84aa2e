"""Find what brings values of tensors to Python, and so makes a host wait for its device."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from trainbus.devices.accelerator import Accelerator
from trainbus.engine.metrics import MetricBuffer, Row
from trainbus.engine.run import Run

#: Where logged numbers are fetched in time.
_LOGGING = ("trainbus.engine.run", "trainbus.engine.metrics", "trainbus.engine.passes")
#: Operators whose result, or its size, depends on values.
_OPERATORS = ("_local_scalar_dense", "equal", "nonzero", "masked_select")
#: Methods of tensors that no operator stands for on the CPU.
_METHODS = ("tolist", "numpy", "cpu", "__array__", "__repr__")


class Waiting:
    """Counts, while `on`, what waits for a device on this thread, by file and line.

    On the CPU nothing waits, so it looks at what would, if the tensors were on a device. What
    `run.log` does with a number that is at hand is none of it: on a device it keeps a copy there.
    Nor is what would be in the host's memory beside a device, too: a tensor that is made without a
    device or on `"cpu"`, and what is computed of such alone.
    """

    def __init__(self) -> None:
        self.on = False
        self.places: Counter[str] = Counter()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at every operation inside."""
        fetch, note = MetricBuffer.fetch, self._note

        def counted_fetch(buffer: MetricBuffer, *arguments: Any, **named: Any) -> list[Row]:
            if buffer.pending:
                note("fetches what was logged", *_LOGGING)
            return fetch(buffer, *arguments, **named)

        def counted_synchronize(*_arguments: Any) -> None:
            note("synchronizes")

        with pytest.MonkeyPatch.context() as patch, _Functions(self), _Operators(self):
            patch.setattr(MetricBuffer, "fetch", counted_fetch)
            for owner in (Accelerator, torch.accelerator, torch.cuda):
                patch.setattr(owner, "synchronize", counted_synchronize)
            yield

    def _note(self, what: str, *passed: str) -> None:
        if not self.on:
            return
        frame = sys._getframe(1)
        while frame.f_back is not None:
            module = str(frame.f_globals.get("__name__"))
            if module not in (__name__, *passed) and module.partition(".")[0] != "torch":
                break
            frame = frame.f_back
        module, code = str(frame.f_globals.get("__name__")), frame.f_code
        # `run.log`, and the loop, which fetches when it is time.
        if module in (*_LOGGING, "trainbus.engine.trainer") or code is Run.log.__code__:
            return
        if code.co_name == "fetch" and isinstance(frame.f_locals.get("self"), Accelerator):
            return  # for the records
        where = f"{Path(code.co_filename)}:{frame.f_lineno} ({code.co_name})"
        self.places[f"{where} {what}"] += 1

    def note_operator(self, name: str, arguments: tuple[Any, ...]) -> None:
        """An operator of torch ran."""
        masked = name == "index" and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in arguments[1]
        )
        if (name in _OPERATORS or "unique" in name or masked) and not _all_at_home(arguments):
            self._note(f"reads values ({name.removeprefix('_')})")

    def call(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """A function of torch is called; returns its result."""
        name = getattr(function, "__name__", "")
        if name in _METHODS and not _all_at_home(arguments):
            self._note(f"reads values ({name})")
        classes = named.get("num_classes", arguments[1] if len(arguments) > 1 else -1)
        if name == "one_hot" and classes != -1:  # which reads values on the CPU alone
            was_on, self.on = self.on, False
            try:
                return function(*arguments, **named)
            finally:
                self.on = was_on
        result = function(*arguments, **named)
        if self.on and isinstance(result, torch.Tensor):
            given = (*arguments, *named.values())
            moved = any(isinstance(each, torch.device) for each in given)
            result.trainbus_at_home = _all_at_home(given) and not moved  # type: ignore[attr-defined]
        return result


def _all_at_home(values: tuple[Any, ...]) -> bool:
    """Whether all tensors among some values are in the host's memory, whatever the device is."""
    for each in values:
        if isinstance(each, torch.Tensor) and not getattr(each, "trainbus_at_home", False):
            return False
        if isinstance(each, (tuple, list)) and not _all_at_home(tuple(each)):
            return False
    return True


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, waiting: Waiting) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._waiting = waiting

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._waiting.note_operator(str(func).split(".")[1], args)
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    def __init__(self, waiting: Waiting) -> None:
        super().__init__()
        self._waiting = waiting

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._waiting.call(func, args, kwargs or {})
