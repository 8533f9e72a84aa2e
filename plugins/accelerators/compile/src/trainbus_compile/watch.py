"""What torch.compile does while a run lasts: graphs, recompilations with their reason, seconds."""

from __future__ import annotations

import logging
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

logger = logging.getLogger("trainbus")

_SHAPES = ("size mismatch", "stride mismatch", "rank mismatch", ".size()", ".stride()")
#: Code is compiled once for each of them, and for no other reason.
_VARIANTS = ("grad_mode", "requires_grad", ".training")


class Watch:
    """Counts what torch.compile does in this process, from `start` to `stop`.

    It reads the records that torch keeps of its compilations, when one begins and when it is asked:
    nothing is done in a step without one.

    Args:
        source: the file whose functions are named after regions.
        warn_after: recompilations of one piece of code after which a warning is given.
    """

    def __init__(self, source: str, warn_after: int) -> None:
        self._source = source
        self._warn_after = warn_after
        self._warned = False
        self._last: Any = None
        self._breaks_before: Counter[str] = Counter()
        self.graphs = 0
        self.seconds = 0.0
        #: Recompilations of each piece of code, and the reason of the last.
        self.recompiled: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}

    def start(self) -> None:
        """Count from here on."""
        from torch._dynamo.callback import callback_handler
        from torch._dynamo.utils import counters, get_compilation_metrics

        self._last = next(reversed(get_compilation_metrics()), None)
        self._breaks_before = Counter(counters["graph_break"])
        callback_handler.register_start_callback(self.read)

    def stop(self) -> None:
        """Count what is left, and no more."""
        from torch._dynamo.callback import callback_handler

        with suppress(ValueError):  # `torch.compiler.reset()` has removed it
            callback_handler.remove_start_callback(self.read)
        self.read()

    def read(self, _: object = None) -> None:
        """Count the compilations since the last call; torch keeps the newest 64."""
        from torch._dynamo.utils import get_compilation_metrics

        new = []
        for record in reversed(get_compilation_metrics()):
            if record is self._last:
                break
            new.append(record)
        if new:
            self._last = new[0]
        for record in reversed(new):
            self._count(record)

    def _count(self, record: Any) -> None:
        self.seconds += (record.duration_us or 0) / 1e6
        if record.co_name is None:  # a backward pass, compiled when it is first needed
            return
        self.graphs += 1
        if record.recompile_reason is None:
            return
        code = record.co_name
        if record.co_filename != self._source:  # what came after a graph break
            code += f" ({Path(record.co_filename).name}:{record.co_firstlineno})"
        reason = _short(record.recompile_reason)
        self.recompiled[code] += 1
        self.reasons[code] = reason
        logger.info("compile: %s was compiled again: %s", code, reason)
        if self.recompiled[code] > self._warn_after and not self._warned:
            self._warned = True
            logger.warning(
                "plugin 'compile': %s was compiled again %d times, last because of: %s; %s",
                code, self.recompiled[code], reason, _mend(reason),
            )  # fmt: skip

    @property
    def graph_breaks(self) -> Counter[str]:
        """How often tracing broke off, by the reason."""
        from torch._dynamo.utils import counters

        new = Counter(counters["graph_break"]) - self._breaks_before
        breaks: Counter[str] = Counter()
        for reason, number in new.items():
            breaks[reason.partition("\n")[0]] += number
        return breaks

    def metrics(self) -> dict[str, float]:
        """What was counted, without what did not happen."""
        counted = {
            "compile/seconds": self.seconds,
            "compile/recompilations": self.recompiled.total(),
            "compile/graph_breaks": self.graph_breaks.total(),
        }
        return {name: float(value) for name, value in counted.items() if value}

    def summary(self) -> str:
        """The same in a sentence, with the reasons."""
        parts = [f"{self.graphs} compiled in {self.seconds:.1f} s"]
        for code, number in self.recompiled.most_common():
            parts.append(f"{code} again {number}x, last because of: {self.reasons[code]}")
        for reason, number in self.graph_breaks.most_common():
            parts.append(f"graph breaks {number}x: {reason}")
        return "; ".join(parts)


def _short(reason: str) -> str:
    """The guard that failed, without the number of the code and the place in torch's source."""
    return re.split(r"\s{2,}|\n", re.sub(r"^\d+/\d+: ", "", reason.strip()))[0]


def _mend(reason: str) -> str:
    if any(sign in reason for sign in _SHAPES):
        return (
            "give batches of one shape (drop_last=True in the DataLoader, padding), or set the "
            "option dynamic=true"
        )
    if any(sign in reason for sign in _VARIANTS):
        return "each of these is compiled once; set the option warn_after higher if that is right"
    return (
        "a number or an object in the model changes between calls: make it a tensor, or leave "
        "its module out of the option regions"
    )
