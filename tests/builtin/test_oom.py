"""Batches that need more memory than there is."""

import gc
import sys
import weakref
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import PluginError, SkipBatch, Task, Trainer, UsageError, hookimpl
from trainbus.builtin import OOM, Checkpoint
from trainbus.builtin.batch_parts import split
from trainbus.checkpoints import archive


class Token:
    """Lives as long as the graph that holds it."""


class Full(torch.autograd.Function):
    """Passes its input on, and runs out of memory in the backward of more than `most` samples."""

    graphs = weakref.WeakSet()

    @staticmethod
    def forward(context, x, most):
        context.most, context.token = most, Token()
        Full.graphs.add(context.token)
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        if len(gradient) > context.most:
            raise torch.OutOfMemoryError("out of memory in backward")
        return gradient, None


class Small(Task):
    """A line on a device that holds `most` samples, forward or backward."""

    def __init__(self, most=99, where="forward", mapping=False):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Linear(4, 3), nn.Linear(3, 1)
        self.most, self.where, self.mapping = most, where, mapping
        self.sizes = []

    def training_step(self, batch, run):
        x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
        self.sizes.append(len(x))
        run.log(seen=x.sum())
        if self.where == "forward" and len(x) > self.most:
            raise torch.OutOfMemoryError("out of memory in forward")
        hidden = self.first(x)
        if self.where == "backward":
            hidden = Full.apply(hidden, self.most)
        loss = functional.mse_loss(self.last(hidden), y)
        run.log(loss=loss)
        return {"loss": loss, "more": 1} if self.mapping else loss

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def batches(count=4, size=8):
    generator = torch.Generator().manual_seed(2)
    return [
        (torch.randn(size, 4, generator=generator), torch.randn(size, 1, generator=generator))
        for _ in range(count)
    ]


def fit(task, loader, plugins=(), **options):
    logged = []
    trainer = Trainer(plugins=[*plugins], **options)
    trainer.on("metrics")(lambda step, metrics: logged.append((step, dict(metrics))))
    return trainer.fit(task, loader), logged


def same(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in pairs)


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("most", [5, 2, 1])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_the_weights_are_those_of_whole_batches(where, most, accumulate):
    whole, cut = Small(), Small(most, where)
    run, expected = fit(whole, batches(), accumulate=accumulate)
    again, logged = fit(cut, batches(), [OOM()], accumulate=accumulate)
    assert same(whole, cut)
    assert again.global_step == run.global_step
    for (step, values), (step_again, values_again) in zip(expected, logged, strict=True):
        assert step == step_again
        assert values_again["train/loss" if "train/loss" in values else "train/loss_epoch"] == (
            pytest.approx(values["train/loss" if "train/loss" in values else "train/loss_epoch"])
        )


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_batch_that_fails_in_the_middle_of_a_window_keeps_what_came_before(where):
    sizes = [2, 8, 2, 8]
    loader = [(x[:size], y[:size]) for (x, y), size in zip(batches(), sizes, strict=True)]
    whole, cut = Small(), Small(3, where)
    fit(whole, loader, accumulate=4)
    fit(cut, loader, [OOM()], accumulate=4)
    assert same(whole, cut)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_odd_batches_mappings_and_tasks_that_return_mappings(where):
    loader = [{"x": x, "y": y, "names": ["a"] * 7} for x, y in batches(size=7)]
    whole, cut = Small(mapping=True), Small(3, where, mapping=True)
    outputs = []

    class Look:
        @hookimpl
        def on_train_batch_end(self, run):
            outputs.append((run.output["more"], len(run.batch["x"])))

    fit(whole, loader)
    fit(cut, loader, [OOM(), Look()])
    assert same(whole, cut)
    assert outputs == [(1, 7)] * 4, "listeners see the whole batch"


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_the_attempt_that_failed_is_not_logged(where):
    loader = batches(count=1)
    _, expected = fit(Small(), loader)
    _, logged = fit(Small(4, where), loader, [OOM()])
    # Each part logged its own sum: their weighted mean is half of the whole.
    assert logged[0][1]["train/seen"] == pytest.approx(expected[0][1]["train/seen"] / 2, rel=1e-5)


def test_later_batches_begin_in_parts_and_a_warning_tells(caplog):
    task = Small(4)
    fit(task, batches(), [OOM()])
    assert task.sizes == [8] + [4, 4] * 4
    assert caplog.text.count("stepped in 2 parts from here on") == 1


