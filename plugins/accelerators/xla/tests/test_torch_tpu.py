"""What `torch_tpu` itself says on a machine without a TPU: it has no emulation on the CPU.

Nothing is trained: the first backward pass would look for a TPU for minutes.
"""

from importlib.util import find_spec

import pytest

from trainbus import Trainer, UsageError
from trainbus.engine.choice import choose
from trainbus_xla import XLA

pytestmark = pytest.mark.skipif(
    find_spec("torch_tpu") is None, reason="needs torch_tpu: `make test-xla`"
)


def test_the_reason_is_that_there_is_no_tpu():
    reason = XLA().provide_accelerator().unavailable()
    assert reason.startswith("torch_tpu 0.")
    assert reason.endswith("is installed, but finds no TPU on this machine")


def test_a_run_that_asks_for_it_does_not_start(make_task, make_loader):
    with pytest.raises(UsageError, match="accelerator='xla' is not available: torch_tpu"):
        Trainer(plugins=["xla"], accelerator="xla").fit(make_task(), make_loader())


def test_auto_passes_it_over():
    chosen, why = choose("auto", [XLA().provide_accelerator()])
    assert chosen.device.type == "cpu"
    assert "xla is not available: torch_tpu" in why
