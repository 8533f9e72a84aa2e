"""What is asked of every fitted step; a test calls `check_step` with a column of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from trainbus_data.steps import Step, step_from_state
from trainbus_data.tables.columns import Column

_ELSEWHERE = """
import json, sys
import numpy as np
for name in ("pandas", "narwhals", "polars", "pyarrow"):
    sys.modules[name] = None
from trainbus_data.steps import step_from_state
from trainbus_data.tables.columns import Column
given = json.load(sys.stdin)
column = Column(given["kind"], np.frombuffer(bytes.fromhex(given["values"]), given["dtype"]),
                tuple(given["words"]))
print(step_from_state(given["state"], {}).encode(column).tobytes().hex())
"""


def check_step(make: Callable[[], Step], train: Column, other: Column) -> Step:
    """Fail where a step does not what steps do; returns it, fitted.

    Fitting does not change the column; other columns do not change the step; one row is encoded as
    among many; what is decoded is encoded as before; the state is JSON, and gives the same bits in
    a process without pandas, narwhals, polars and Arrow.

    Args:
        make: a new step.
        train: the column that it is fitted on.
        other: one of validation, with values that training did not have.

    Raises:
        AssertionError: with what is wrong.
    """
    before = train.values.tobytes()
    step = make().fit(train)
    assert train.values.tobytes() == before, "fit changed the column"
    state = json.dumps(step.state())
    encoded = step.encode(other)
    assert json.dumps(step.state()) == state, "encode changed what was learned"
    assert len(encoded) == len(other), "encode gives a row for each row"
    assert encoded.dtype == (np.int64 if step.gives_codes else np.float64), encoded.dtype
    width = 1 if encoded.ndim == 1 else encoded.shape[1]
    assert len(step.names("x")) == width, "names has a name for each output"
    for row in range(len(other)):
        alone = step.encode(other.take([row]))
        assert alone.tobytes() == encoded[row : row + 1].tobytes(), f"row {row} alone is another"
    assert len(step.decode(step.encode(train))) == len(train), "decode gives a value for each row"
    again = step_from_state(json.loads(state), step.tensors())
    assert again.encode(other).tobytes() == encoded.tobytes(), "the state gives other values"
    assert _elsewhere(state, other) == encoded.tobytes(), "another process gives other values"
    return step


def _elsewhere(state: str, column: Column) -> bytes:
    """The bytes that a process without libraries of frames encodes."""
    given: dict[str, Any] = {
        "state": json.loads(state), "kind": column.kind, "words": list(column.words),
        "values": np.ascontiguousarray(column.values).tobytes().hex(), "dtype": column.values.dtype.str,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE], input=json.dumps(given), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return bytes.fromhex(done.stdout.strip())
