"""The moving average of the weights, against loops written by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import Task, Trainer, hookimpl
from trainbus.builtin.ema import EMA
from trainbus.errors import CheckpointError, PluginError


def by_hand(model, loader, epochs, decay=0.999, warmup=True, every=1):
    """Train with SGD and average after each step; returns the averages."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    step = updates = 0
    for _ in range(epochs):
        for x, y in loader:
            functional.mse_loss(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if step % every == 0:
                used = min(decay, (1 + updates) / (10 + updates)) if warmup else decay
                for name, p in model.named_parameters():
                    average[name].lerp_(p.detach(), 1 - used)
                updates += 1
    return average


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def weights(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


class Sees:
    """Notes the weights in each pass, before and after the plugins that ask for nothing."""

    def __init__(self):
        self.seen = {}

    def _note(self, name, run):
        self.seen[name] = weights(run.task)

    @hookimpl
    def on_train_epoch_end(self, run):
        self._note("train", run)

    @hookimpl
    def on_validation_start(self, run):
        self._note("start", run)

    @hookimpl
    def on_validation_batch_end(self, run):
        self._note("valid", run)

    @hookimpl
    def on_test_batch_end(self, run):
        self._note("test", run)

    @hookimpl
    def on_epoch_end(self, run):
        self._note("end", run)


@pytest.mark.parametrize(
    "options",
    [{}, {"decay": 0.5}, {"decay": 0.9, "warmup": False}, {"decay": 0.5, "every": 3}],
)
def test_the_average_is_that_of_a_loop_by_hand(make_line, make_loader, options):
    task, reference = make_line(), make_line()
    reference.load_state_dict(task.state_dict())
    loader = make_loader(batches=7)
    ema = EMA(**options)
    Trainer(epochs=2, plugins=[ema]).fit(task, loader)
    assert same(ema.average, by_hand(reference, loader, 2, **options))
    assert same(weights(task), weights(reference))


def test_validation_sees_the_average_and_training_the_weights(line, loader):
    ema, sees = EMA(decay=0.9), Sees()
    Trainer(plugins=[sees, ema]).fit(line, loader, loader)
    assert same(sees.seen["start"], ema.average)
    assert same(sees.seen["valid"], ema.average)
    assert same(sees.seen["end"], sees.seen["train"])
    assert not same(sees.seen["valid"], sees.seen["train"])
    assert same(weights(line), sees.seen["train"])


def test_validation_does_not_change_the_average(make_line, make_loader):
    averages = []
    for valid in (None, make_loader(2)):
        torch.manual_seed(0)
        ema = EMA(decay=0.9)
        Trainer(epochs=3, validate_every=0.5 if valid else 1, plugins=[ema]).fit(
            make_line(), make_loader(8), valid
        )
        averages.append(ema.average)
    assert same(*averages)


def test_a_test_inside_a_fit_sees_the_average(line, loader):
    ema, sees = EMA(decay=0.9), Sees()
    trainer = Trainer(plugins=[sees, ema])

    @trainer.on("fit_end")
    def test(run):
        for _ in run.evaluation_batches(loader, "test", run.bus.validation_step):
            pass

    trainer.fit(line, loader)
    assert same(sees.seen["test"], ema.average)
    assert same(weights(line), sees.seen["train"])


def test_validate_off_leaves_the_weights(line, loader):
    sees = Sees()
    Trainer(plugins=[EMA(validate=False), sees]).fit(line, loader, loader)
    assert same(sees.seen["valid"], sees.seen["train"])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("hook", ["on_validation_batch_start", "on_validation_end"])
def test_the_weights_come_back_when_validation_fails(line, loader, hook, error):
    sees = Sees()
    trainer = Trainer(plugins=[EMA(decay=0.9), sees])

    @trainer.on(hook)
    def fail():
        raise error

    with pytest.raises(error):
        trainer.fit(line, loader, loader)
    assert same(weights(line), sees.seen["train"])


def test_the_weights_come_back_before_others_hear_of_a_failed_step(make_line, loader):
    class Fails(make_line):
        def validation_step(self, batch, run):
            raise ValueError("broken")

    task, seen = Fails(), []
    sees = Sees()
    trainer = Trainer(plugins=[sees, EMA(decay=0.9)])

    @trainer.on("exception", tryfirst=True)
    def look(run):
        seen.append(weights(run.task))

    with pytest.raises(ValueError, match="broken"):
        trainer.fit(task, loader, loader)
    assert same(seen[0], sees.seen["train"])


def test_the_weights_come_back_before_others_hear_of_a_failed_listener(line, loader):
    sees, seen = Sees(), []
    trainer = Trainer(plugins=[sees, EMA(decay=0.9)])
    trainer.on("validation_batch_start")(lambda: 1 / 0)
    trainer.on("exception")(lambda run: seen.append(weights(run.task)))
    with pytest.raises(ZeroDivisionError):
        trainer.fit(line, loader, loader)
    assert same(seen[0], sees.seen["train"])


def test_the_weights_come_back_when_a_loop_breaks_off_its_validation(loader):
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Trainer(plugins=[EMA(decay=0.9)]).open(model, optimizer) as run:
        for x, y in run.batches(loader):
            run.step(functional.mse_loss(model(x), y))
        before = weights(model)
        for _ in run.evaluation_batches(loader):
            inside = weights(model)
            break
        assert same(weights(model), before)
    assert not same(inside, before)


def test_a_checkpoint_written_in_validation_holds_the_weights_and_the_average(line, loader):
    ema, sees = EMA(decay=0.9), Sees()
    trainer = Trainer(plugins=[ema, sees])

    @trainer.on("validation_batch_end", every=2)
    def save(run):
        run.save_checkpoint(run.dir / "checkpoints" / "now")

    @trainer.on("epoch_end")
    def load(run):
        expected = weights(line), {name: value.clone() for name, value in ema.average.items()}
        for value in [*line.parameters(), *ema.average.values()]:
            value.detach().zero_()
        run.load_checkpoint(run.dir / "checkpoints" / "now")
        assert same(weights(line), expected[0])
        assert same(ema.average, expected[1])

    trainer.fit(line, loader, loader)
    assert same(weights(line), sees.seen["train"])


def test_final_leaves_the_average_in_the_model(line, loader):
    ema = EMA(decay=0.9, final=True)
    Trainer(plugins=[ema]).fit(line, loader)
    assert same(weights(line), ema.average)


def test_final_leaves_the_weights_of_a_run_that_failed(line, loader):
    ema = EMA(decay=0.9, final=True)
    trainer = Trainer(epochs=2, plugins=[ema])
    trainer.on("epoch_end")(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(line, loader)
    assert not same(weights(line), ema.average)


@pytest.mark.parametrize("at", [5, 8])
def test_resuming_gives_the_same_bits(make_line, make_loader, at):
    def train(epochs=3, resume=None, stop_at=None):
        torch.manual_seed(0)
        task, ema = make_line(), EMA(decay=0.9)
        trainer = Trainer(epochs=epochs, plugins=[ema])

        @trainer.on("train_batch_end")
        def stop(run):
            if run.global_step == stop_at:
                run.save_checkpoint("saved")
                run.stop()

        trainer.fit(task, make_loader(5), make_loader(1), resume=resume)
        return task, ema

    whole_task, whole = train()
    train(stop_at=at)
    task, ema = train(resume="saved")
    assert same(weights(task), weights(whole_task))
    assert same(ema.average, whole.average)
    assert ema.updates == whole.updates == 15


def test_a_checkpoint_without_an_average_begins_one_with_its_weights(make_line, make_loader):
    torch.manual_seed(0)
    before = make_line()
    run = Trainer().fit(before, make_loader(5))
    run.save_checkpoint("saved")
    ema = EMA(decay=0.5, warmup=False)
    Trainer(epochs=2, plugins=[ema]).fit(make_line(), make_loader(5), resume="saved")
    assert same(ema.average, by_hand(before, make_loader(5), 1, decay=0.5, warmup=False))


def test_going_back_to_a_checkpoint_without_an_average_begins_one(line, make_loader):
    Trainer().fit(line, make_loader(2)).save_checkpoint("saved")
    start = weights(line)
    ema = EMA()
    trainer = Trainer(epochs=1, plugins=[ema])

    @trainer.on("train_batch_end", every=4)
    def go_back(run):
        run.load_checkpoint("saved")
        assert same(ema.average, start)
        assert ema.updates == 0

    trainer.fit(line, make_loader(5))
    assert ema.updates == 1


def test_a_second_fit_begins_again(line, make_loader):
    ema = EMA(decay=0.5)
    trainer = Trainer(accumulate=2, plugins=[ema])
    trainer.fit(line, make_loader(4))
    trainer.fit(line, make_loader(4))
    assert ema.updates == 2


def test_an_average_of_another_model_is_refused(line, loader):
    ema = EMA()
    trainer = Trainer(plugins=[ema])
    trainer.on("epoch_end")(
        lambda: ema.load_state_dict({"updates": 1, "average": {"x": torch.ones(3)}})
    )
    with pytest.raises(CheckpointError, match=r"does not fit .*linear\.bias, linear\.weight, x"):
        trainer.fit(line, loader)


def test_several_optimizers_make_one_average_of_all_their_steps(make_loader):
    class Two(Task):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 1)

        def training_step(self, batch, run):
            return functional.mse_loss(self.b(self.a(batch[0])), batch[1])

        def configure_optimizer(self):
            return [torch.optim.SGD(part.parameters(), lr=0.01) for part in (self.a, self.b)]

    task, ema = Two(), EMA(decay=0.0, warmup=False)
    Trainer(plugins=[ema]).fit(task, make_loader(3))
    assert ema.updates == 3
    assert same(ema.average, weights(task))


def test_accumulated_batches_make_one_average_a_step(line, make_loader):
    ema = EMA()
    Trainer(epochs=2, accumulate=2, plugins=[ema]).fit(line, make_loader(5))
    assert ema.updates == 6


def test_a_step_at_the_end_of_a_pass_of_unknown_length_counts(line, make_loader):
    class Unsized:
        def __iter__(self):
            return iter(make_loader(3))

    ema = EMA(decay=0.0, warmup=False)
    Trainer(accumulate=2, plugins=[ema]).fit(line, Unsized())
    assert ema.updates == 2
    assert same(ema.average, weights(line))


def test_weights_of_16_bits_are_averaged_in_32(loader):
    model = nn.Linear(4, 1).to(torch.bfloat16)
    task = Task.supervised(model, lambda out, y: functional.mse_loss(out.float(), y))
    ema, sees = EMA(decay=0.9), Sees()
    data = [(x.to(torch.bfloat16), y) for x, y in loader]
    Trainer(plugins=[ema, sees]).fit(task, data, data)
    assert {value.dtype for value in ema.average.values()} == {torch.float32}
    assert same(weights(task), sees.seen["train"])
    for name, value in sees.seen["valid"].items():
        assert torch.equal(value, ema.average[name].to(torch.bfloat16))


def test_buffers_stay_those_of_the_model(loader):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    ema = EMA()
    Trainer(plugins=[ema]).fit(Task.supervised(model, functional.mse_loss), loader, loader)
    assert not any("running" in name for name in ema.average)
    assert model[1].num_batches_tracked == 5


def test_validating_alone_after_a_fit_uses_the_weights(line, loader):
    trainer = Trainer(plugins=[EMA(decay=0.9)])
    trainer.fit(line, loader)
    before = weights(line)
    trainer.on("validation_batch_end")(lambda run: seen.append(weights(run.task)))
    seen = []
    trainer.validate(line, loader)
    assert same(seen[0], before)


@pytest.mark.parametrize("options", [{"decay": 1.0}, {"decay": -0.1}, {"every": 0}])
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(PluginError, match=f"{next(iter(options))}="):
        EMA(**options)
