"""Training through torch_xla, on the CPU through PJRT: what it computes, and what it costs."""

import pytest
import torch
from torch import nn

from trainbus import Trainer, UsageError, hookimpl
from trainbus.testing import MemoryLog
from trainbus_xla import XLA

pytestmark = pytest.mark.torch_xla


class Counts:
    """After each batch: graphs compiled, and values that the host has read."""

    plugin_name = "counts"

    def __init__(self):
        self.graphs = []
        self.read = []

    @hookimpl(trylast=True)
    def on_train_batch_end(self):
        import torch_xla.debug.metrics as metrics

        self.graphs.append(metrics.metric_data("CompileTime")[0])
        self.read.append(metrics.counter_value("aten::_local_scalar_dense") or 0)


@pytest.fixture(params=[1, 2], ids=["each batch a step", "two batches a step"])
def accumulate(request):
    return request.param


def test_training_gives_the_weights_and_metrics_of_the_cpu(
    accumulate, make_task, make_loader, weights_of
):
    ends = {}
    for device in ("cpu", "xla"):
        task, settings = make_task(), {"epochs": 3, "seed": 0, "accumulate": accumulate}
        run = Trainer(plugins=["xla"], accelerator=device, **settings).fit(
            task, make_loader(), make_loader()
        )
        assert run.device.type == device
        ends[device] = {**weights_of(task), **run.metrics}
    assert ends["xla"].keys() == ends["cpu"].keys()
    torch.testing.assert_close(ends["xla"], ends["cpu"], rtol=1e-4, atol=1e-5)
    assert ends["xla"]["valid/loss"] < 0.8


def test_the_device_is_taken_by_auto_and_told_in_the_header(make_task, make_loader):
    run = Trainer(plugins=["xla"], max_steps=1).fit(make_task(), make_loader())
    assert run.accelerator.name == "xla"
    assert run.header["xla"].startswith("torch_xla 2.9.0 on CPU")


def test_after_the_first_steps_no_graph_is_compiled_and_nothing_is_read(make_task, make_loader):
    counts = Counts()
    trainer = Trainer(plugins=["xla", counts], accelerator="xla", epochs=3)
    trainer.fit(make_task(dropout=0.5), make_loader(), make_loader())
    # In later epochs: between the steps; at their ends, what was logged is fetched.
    for epoch in (1, 2):
        steps = slice(8 * epoch, 8 * epoch + 8)
        assert len(set(counts.graphs[steps])) == 1, counts.graphs
        assert len(set(counts.read[steps])) == 1, counts.read
    assert counts.graphs[5] == counts.graphs[7]


def test_fetching_another_number_of_values_compiles_nothing(make_task, make_loader):
    counts = Counts()
    trainer = Trainer(plugins=["xla", counts], accelerator="xla", epochs=4)

    @trainer.on("train_batch_end", tryfirst=True)
    def read_now_and_then(run):
        if run.global_step in (18, 19, 22, 29):  # 1, 3 and 7 steps after the last time
            run.flush()

    trainer.fit(make_task(), make_loader())
    assert counts.graphs[17] == counts.graphs[-1], counts.graphs


def test_a_learning_rate_that_changes_compiles_nothing(make_task, make_loader):
    counts, trainer = Counts(), None
    trainer = Trainer(plugins=["xla", counts], accelerator="xla", epochs=2)

    @trainer.on("after_optimizer_step")
    def slower(run):
        run.optimizer.param_groups[0]["lr"] *= 0.9

    trainer.fit(make_task(), make_loader())
    assert len(set(counts.graphs[9:])) == 1, counts.graphs


def test_operators_compute_in_bfloat16_under_its_autocast(make_task, make_loader):
    class Halves:
        @hookimpl(wrapper=True)
        def training_step(self, run):
            with run.accelerator.autocast(torch.bfloat16):
                return (yield)

    task = make_task()
    run = Trainer(plugins=["xla", Halves()], accelerator="xla", epochs=3, seed=0).fit(
        task, make_loader(), make_loader()
    )
    assert task.dtypes == {torch.bfloat16}
    assert {p.dtype for p in task.parameters()} == {torch.float32}
    assert run.metrics["valid/loss"] < 0.8


def test_mixed_precision_of_the_plugin_amp(make_task, make_loader):
    pytest.importorskip("trainbus_amp")
    task, settings = make_task(), {"epochs": 3, "precision": "bf16"}
    run = Trainer(plugins=["xla", "amp"], accelerator="xla", **settings).fit(
        task, make_loader(), make_loader()
    )
    assert task.dtypes == {torch.bfloat16}
    assert run.metrics["valid/loss"] < 0.8


def test_float16_is_none_of_its_types():
    offered = XLA().provide_accelerator()
    assert torch.float16 not in offered.dtypes()
    assert {torch.float32, torch.bfloat16} <= offered.dtypes()