def test_the_parts_survive_a_checkpoint():
    keep, oom = Checkpoint(), OOM()
    run, _ = fit(Small(2), batches(), [keep, oom])
    saved = run.dir / "checkpoints" / keep.last[-1]
    assert archive.read(saved)["plugins"]["oom"] == {"parts": 4}
    task = Small(2)
    trainer = Trainer(epochs=2, plugins=[Checkpoint(), OOM()])
    trainer.fit(task, batches(), resume=saved)
    assert set(task.sizes) == {2}


def test_what_listeners_add_to_the_loss_counts_once():
    class Decay:
        @hookimpl
        def on_after_loss(self, run):
            penalty = sum(p.square().sum() for p in run.task.parameters())
            run.loss_to_backward = run.loss_to_backward * 2 + 0.1 * penalty

    whole, cut = Small(), Small(4, "backward")
    fit(whole, batches(count=1), [Decay()])
    fit(cut, batches(count=1), [OOM(), Decay()])
    assert same(whole, cut)


def test_a_batch_that_a_listener_skips_leaves_the_window_as_it_was():
    class Skip:
        @hookimpl
        def on_after_loss(self, run):
            if run.batch_index == 1:
                raise SkipBatch

    whole, cut = Small(), Small(4)
    fit(whole, batches(), [Skip()], accumulate=2)
    fit(cut, batches(), [OOM(), Skip()], accumulate=2)
    assert same(whole, cut)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_batch_of_one_sample_passes_the_error_on_with_a_note(where):
    with pytest.raises(torch.OutOfMemoryError) as caught:
        fit(Small(0, where), batches(size=4), [OOM()])
    assert any("in 4 parts of one sample cannot be cut" in n for n in caught.value.__notes__)


def test_a_task_that_steps_by_itself_passes_the_error_on_with_a_note():
    class Manual(Small):
        def training_step(self, batch, run):
            run.backward(super().training_step(batch, run))
            run.optimizer_step()

    with pytest.raises(torch.OutOfMemoryError) as caught:
        fit(Manual(4, "backward"), batches(), [OOM()])
    assert any("steps by itself" in note for note in caught.value.__notes__)
    task = Manual()
    fit(task, batches(), [OOM()])
    assert task.sizes == [8] * 4


def test_a_task_that_steps_by_itself_is_told_why_its_batches_cannot_be_cut():
    class Manual(Small):
        def training_step(self, batch, run):
            loss = super().training_step(batch, run)
            run.backward(loss)
            run.optimizer_step()

    with pytest.raises(UsageError, match="the task steps by itself, so its batches cannot be cut"):
        fit(Manual(), batches(), [OOM(parts=2)])


def test_a_loop_of_ones_own_is_left_alone():
    task, other = Small(), Small()
    for net, plugins in ((task, [OOM(parts=2)]), (other, [])):
        with Trainer(plugins=plugins).open(net) as run:
            for batch in run.batches(batches()):
                run.step(net.training_step(batch, run))
    assert same(task, other)
    assert task.sizes == [8] * 4


def test_other_errors_pass():
    class Broken(Small):
        def training_step(self, batch, run):
            raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        fit(Broken(), batches(), [OOM()])


def test_the_graph_of_the_attempt_that_failed_is_gone_when_the_parts_begin():
    alive = []

    class Watching(Small):
        def training_step(self, batch, run):
            alive.append(len(Full.graphs))
            return super().training_step(batch, run)

    gc.collect()  # graphs of other tests
    fit(Watching(4, "backward"), batches(count=1), [OOM()])
    assert alive == [0, 0, 0]


class Scaling:
    """Wraps the training step, and counts."""

    def __init__(self):
        self.calls = 0

    @hookimpl(wrapper=True)
    def training_step(self):
        self.calls += 1
        return (yield) * 2


def test_wrappers_of_the_step_run_once_for_each_part():
    whole, cut, again = Small(), Small(), Small(4, "backward")
    counts = []
    for task, plugins in ((whole, []), (cut, [OOM()]), (again, [OOM()])):
        scaling = Scaling()
        fit(task, batches(count=1), [*plugins, scaling])
        counts.append(scaling.calls)
    assert counts == [1, 1, 3]
    assert same(whole, cut)
    assert same(whole, again)


def test_a_later_batch_of_one_sample_goes_whole():
    x, y = batches(count=1)[0]
    loader = [(x, y), (x[:1], y[:1]), (x, y)]
    whole, cut = Small(), Small(4)
    fit(whole, loader)
    fit(cut, loader, [OOM()])
    assert same(whole, cut)


