"""Finding a learning rate and a batch size, and leaving all as it was."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import Loader, UsageError, hookimpl
from trainbus.batches import innermost
from trainbus.testing import MemoryLog
from trainbus_learner import Learner
from trainbus_learner.batch_size import choose, tiled
from trainbus_learner.lr_finder import minimum, steepest, valley
from trainbus_learner.rehearsal import Cycled, Repeated

QUIET = ["-progress"]


def everything(learner):
    """All that a search may not change."""
    model = learner.model
    loader = learner.source.train
    return {
        "weights": copy.deepcopy(model.state_dict()),
        "modes": [module.training for module in model.modules()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "trained": [p.requires_grad for p in model.parameters()],
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "epoch": getattr(loader, "epoch", None) or getattr(loader, "order", None),
        "counters": {
            k: v for k, v in vars(getattr(loader, "order", loader)).items() if type(v) is int
        },
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.equal(b)
    if isinstance(a, dict):
        return all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def with_dropout():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.2), nn.Linear(32, 10)
    )


def learner_of(source, *plugins, model=None, **options):
    return Learner(source, model or with_dropout(), plugins=[*QUIET, *plugins], **options)


class Scaler:
    """Stands for a plugin with a state that steps change, as a scaler of gradients has."""

    def __init__(self):
        self.scale = 65536.0

    @hookimpl
    def on_before_optimizer_step(self):
        self.scale /= 2

    def state_dict(self):
        return {"scale": self.scale}

    def load_state_dict(self, state):
        self.scale = state["scale"]


class Notes:
    """A company's plugin that does not compute, and notes every event of a run."""

    def __init__(self):
        self.heard = []

    @hookimpl
    def on_run_start(self, run):
        self.heard.append("start")

    @hookimpl
    def on_train_batch_end(self, run):
        self.heard.append("batch")

    @hookimpl
    def on_fit_end(self, run):
        self.heard.append("fit_end")

    @hookimpl
    def on_exception(self, run, error):
        self.heard.append("exception")

    @hookimpl
    def on_run_end(self, run, status):
        self.heard.append(status)


class Computes(Notes):
    """One that computes: it wraps the step, and is set up at the start of a run."""

    steps = 0

    @hookimpl(wrapper=True)
    def training_step(self):
        self.steps += 1
        return (yield)


class Whole(Computes):
    """One that says that it takes part in all of a rehearsal."""

    computes = True


class Turns(Notes):
    """One that changes the model, and changes it back at the end of a run."""

    model = None

    @hookimpl(wrapper=True)
    def configure_model(self, run):
        self.model = yield
        self.model.turned = True
        return self.model

    @hookimpl
    def on_run_end(self, run, status):
        del self.model.turned


class Fails:
    def __init__(self, error):
        self.error = error

    @hookimpl
    def on_after_backward(self, run):
        if run.batch_index == 5:
            raise self.error


@pytest.mark.parametrize("search", ["find_lr", "find_batch_size"])
def test_a_search_puts_everything_back_and_writes_nothing(data, own_directory, search):
    log, scaler = MemoryLog(), Scaler()
    learner = learner_of(data, log, scaler, "checkpoint")
    learner.model[1].weight.grad = torch.ones_like(learner.model[1].weight)
    learner.model.eval()
    before = everything(learner)
    getattr(learner, search)()
    assert same(before, everything(learner))
    assert scaler.scale == 65536.0
    assert not log.metrics and not list(own_directory.iterdir())


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_a_search_that_fails_or_is_interrupted_puts_everything_back(digits, error):
    images, labels = digits
    pairs = torch.utils.data.TensorDataset(images.float() / 255, labels)
    loader = Loader(pairs, 100, shuffle=True, seed=3)
    loader.set_epoch(4)
    learner = learner_of((loader, None), Fails(error), loss=functional.cross_entropy)
    before = everything(learner)
    with pytest.raises(type(error)):
        learner.find_lr()
    assert same(before, everything(learner))
    assert loader.order.epoch == 4


