"""On a GPU: the same weights as without the plugin, nothing lost, nothing left behind."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from trainbus import Accelerator, Task, Trainer
from trainbus_cuda import Cuda
from trainbus_cuda.device import CudaDevice

REASON = CudaDevice().unavailable()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no GPU: {REASON}")


@pytest.fixture
def device():
    device = CudaDevice()
    device.select(None)
    return device


def weights(make_net, batches, *plugins, accelerator="cuda", **options):
    torch.manual_seed(0)
    task = make_net()
    Trainer(epochs=2, seed=1, plugins=plugins, accelerator=accelerator, **options).fit(
        task, batches
    )
    return task.state_dict()


# --- the device ----------------------------------------------------------------------------------


def test_auto_takes_it_before_what_torch_reports(make_net, batches):
    run = Trainer(plugins=["cuda"]).fit(make_net(), batches)
    assert isinstance(run.accelerator, CudaDevice)
    assert run.header["device"].startswith("cuda:0 (auto, before ")
    assert run.header["cuda"].endswith("tf32, prefetch, fused")


def test_it_tells_its_memory_and_its_types(device):
    held = torch.ones(2**20, device=device.device)
    stats = device.memory_stats()
    assert held.nbytes <= stats["allocated"] <= stats["peak"] <= stats["total"]
    assert torch.float16 in device.dtypes()
    rate = device.peak_flops(torch.float32)
    assert rate is None or rate > 1e12


def test_a_real_allocation_that_fails_counts_as_out_of_memory(device):
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50, dtype=torch.uint8, device=device.device)
    assert device.is_out_of_memory(raised.value)


# --- the same weights ----------------------------------------------------------------------------


def test_copies_on_a_stream_of_their_own_change_no_bit(make_net, batches):
    plain = weights(make_net, batches, Cuda(tf32=False, fused=False, prefetch=False))
    side = weights(make_net, batches, Cuda(tf32=False, fused=False, prefetch=True))
    torch.testing.assert_close(side, plain, rtol=0, atol=0)


def test_fused_optimizers_are_the_same_up_to_rounding(make_net, batches):
    options = {"tf32": False, "prefetch": False}
    plain = weights(make_net, batches, Cuda(fused=False, **options))
    torch.testing.assert_close(weights(make_net, batches, Cuda(fused=True, **options)), plain)


def test_it_trains_as_the_generic_accelerator(make_net, batches):
    generic = weights(make_net, batches, accelerator=Accelerator("cuda"))
    torch.testing.assert_close(weights(make_net, batches, Cuda(tf32=False)), generic)


class Sum(Task):
    """Reads its batch late: what the next batch would write over is seen."""

    def __init__(self, late):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.late, self.seen = late, []

    def training_step(self, batch, run):
        (x,) = batch
        if self.late:
            torch.cuda._sleep(10_000_000)
        self.seen.append(x.double().sum())
        return self.weight * 0.0

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_no_batch_is_written_over_while_it_is_read():
    data = TensorDataset(torch.arange(64 * 2**14, dtype=torch.float32).view(64, -1))
    sums = []
    for late in (False, True):
        task = Sum(late)
        loader = DataLoader(data, batch_size=4, num_workers=2, pin_memory=True)
        Trainer(plugins=["cuda", "-nonfinite"], accelerator="cuda").fit(task, loader)
        sums.append([total.item() for total in task.seen])
    assert sums[0] == sums[1] == [x[0].double().sum().item() for x in DataLoader(data, 4)]


def test_a_killed_run_ends_with_the_same_bits(make_net, batches):
    data = TensorDataset(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))

    def train(directory, stop_at=None, resume=None):
        torch.manual_seed(0)
        task = make_net()
        trainer = Trainer(
            epochs=3, seed=5, accelerator="cuda",
            plugins=[Cuda(tf32=False), "checkpoint"], run_dir=directory,
        )  # fmt: skip

        @trainer.on("train_batch_end")
        def stop(run):
            if run.global_step == stop_at:
                run.interrupt(KeyboardInterrupt())

        trainer.fit(task, DataLoader(data, 8, shuffle=True, num_workers=2), resume=resume)
        return task.state_dict()

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("broken", stop_at=8)
    torch.testing.assert_close(train("broken", resume="auto"), whole, rtol=0, atol=0)


# --- graphs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [False, True], ids=["one shape", "and a smaller last batch"])
def test_graphs_train_the_same_weights(make_net, batches, odd):
    if odd:
        x, y = batches[-1]
        batches = [*batches, (x[:3], y[:3])]

    class Steady(make_net):  # without dropout, whose draws in a graph are others
        def __init__(self):
            super().__init__()
            self.net[3] = nn.Identity()

    eager = weights(Steady, batches, Cuda(tf32=False))
    graphed = weights(Steady, batches, Cuda(tf32=False, graphs=True))
    torch.testing.assert_close(graphed, eager)


def test_the_modules_are_themselves_again_after_the_run(make_net, batches):
    task = make_net()
    inside = []
    trainer = Trainer(plugins=[Cuda(graphs=True)], accelerator="cuda")
    trainer.on("train_epoch_end")(lambda run: inside.append("forward" in vars(task.net)))
    trainer.fit(task, batches)
    assert inside == [True]
    assert "forward" not in vars(task.net)
    assert "cuda_graphs" not in trainer.bus.plugins


def test_graphs_and_autocast(make_net, batches):
    pytest.importorskip("trainbus_amp")
    plugins = [Cuda(graphs=True), "amp"]
    trained = weights(make_net, batches, *plugins, precision="bf16")
    assert all(torch.isfinite(x).all() for x in trained.values())


# --- memory --------------------------------------------------------------------------------------


def test_a_snapshot_is_written_when_the_memory_is_exhausted(make_net, batches):
    class Greedy(make_net):
        def training_step(self, batch, run):
            return torch.empty(2**50, dtype=torch.uint8, device=run.device)

    trainer = Trainer(plugins=[Cuda(snapshot=True)], accelerator="cuda", run_dir="runs")
    with pytest.raises(torch.OutOfMemoryError) as raised:
        trainer.fit(Greedy(), batches)
    assert any("memory_viz" in note for note in raised.value.__notes__)
    (snapshot,) = Path("runs").glob("*/out_of_memory.pickle")
    assert snapshot.stat().st_size > 0
