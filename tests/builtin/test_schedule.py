"""Learning rates over a run: against torch's schedulers stepped by hand, and across a resume."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim import lr_scheduler

from trainbus import CheckpointError, PluginError, SkipStep, Trainer, UsageError, hookimpl
from trainbus.builtin.accumulate import Accumulate
from trainbus.builtin.schedule import Schedule

PER_STEP = {
    "step": lambda optimizer: lr_scheduler.StepLR(optimizer, 3, 0.5),
    "milestones": lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [2, 5, 9], 0.5),
    "exponential": lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.9),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 12),
    "restarts": lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 4),
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    "onecycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20),
    "cyclic": lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, step_size_up=3),
    "sequential": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.LinearLR(optimizer), lr_scheduler.MultiStepLR(optimizer, [3, 4])],
        [12],
    ),
    "chained": lambda optimizer: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)]
    ),
}


class Rates:
    """Notes the learning rate and the momentum of each step that is made."""

    def __init__(self):
        self.rates, self.momenta = [], []

    @hookimpl
    def on_before_optimizer_step(self, run):
        group = run.optimizer.param_groups[0]
        self.rates.append(float(group["lr"]))
        self.momenta.append(group["betas"][0] if "betas" in group else group["momentum"])


@pytest.fixture
def make_task(make_line):
    """Make a task with momentum and a learning rate of 0.1, or with a given optimizer."""

    def make(optimizer=None):
        task = make_line()
        task.configure_optimizer = lambda: (
            optimizer or (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
        )(list(task.parameters()))
        return task

    return make


@pytest.fixture
def rates_of(make_task, make_loader):
    """Fit with a schedule; returns the learning rates that were used, and the momenta."""

    def fit(schedule, trainer=None, batches=5, optimizer=None, more=()):
        rates = Rates()
        settings = {"epochs": 2, **(trainer or {})}
        Trainer(plugins=[schedule, rates, *more], **settings).fit(
            make_task(optimizer), make_loader(batches=batches)
        )
        return rates

    return fit


def by_hand(make, steps, lr=0.1, momentum=0.9):
    """The learning rates and momenta of a scheduler of torch, stepped by hand."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr, momentum=momentum)
    scheduler = make(optimizer)
    rates, momenta = [], []
    for _ in range(steps):
        group = optimizer.param_groups[0]
        rates.append(group["lr"])
        momenta.append(group["momentum"])
        optimizer.step()
        scheduler.step()
    return rates, momenta


# --- schedulers of torch -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PER_STEP)
def test_each_step_has_the_rate_of_torchs_scheduler(rates_of, kind):
    assert rates_of(Schedule(PER_STEP[kind])).rates == by_hand(PER_STEP[kind], 10)[0]