@pytest.mark.parametrize("search", ["find_lr", "find_batch_size", "validate", "show_batch"])
def test_a_plugin_that_does_not_compute_hears_nothing_of_a_rehearsal(data, search):
    notes = Notes()
    getattr(learner_of(data, notes), search)()
    assert notes.heard == []


@pytest.mark.parametrize("search", ["find_lr", "find_batch_size"])
def test_no_plugin_that_computes_hears_how_a_rehearsal_ended(data, search):
    plugin = Computes()
    learner = learner_of(data, plugin)
    getattr(learner, search)()
    assert plugin.steps >= 10
    assert {"start", "batch"} == set(plugin.heard)
    plugin.heard = []
    learner.fit(1)
    assert plugin.heard[-2:] == ["fit_end", "completed"]  # a fit is heard of in whole


def test_a_rehearsal_that_fails_is_not_heard_of_either(data):
    plugin, notes = Computes(), Notes()
    with pytest.raises(RuntimeError, match="broken"):
        learner_of(data, plugin, notes, Fails(RuntimeError("broken"))).find_lr()
    assert notes.heard == [] and {"start", "batch"} == set(plugin.heard)


def test_a_plugin_that_says_so_takes_part_in_all_of_a_rehearsal(data):
    plugin = Whole()
    learner_of(data, plugin).find_lr(steps=10)
    assert plugin.heard[0] == "start" and plugin.heard[-2:] == ["fit_end", "completed"]


def test_what_a_plugin_did_to_the_model_is_undone_after_a_rehearsal(data):
    plugin = Turns()
    learner = learner_of(data, plugin)
    learner.find_lr(steps=10)
    assert plugin.model is not None and not hasattr(plugin.model, "turned")


def test_a_precision_that_converts_the_model_leaves_it_as_it_was(loaders):
    pytest.importorskip("trainbus_amp")
    loss = functional.cross_entropy
    learner = learner_of(loaders, "amp", precision="bf16-true", loss=loss)
    learner.find_lr(steps=10)
    assert {p.dtype for p in learner.model.parameters()} == {torch.float32}


def test_plugins_in_a_rehearsal_keep_their_order_and_their_class(data):
    seen = []

    class Looks(Computes):
        @hookimpl
        def on_fit_start(self, run):
            seen.append([name for name, each in run.bus.plugins.items() if isinstance(each, Looks)])

    learner_of(data, Looks(), Notes()).find_lr(steps=10)
    assert seen == [["looks"]]


def test_the_loader_of_a_rehearsal_is_known_to_plugins(data):
    """What wraps the loader is seen through: its kinds, and its batch transforms."""
    inner = data.train
    for wrapped in (Cycled(inner, 3), Repeated(inner, next(iter(inner)), 2)):
        assert innermost(wrapped) is inner
        assert innermost(wrapped, one_for_one=True) is wrapped
    assert (len(list(Cycled([1, 2], 5))), len(Cycled([1, 2], 5))) == (5, 5)
    assert list(Cycled([], 5)) == []


def test_a_batch_that_is_a_mapping_is_made_longer():
    longer = tiled({"x": torch.arange(3), "rest": [torch.zeros(3, 2)]}, 7)
    assert longer["x"].tolist() == [0, 1, 2, 0, 1, 2, 0] and longer["rest"][0].shape == (7, 2)
    with pytest.raises(UsageError, match="a part of the batch is a str"):
        tiled((torch.zeros(3), "name"), 7)


def test_a_fit_after_a_search_is_the_fit_without_it(data, make_model):
    torch.manual_seed(5)
    plain = learner_of(data, model=make_model())
    searched = learner_of(data, model=make_model())
    torch.manual_seed(7)
    plain.fit(1)
    torch.manual_seed(7)
    searched.find_lr()
    searched.fit(1)
    weights = searched.model.state_dict()
    assert all(weights[name].equal(value) for name, value in plain.model.state_dict().items())