@pytest.mark.parametrize("background", [False, True], ids=["", "background"])
def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_bits(
    background, make_task, make_loader, weights_of
):
    def trainer(*plugins):
        return Trainer(plugins=["xla", *plugins], accelerator="xla", epochs=3, seed=0)

    whole = make_task(dropout=0.5)
    trainer().fit(whole, make_loader(), make_loader())

    from trainbus.builtin.checkpoint import Checkpoint

    def saving():
        return Checkpoint(every_steps=2, background=background)

    first = trainer(saving())

    @first.on("train_batch_end")
    def leave(run):
        if run.global_step == 13:
            run.stop("enough")

    assert first.fit(make_task(dropout=0.5), make_loader(), make_loader()).status == "stopped"
    second = make_task(dropout=0.5)
    run = trainer(saving()).fit(second, make_loader(), make_loader(), resume="auto")
    assert run.global_step == 24
    torch.testing.assert_close(weights_of(second), weights_of(whole), rtol=0, atol=0)


def test_a_checkpoint_holds_tensors_of_the_cpu(make_task, make_loader, tmp_path):
    trainer = Trainer(plugins=["xla"], accelerator="xla", max_steps=2)
    trainer.on("fit_end")(lambda run: run.save_checkpoint(tmp_path / "saved"))
    trainer.fit(make_task(), make_loader())
    model = torch.load(tmp_path / "saved" / "model.pt", weights_only=True)
    (optimizer,) = torch.load(tmp_path / "saved" / "optimizers.pt", weights_only=True)
    found = [*model.values(), *(t for each in optimizer["state"].values() for t in each.values())]
    assert len(found) == 24
    assert {tensor.device.type for tensor in found} == {"cpu"}


def test_another_checkpoint_compiles_nothing(make_task, make_loader, tmp_path):
    counts = Counts()
    trainer = Trainer(plugins=["xla", counts], accelerator="xla", epochs=1, log_every=100)

    @trainer.on("train_batch_end", trylast=True)
    def save(run):
        run.save_checkpoint(tmp_path / "saved")

    trainer.fit(make_task(), make_loader())
    growth = [
        after - before for before, after in zip(counts.graphs, counts.graphs[1:], strict=False)
    ]
    assert growth[4:] == [0, 0, 0], counts.graphs


def test_dropout_follows_the_seed_and_not_what_is_saved_or_logged(
    make_task, make_loader, weights_of, tmp_path
):
    def train(disturb, seed=0):
        task = make_task(dropout=0.5)
        trainer = Trainer(plugins=["xla"], accelerator="xla", max_steps=6, seed=seed)
        if disturb:
            trainer.on("train_batch_end")(lambda run: run.flush())
            trainer.on("train_batch_start")(lambda run: run.accelerator.synchronize())
            trainer.on("after_backward")(lambda run: run.save_checkpoint(tmp_path / "saved"))
        trainer.fit(task, make_loader())
        return weights_of(task)

    quiet = train(disturb=False)
    torch.testing.assert_close(train(disturb=True), quiet, rtol=1e-5, atol=1e-6)
    assert not torch.equal(train(disturb=False, seed=1)["net.0.weight"], quiet["net.0.weight"])


def test_an_optimizer_made_before_the_run_trains_the_weights_on_the_device(make_loader):
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    model[1].weight = model[0].weight  # tied
    weight, before = model[0].weight, model[0].weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Trainer(plugins=["xla"], accelerator="xla").open(model, optimizer) as run:
        for inputs, _ in run.batches(make_loader(), epochs=1):
            run.step(model(inputs).square().mean())
    assert model[0].weight is weight and model[1].weight is weight
    assert weight.device.type == "xla"
    assert not torch.equal(weight.detach().cpu(), before)


def test_tensorboard_gets_every_metric(make_task, make_loader):
    pytest.importorskip("trainbus_tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = Trainer(plugins=["xla", "tensorboard"], accelerator="xla", epochs=2)
    run = trainer.fit(make_task(), make_loader(), make_loader())
    (events,) = {path.parent for path in run.dir.rglob("events.out.tfevents.*")}
    written = EventAccumulator(str(events), size_guidance={"scalars": 0, "tensors": 0})
    written.Reload()
    tags = {tag for kind in ("scalars", "tensors") for tag in written.Tags()[kind]}
    assert {"train/loss", "train/loss_epoch", "valid/loss", "valid/accuracy"} <= tags
    kind = "scalars" if "train/loss" in written.Tags()["scalars"] else "tensors"
    read = written.Scalars if kind == "scalars" else written.Tensors
    assert [event.step for event in read("train/loss")] == list(range(1, 17))


def test_each_step_that_is_logged_arrives_at_a_logger(make_task, make_loader):
    log = MemoryLog()
    Trainer(plugins=["xla", log], accelerator="xla", epochs=2).fit(make_task(), make_loader())
    assert len(log.values("train/loss")) == 16


def test_memory_and_the_compiler_are_told():
    device = XLA().provide_accelerator()
    device.select(None)
    assert device.memory_stats()["peak"] > 0
    assert device.compile_backend() == "openxla"
    assert device.process_group_backend() == "xla"
    assert device.peak_flops(torch.bfloat16) is None
    assert device.is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: attempting to allocate 3G"))
    assert not device.is_out_of_memory(RuntimeError("INVALID_ARGUMENT: shapes"))


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match=r"devices=\[3\]: xla has 1, counted from 0"):
        XLA().provide_accelerator().select(3)
