"""What holds for a whole process: where it begins, and how many devices it shards over."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.torch_xla


def python(program, **environment):
    """Run a program in a process of its own; returns the last line that it prints."""
    variables = {**os.environ, **environment}
    for name in [name for name, value in environment.items() if value is None]:
        del variables[name]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=variables, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_without_a_tpu_the_cpu_is_used_only_where_it_is_asked_for():
    told = python(
        "import os; from trainbus_xla import XLA; offered = XLA().provide_accelerator()\n"
        "print(*[offered.unavailable() for _ in range(2)], os.environ.get('PJRT_DEVICE'))",
        PJRT_DEVICE=None,
    )
    reason = (
        "torch_xla 2.9.0 is installed, but finds no TPU on this machine; to try it on the CPU, "
        "set PJRT_DEVICE=CPU in the environment"
    )
    assert told == f"{reason} {reason} None"


def test_a_backward_pass_before_torch_xla_begins_is_told():
    told = python(
        "import torch; torch.ones(1, requires_grad=True).neg().backward()\n"
        "from trainbus_xla import XLA; offered = XLA().provide_accelerator()\n"
        "assert offered.unavailable() is None\n"
        "try: offered.select(None)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    assert told.startswith("UsageError accelerator='xla': a backward pass of this process ran")
    assert "begin the program with `import torch_xla; torch_xla.device()`" in told


SHARDED = """
import torch_xla, torch
from torch import nn
from torch.nn import functional
from trainbus import Trainer
from trainbus_xla import XLA

def train(plugin, device):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.randn(70, 8, generator=torch.Generator().manual_seed(1))
    batches = [(x, x[:, :3].argmax(dim=1)) for x in data.split(16)]  # the last is of 6
    with Trainer(plugins=[plugin], accelerator=device).open(model, optimizer) as run:
        for x, y in run.batches(batches, epochs=3):
            loss = functional.cross_entropy(model(x), y)
            run.log(loss=loss)
            run.step(loss)
            if device == "xla" and x.shape[0] == 16:
                sharding = torch_xla._XLAC._get_xla_sharding_spec(x)
                assert "devices=[4,1]" in sharding, sharding
        if device == "xla":
            run.save_checkpoint(run.dir / "saved")
            saved = torch.load(run.dir / "saved" / "model.pt", weights_only=True)
            torch.testing.assert_close(
                dict(saved), {k: v.cpu() for k, v in run.task.state_dict().items()}
            )
            print(run.header["xla"], end=" ")
        loss = run.metrics
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}, loss

sharded = train(XLA(spmd=True), "xla")
alone = train(XLA(), "cpu")
torch.testing.assert_close(sharded, alone, rtol=1e-4, atol=1e-5)
print("equal")
"""


def test_four_devices_that_share_each_batch_train_as_one_does(tmp_path):
    told = python(SHARDED, CPU_NUM_DEVICES="4")
    assert told == "torch_xla 2.9.0 on CPU, batches sharded over 4 devices equal"