def test_the_suggestion_trains_and_is_plotted(data, own_directory):
    learner = learner_of(data)
    found = learner.find_lr()
    assert 1e-4 < found.suggestion < 1
    assert set(found.suggestions) == {"valley", "steepest", "minimum/10", "median"}
    others = sorted(rate for name, rate in found.suggestions.items() if name != "median")
    assert found.suggestion == found.suggestions["median"] == others[1]
    assert found.usual == learner.lr
    assert learner.fit_one_cycle(4, found.suggestion).metrics["valid/accuracy"] > 0.8
    figure = found.plot()
    figure.savefig("found.png")
    assert figure.axes[0].get_xscale() == "log" and len(figure.axes[0].lines) == 6


def test_a_loader_that_is_shorter_than_the_test_is_read_again(data):
    assert len(data.train) == 10
    assert len(learner_of(data).find_lr(stop=1e-3, steps=25).rates) == 25


def test_accumulated_batches_make_one_step(data):
    found = learner_of(data, accumulate=3).find_lr(stop=1e-3, steps=12)
    assert len(found.rates) == 12


def test_the_test_ends_where_the_loss_diverges(data):
    found = learner_of(data).find_lr(start=1e-3, stop=1e5)
    assert "diverged" in found.ended or "the loss was" in found.ended
    assert len(found.rates) < 100


def test_divergence_at_once_is_an_error_that_says_what_to_do(data):
    with pytest.raises(UsageError, match=r"too few .*smaller start than 1e\+04"):
        learner_of(data).find_lr(start=1e4, stop=1e9, steps=12)


def test_a_loss_that_is_no_number_points_at_the_data(digits):
    batches = [(torch.full((4, 64), float("nan")), torch.zeros(4, dtype=torch.int64))] * 12
    learner = learner_of((batches, None), model=nn.Linear(64, 10), loss=functional.cross_entropy)
    with pytest.raises(UsageError, match="look at the data and the loss"):
        learner.find_lr()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"start": 1, "stop": 0.1}, r"stop=0.1\): give a number greater than 1"),
        ({"steps": 3}, "at least 10"),
        ({"suggest": "valey"}, "did you mean 'valley'"),
    ],
)
def test_a_search_for_nothing_is_refused(data, bad, message):
    with pytest.raises(UsageError, match=message):
        learner_of(data).find_lr(**bad)


def test_the_rules_on_a_curve_that_is_known():
    rates = [10 ** (-6 + i / 10) for i in range(61)]
    losses = [2.0] * 20 + [2 - 1.8 * i / 20 for i in range(21)] + [0.2 + i for i in range(1, 21)]
    assert rates[20] < valley(rates, losses) < rates[40]
    assert valley(rates, losses) == pytest.approx(rates[30], rel=0.3)
    assert rates[20] <= steepest(rates, losses) <= rates[40]
    assert minimum(rates, losses) == pytest.approx(rates[40] / 10)


def test_noise_does_not_cut_a_valley_in_two():
    rates = [10 ** (-6 + i / 10) for i in range(61)]
    losses = [3 - i / 30 + (0.2 if i % 7 == 0 else 0.0) for i in range(61)]
    assert valley(rates, losses) == pytest.approx(rates[30], rel=1.0)


def test_batch_sizes_grow_until_there_are_no_more_samples(data):
    found = learner_of(data).find_batch_size(start=128, steps=2, gain=100.0)
    assert list(found.speeds) == [128, 256, 512]
    assert found.suggestion == 128 and "speed does not rise" in found.ended


def test_memory_that_is_exhausted_ends_the_search(data):
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = with_dropout()

        def forward(self, x):
            if len(x) > 300:
                raise torch.OutOfMemoryError("out of memory")
            return self.inner(x)

    learner = learner_of(data, model=Small())
    before = everything(learner)
    found = learner.find_batch_size(start=100, steps=2, gain=1.0001)
    assert max(found.speeds) == 200 and found.ended == "there was no memory for 400"
    assert same(before, everything(learner))
    with pytest.raises(UsageError, match="no memory for 400 samples"):
        learner.find_batch_size(start=400)


def test_the_smallest_size_wins_that_no_larger_one_beats_clearly():
    assert choose({8: 100, 16: 190, 32: 300, 64: 320, 128: 310}, 1.1) == 32
    assert choose({8: 100}, 1.1) == 8