@pytest.mark.parametrize("kind", ["onecycle", "cosine"])
def test_the_weights_are_those_of_a_loop_by_hand(make_task, make_loader, kind):
    task, other, loader = make_task(), make_task(), make_loader()
    other.load_state_dict(task.state_dict())
    Trainer(epochs=3, plugins=[Schedule(PER_STEP[kind])]).fit(task, loader)

    optimizer = other.configure_optimizer()
    scheduler = PER_STEP[kind](optimizer)
    for _ in range(3):
        for x, y in loader:
            functional.mse_loss(other(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    for a, b in zip(task.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_per_epoch_the_rate_changes_between_epochs(rates_of):
    schedule = Schedule(lambda o: lr_scheduler.ExponentialLR(o, 0.5), per="epoch")
    assert rates_of(schedule, {"epochs": 3}, batches=2).rates == [
        0.1,
        0.1,
        0.05,
        0.05,
        0.025,
        0.025,
    ]


def test_a_step_that_was_skipped_does_not_count(rates_of):
    class Skips:
        @hookimpl(trylast=True)
        def on_before_optimizer_step(self, run):
            if run.batch_index in (0, 3):
                raise SkipStep

    rates = rates_of(Schedule(PER_STEP["exponential"]), {"epochs": 1}, more=[Skips()]).rates
    one, two, three, four = by_hand(PER_STEP["exponential"], 4)[0]
    assert rates == [one, one, two, three, three]
    assert four < three


def test_an_epoch_without_a_step_does_not_count(rates_of):
    class Skips:
        @hookimpl(trylast=True)
        def on_before_optimizer_step(self, run):
            if run.epoch == 0:
                raise SkipStep

    schedule = Schedule(lambda o: lr_scheduler.ExponentialLR(o, 0.5), per="epoch")
    assert rates_of(schedule, {"epochs": 3}, batches=1, more=[Skips()]).rates == [0.1, 0.1, 0.05]


def test_an_epoch_that_was_cut_short_does_not_count(make_task, make_loader):
    schedule = Schedule(lambda o: lr_scheduler.ExponentialLR(o, 0.5), per="epoch")
    run = Trainer(max_steps=7, plugins=[schedule]).fit(make_task(), make_loader(batches=5))
    assert run.optimizer.param_groups[0]["lr"] == 0.05


def test_a_window_of_batches_is_one_step(rates_of):
    rates = rates_of(Schedule(PER_STEP["exponential"]), {"accumulate": 2}).rates
    assert rates == by_hand(PER_STEP["exponential"], 6)[0]


def test_torch_does_not_warn_of_the_order_of_calls(rates_of):
    class Replaces:
        """Moves the parameters without torch's noticing, as a fused step does."""

        @hookimpl
        def optimizer_step(self, run):
            return True

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rates_of(Schedule(PER_STEP["step"]))
        rates_of(Schedule(PER_STEP["step"]), more=[Replaces()])
        rates_of(Schedule(PER_STEP["step"], per="epoch"))
        rates_of(Schedule(name="one_cycle"))


def test_each_of_several_optimizers_has_its_scheduler_and_moves_it_once_per_step(
    make_line, make_loader
):
    class Two(make_line):
        """The first optimizer steps three times in each batch, the second in each other one."""

        def configure_optimizer(self):
            return [torch.optim.SGD([p], lr=0.1) for p in self.parameters()]

        def training_step(self, batch, run):
            first, second = run.optimizers
            x, y = batch
            for _ in range(3):
                run.backward(functional.mse_loss(self(x), y), first)
                run.optimizer_step(first)
            if run.batch_index % 2:
                run.backward(functional.mse_loss(self(x), y), second)
                run.optimizer_step(second)

    schedule = Schedule(lambda o: lr_scheduler.ExponentialLR(o, 0.5))
    run = Trainer(plugins=[schedule]).fit(Two(), make_loader(batches=4))
    assert [o.param_groups[0]["lr"] for o in run.optimizers] == [0.1 / 16, 0.1 / 4]
    assert run.metrics["lr/0"] == pytest.approx(0.1 / 8)
    assert run.metrics["lr/1"] == pytest.approx(0.1 / 2)


# --- plateau -------------------------------------------------------------------------------------


def plateau(optimizer):
    return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)


def test_plateau_goes_by_the_metric_of_each_validation(make_line, make_loader):
    values = [3.0, 4.0, 2.0, 2.0, 2.0]

    class Scripted(make_line):
        def validation_step(self, batch, run):
            run.log(loss=values[run.epoch])

    rates = Rates()
    Trainer(epochs=5, plugins=[Schedule(plateau), rates]).fit(
        Scripted(), make_loader(batches=1), make_loader(batches=1)
    )
    assert rates.rates == [0.01, 0.01, 0.005, 0.005, 0.0025]


def test_plateau_waits_for_the_next_validation(make_line, make_loader):
    class Constant(make_line):
        def validation_step(self, batch, run):
            run.log(loss=1.0)

    rates = Rates()
    Trainer(epochs=6, validate_every=2, plugins=[Schedule(plateau), rates]).fit(
        Constant(), make_loader(batches=1), make_loader(batches=1)
    )
    assert rates.rates == [0.01, 0.01, 0.01, 0.01, 0.005, 0.005]


def test_plateau_with_a_metric_that_was_not_logged_is_an_error(line, loader):
    trainer = Trainer(plugins=[Schedule(plateau, monitor="valid/acc")])
    with pytest.raises(UsageError, match=r"schedule monitors 'valid/acc'.*valid/loss"):
        trainer.fit(line, loader, loader)


# --- by name -------------------------------------------------------------------------------------


def torchs_one_cycle(total):
    return lambda optimizer: lr_scheduler.OneCycleLR(
        optimizer, 0.1, total_steps=total, pct_start=0.25, div_factor=25, final_div_factor=1e5 / 25
    )


@pytest.mark.parametrize("batches", [1, 3, 5, 8, 50])
def test_one_cycle_is_torchs_with_the_defaults_of_fastai(rates_of, batches):
    found = rates_of(Schedule(name="one_cycle"), batches=batches)
    rates, momenta = by_hand(torchs_one_cycle(2 * batches), 2 * batches)
    # torch begins with a part of the way down where less than one step goes up.
    if 2 * batches * 0.25 > 1:
        assert found.rates == pytest.approx(rates, rel=1e-9)
        assert found.momenta == pytest.approx(momenta, rel=1e-9)
    assert found.rates[-1] == pytest.approx(0.1 / 1e5)
    assert found.momenta[-1] == pytest.approx(0.95)


def test_one_cycle_turns_the_first_beta(rates_of):
    found = rates_of(Schedule(name="one_cycle"), optimizer=torch.optim.AdamW, batches=20)
    assert (found.momenta[0], min(found.momenta)) == (0.95, 0.85)
    assert max(found.rates) == 1e-3


def test_one_cycle_gives_no_momentum_to_an_optimizer_without(rates_of):
    found = rates_of(Schedule(name="one_cycle"), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    assert set(found.momenta) == {0}


def test_one_cycle_leaves_momentum_alone_when_told_so(rates_of):
    assert set(rates_of(Schedule(name="one_cycle", momentum=None)).momenta) == {0.9}


def test_one_cycle_with_options_of_its_own(rates_of):
    found = rates_of(Schedule(name="one_cycle", warmup=4, div=10, final_div=100), batches=10)
    assert found.rates[0] == pytest.approx(0.01)
    assert found.rates.index(max(found.rates)) == 3
    assert found.rates[-1] == pytest.approx(0.001)


def test_a_run_of_one_step_has_a_rate_to_learn_with(rates_of):
    for name in ("one_cycle", "warmup_cosine"):
        assert rates_of(Schedule(name=name), {"dry_run": 1}).rates == [0.1]


def test_warmup_cosine_is_a_line_and_then_torchs_cosine(rates_of):
    found = rates_of(Schedule(name="warmup_cosine", warmup=0.2), batches=10).rates
    cosine, _ = by_hand(lambda o: lr_scheduler.CosineAnnealingLR(o, 16), 16)
    assert found[:4] == pytest.approx([0.02, 0.04, 0.06, 0.08])
    assert found[4:] == pytest.approx(cosine)


def test_warmup_cosine_is_bit_equal_to_a_loop_by_hand(make_task, make_loader):
    task, other, loader = make_task(), make_task(), make_loader(batches=10)
    other.load_state_dict(task.state_dict())
    Trainer(epochs=2, plugins=[Schedule(name="warmup_cosine", warmup=4)]).fit(task, loader)

    def rate(step):
        return (step + 1) / 5 if step < 4 else (1 + math.cos(math.pi * (step - 4) / 16)) / 2

    optimizer = other.configure_optimizer()
    scheduler = lr_scheduler.LambdaLR(optimizer, rate)
    for x, y in [*loader, *loader]:
        functional.mse_loss(other(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    for a, b in zip(task.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_schedule_by_name_may_count_epochs(rates_of):
    schedule = Schedule(name="warmup_cosine", warmup=0.0, per="epoch")
    found = rates_of(schedule, {"epochs": 4}, batches=2).rates
    cosine, _ = by_hand(lambda o: lr_scheduler.CosineAnnealingLR(o, 4), 4)
    assert found == pytest.approx([rate for rate in cosine for _ in range(2)])


@pytest.mark.parametrize(
    ("trainer", "more", "total"),
    [
        ({}, [], 20),
        ({"accumulate": 4}, [], 6),
        ({"limit_batches": 3}, [], 6),
        ({"limit_batches": 0.5}, [], 10),
        ({"max_steps": 7}, [], 7),
        ({"max_steps": 70}, [], 20),
        ({}, [Accumulate({0: 4, 1: 1})], 13),
        ({"accumulate": 2}, [Accumulate({1: 10})], 6),
    ],
)
def test_the_curve_is_as_long_as_the_run(rates_of, trainer, more, total):
    schedule = Schedule(name="warmup_cosine", warmup=0.0)
    found = rates_of(schedule, trainer, batches=10, more=more).rates
    cosine, _ = by_hand(lambda o: lr_scheduler.CosineAnnealingLR(o, total), total)
    assert found == pytest.approx(cosine)


def test_a_loop_of_ones_own_has_the_length_of_its_epochs(line, loader):
    rates = Rates()
    with Trainer(plugins=[Schedule(name="one_cycle"), rates]).open(line) as run:
        for batch in run.batches(loader, epochs=3):
            run.step(line.training_step(batch, run))
    assert len(rates.rates) == 15
    assert rates.rates[-1] == pytest.approx(0.01 / 1e5)


def test_steps_beyond_the_plan_keep_the_last_rate(line, loader):
    rates = Rates()
    with Trainer(plugins=[Schedule(name="one_cycle"), rates]).open(line) as run:
        for _ in run.epochs(1):
            for _ in range(2):
                for batch in run.batches(loader):
                    run.step(line.training_step(batch, run))
    assert rates.rates[4:] == pytest.approx([0.01 / 1e5] * 6)


def test_a_loader_without_a_length_is_an_error_that_says_what_helps(line, loader):
    trainer = Trainer(epochs=2, plugins=[Schedule(name="one_cycle")])
    with pytest.raises(UsageError, match=r"does not tell its length; Trainer\(max_steps=\.\.\.\)"):
        trainer.fit(line, (batch for batch in loader))


def test_a_run_without_a_number_of_epochs_is_an_error(line, loader):
    for per in ("step", "epoch"):
        trainer = Trainer(max_time=60, plugins=[Schedule(name="one_cycle", per=per)])
        with pytest.raises(UsageError, match="number of epochs is not known"):
            trainer.fit(line, loader)


# --- what is logged ------------------------------------------------------------------------------


def test_the_rate_of_each_step_is_logged(make_task, make_loader):
    class Notes:
        def __init__(self):
            self.seen = []

        @hookimpl
        def on_metrics(self, step, metrics):
            if "train/lr" in metrics:
                self.seen.append((step, metrics["train/lr"]))

    notes = Notes()
    Trainer(plugins=[Schedule(PER_STEP["exponential"]), notes]).fit(make_task(), make_loader())
    assert notes.seen == list(enumerate(by_hand(PER_STEP["exponential"], 5)[0], start=1))


def test_groups_are_logged_by_their_names_or_numbers(make_task, make_loader):
    def optimizer(parameters):
        weight, bias = parameters
        return torch.optim.SGD(
            [{"params": [weight], "name": "head"}, {"params": [bias], "lr": 0.5}], lr=0.1
        )

    run = Trainer(plugins=[Schedule(lambda o: lr_scheduler.ConstantLR(o, 1.0))]).fit(
        make_task(optimizer), make_loader()
    )
    assert (run.metrics["lr/head"], run.metrics["lr/1"]) == (0.1, 0.5)


def test_a_rate_in_a_tensor_is_not_read_from_the_device(make_task, make_loader, monkeypatch):
    """Between an optimizer's step and the next batch nothing is brought to the host."""
    reads = []

    def count(name):
        original = getattr(torch.Tensor, name)
        return lambda self: reads.append(name) or original(self)

    class Watches:
        @hookimpl(wrapper=True)
        def on_after_optimizer_step(self):
            with monkeypatch.context() as patch:
                for name in ("item", "tolist", "__float__", "__bool__", "cpu"):
                    patch.setattr(torch.Tensor, name, count(name))
                return (yield)

    class Away(torch.Tensor):
        is_cpu = False

    rate = torch.tensor(0.1).as_subclass(Away)
    task = make_task(lambda p: torch.optim.Adam(p, lr=rate, foreach=False))
    schedule = Schedule(lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)))
    run = Trainer(plugins=[Watches(), schedule]).fit(task, make_loader())
    assert run.metrics["train/lr"] == pytest.approx(0.1 / 5)
    assert reads == []


# --- state ---------------------------------------------------------------------------------------


class Saves:
    """Writes a checkpoint after so many epochs."""

    def __init__(self, path, epoch):
        self.path, self.epoch = path, epoch

    @hookimpl(trylast=True, after=["schedule"])
    def on_epoch_end(self, run):
        if run.epoch == self.epoch:
            run.save_checkpoint(self.path)


KINDS = {
    **{kind: {"make": make} for kind, make in PER_STEP.items()},
    "per epoch": {"make": lambda o: lr_scheduler.ExponentialLR(o, 0.5), "per": "epoch"},
    "plateau": {"make": plateau},
    "one_cycle": {"name": "one_cycle"},
    "warmup_cosine": {"name": "warmup_cosine", "warmup": 0.3},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_ends_with_the_same_bits(make_task, make_loader, tmp_path, kind):
    loader, path = make_loader(), tmp_path / "saved"
    whole, start = make_task(), make_task()
    start.load_state_dict(whole.state_dict())
    rates, rest = Rates(), Rates()
    Trainer(epochs=4, plugins=[Schedule(**KINDS[kind]), rates]).fit(whole, loader, loader)

    class Kill(Exception):
        pass

    class Kills:
        @hookimpl
        def on_epoch_start(self, run):
            if run.epoch == 2:
                raise Kill

    plugins = [Schedule(**KINDS[kind]), Saves(path, 1), Kills()]
    with pytest.raises(Kill):
        Trainer(epochs=4, plugins=plugins).fit(start, loader, loader)
    resumed = make_task()
    trainer = Trainer(epochs=4, plugins=[Schedule(**KINDS[kind]), rest])
    trainer.fit(resumed, loader, loader, resume=path)
    assert rest.rates == rates.rates[10:]
    assert rest.momenta == rates.momenta[10:]
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("last", [3, 5])
@pytest.mark.parametrize("kind", ["one_cycle", "per epoch", "plateau", "sequential"])
def test_a_run_resumed_inside_an_epoch_ends_with_the_same_bits(
    make_task, make_loader, tmp_path, kind, last
):
    """Also after the last batch of the epoch: then no step of the new run is in that epoch."""

    def trainer(*more):
        plugins = [Schedule(**KINDS[kind]), Accumulate({0: 1, 1: 2, 2: 1}), *more]
        return Trainer(epochs=4, plugins=plugins)

    class Kill(Exception):
        pass

    class Kills:
        @hookimpl(trylast=True)
        def on_train_batch_end(self, run):
            if run.epoch == 1 and run.batch_index == last:
                run.save_checkpoint(tmp_path / "saved")
                raise Kill

    loader = make_loader(batches=6)
    whole, start, resumed = make_task(), make_task(), make_task()
    start.load_state_dict(whole.state_dict())
    rates, rest = Rates(), Rates()
    trainer(rates).fit(whole, loader, loader)
    with pytest.raises(Kill):
        trainer(Kills()).fit(start, loader, loader)
    trainer(rest).fit(resumed, loader, loader, resume=tmp_path / "saved")
    assert rest.rates == rates.rates[6 + (last + 1) // 2 :]
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_of_plain_values(make_task, make_loader, kind):
    schedule = Schedule(**KINDS[kind])
    Trainer(plugins=[schedule]).fit(make_task(), make_loader(), make_loader())

    def check(value):
        if type(value) is dict:
            value = [*value, *value.values()]
        if type(value) is list:
            for item in value:
                check(item)
        else:
            assert type(value) in (str, int, float, bool, type(None)), value

    check(schedule.state_dict())


def test_a_checkpoint_that_is_loaded_in_the_middle_brings_its_rate_back(
    make_task, make_loader, tmp_path
):
    class Back:
        done = False

        @hookimpl
        def on_train_batch_end(self, run):
            if run.global_step == 2 and not self.done:
                run.save_checkpoint(tmp_path / "saved")
            if run.global_step == 4 and not self.done:
                self.done = True
                step, saved = run.global_step, run.position.saved
                run.load_checkpoint(tmp_path / "saved")
                run.global_step, run.position.saved = step, saved

    found = Rates()
    Trainer(plugins=[Schedule(PER_STEP["exponential"]), found, Back()]).fit(
        make_task(), make_loader(batches=6)
    )
    expected = by_hand(PER_STEP["exponential"], 4)[0]
    assert found.rates == [*expected, *expected[2:]]


def test_a_checkpoint_of_another_scheduler_is_refused(make_task, make_loader, tmp_path):
    loader, path = make_loader(), tmp_path / "saved"
    Trainer(plugins=[Schedule(PER_STEP["step"]), Saves(path, 0)]).fit(make_task(), loader)
    trainer = Trainer(epochs=2, plugins=[Schedule(PER_STEP["cosine"])])
    with pytest.raises(CheckpointError, match=r"\['StepLR'\], this run \['CosineAnnealingLR'\]"):
        trainer.fit(make_task(), loader, resume=path)


def test_a_second_fit_starts_again(make_task, loader):
    rates = Rates()
    trainer = Trainer(plugins=[Schedule(name="one_cycle"), rates])
    trainer.fit(make_task(), loader)
    trainer.fit(make_task(), loader)
    assert rates.rates[:5] == rates.rates[5:]


def test_a_test_after_the_fit_leaves_the_state(line, loader):
    schedule = Schedule(PER_STEP["step"])
    trainer = Trainer(plugins=[schedule])
    trainer.fit(line, loader)
    before = schedule.state_dict()
    line.test_step = line.validation_step
    trainer.test(line, loader)
    assert schedule.state_dict() == before != {}


# --- options -------------------------------------------------------------------------------------


def test_options_come_from_a_file_and_a_shell(tmp_path, monkeypatch):
    (tmp_path / "trainbus.toml").write_text(
        'plugins = ["trainbus.builtin.schedule:Schedule"]\n'
        '[options.schedule]\nname = "one_cycle"\nmomentum = [0.9, 0.8, 0.9]\n'
    )
    monkeypatch.setenv("TRAINBUS_SCHEDULE_WARMUP", "0.1")
    schedule = Trainer().bus.plugins["schedule"]
    assert (schedule.warmup, schedule.options.momentum) == (0.1, (0.9, 0.8, 0.9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either make="),
        ({"make": PER_STEP["step"], "name": "one_cycle"}, "either make="),
        ({"make": "StepLR"}, "a function of the optimizer"),
        ({"name": "two_cycles"}, "give one of 'one_cycle', 'warmup_cosine'"),
        ({"name": "one_cycle", "per": "batch"}, "per="),
        ({"name": "one_cycle", "warmup": 2.5}, "warmup=2.5"),
        ({"name": "one_cycle", "warmup": -0.1}, "warmup=-0.1"),
        ({"name": "one_cycle", "warmup": math.inf}, "warmup=inf"),
        ({"name": "one_cycle", "div": 0.0}, "div=0.0"),
        ({"name": "one_cycle", "momentum": (0.9, 0.8)}, "three numbers"),
        ({"name": "warmup_cosine", "div": 10.0}, "are for name='one_cycle'"),
        ({"make": PER_STEP["step"], "warmup": 0.1}, "for a schedule by name"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(PluginError, match=message):
        Schedule(**options)


def test_what_makes_no_scheduler_is_refused(line, loader):
    with pytest.raises(UsageError, match="make returned SGD, not a scheduler"):
        Trainer(plugins=[Schedule(lambda optimizer: optimizer)]).fit(line, loader)