def test_a_batch_size_of_the_users_weighs_the_log_and_not_the_gradient():
    class Tokens:
        @hookimpl
        def on_train_batch_start(self, run):
            run.batch_size = 80

    whole, cut = Small(), Small(4)
    fit(whole, batches(), [Tokens()])
    fit(cut, batches(), [OOM(), Tokens()])
    assert same(whole, cut)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_factor_that_listeners_give_the_loss_reaches_all_parts(parts):
    class Double:
        @hookimpl
        def on_after_loss(self, run):
            run.loss_to_backward = run.loss_to_backward * 3

    whole, cut = Small(), Small(3, "backward")
    fit(whole, batches(), [Double()], accumulate=2)
    fit(cut, batches(), [OOM(parts), Double()], accumulate=2)
    assert same(whole, cut)


def test_listeners_see_the_graph_of_the_loss():
    norms = []

    class Gradient:
        @hookimpl
        def on_after_loss(self, run):
            parameters = list(run.task.parameters())
            found = torch.autograd.grad(run.loss_to_backward, parameters, retain_graph=True)
            norms.append(float(torch.nn.utils.get_total_norm(found)))

    fit(Small(), batches(count=1), [OOM(), Gradient()])
    fit(Small(), batches(count=1), [Gradient()])
    assert norms[0] == pytest.approx(norms[1])


def test_metrics_that_are_read_in_the_step_are_no_trouble():
    class Reading(Small):
        def training_step(self, batch, run):
            loss = super().training_step(batch, run)
            run.metrics.get("train/loss")
            return loss

    _, logged = fit(Reading(4, "backward"), batches(count=1), [OOM()])
    assert logged


def test_a_loop_of_ones_own_gets_a_note():
    with (
        pytest.raises(torch.OutOfMemoryError) as caught,
        Trainer(plugins=[OOM()]).open(task := Small(4, "backward")) as run,
    ):
        for batch in run.batches(batches()):
            run.step(task.training_step(batch, run))
    assert any("your own loop" in note for note in caught.value.__notes__)


def test_parts_must_be_at_least_one():
    with pytest.raises(PluginError, match="parts=0"):
        OOM(parts=0)


REAL = """
import resource, torch
from trainbus import Task, Trainer
from trainbus.builtin import OOM

class Hungry(Task):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 1)
        self.sizes = []
    def training_step(self, batch, run):
        self.sizes.append(len(batch))
        held = torch.zeros(len(batch), 32 * 2**20 // 4)     # 32 MB a sample
        return self.linear(batch).mean() + held[0, 0]
    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

task = Hungry()
Trainer(plugins=["-manifest"]).fit(task, [torch.ones(2, 8)])    # all is imported
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
task.sizes.clear()
Trainer(plugins=["-manifest", OOM()]).fit(task, [torch.ones(16, 8)] * 2)
print(task.sizes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's limits of memory")
def test_memory_that_is_really_exhausted(python):
    sizes = [int(size) for size in python("-c", REAL).stdout.strip("[]\n").split(", ")]
    assert sizes[0] == 16 and sizes[-1] < 16
    assert sum(sizes[-(16 // sizes[-1]) :]) == 16


# --- cutting -------------------------------------------------------------------------------------


@dataclass
class Pair:
    x: torch.Tensor
    scale: float


def test_nested_batches_are_cut():
    x = torch.arange(5)
    batch = {"x": x, "pair": Pair(x, 2.0), "both": [x, (x + 1, "all")], "names": list("abcde")}
    first, second = split(batch, 2)
    assert first["pair"].x.tolist() == [0, 1]
    assert second["both"][1][0].tolist() == [3, 4, 5]
    assert (first["names"], second["names"]) == (["a", "b"], ["c", "d", "e"])
    assert second["pair"].scale == 2.0


def test_lists_as_long_as_the_batch_go_with_their_samples():
    images, targets = torch.arange(4), [{"boxes": torch.ones(n, 4)} for n in (4, 2, 3, 1)]
    _, (_, second) = split((images, targets), 2)
    assert [len(target["boxes"]) for target in second] == [3, 1]


@pytest.mark.parametrize(
    "batch",
    [
        ((torch.ones(3, 8, 8),) * 2, ({"label": 1},) * 2),
        (torch.ones(4, 2), torch.ones(3)),
        (torch.ones(4, 2), object()),
        torch.ones(1, 2),
    ],
    ids=["images of other sizes", "another length", "an unknown object", "one sample"],
)
def test_what_cannot_be_cut_is_told(batch):
    with pytest.raises(UsageError, match="cannot be cut"):
        split(batch, 2)
