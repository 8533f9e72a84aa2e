"""What `@hookimpl` and `@hookspec` take, and what `every`, `once` and `rank_zero` mean."""

from types import SimpleNamespace

import pytest

from trainbus import Bus, Trainer, hookimpl, hookspec
from trainbus.testing import Line, make_line_loader

HOOKS = Bus().hooks
CADENCES = {
    cadence: [name for name, hook in HOOKS.items() if hook.cadence == cadence]
    for cadence in ("step", "step_end", "epoch", "batch")
}


class FakeRun:
    """The attributes of a run that a listener's condition reads."""

    def __init__(self, **attributes):
        self.seen = set()
        self.rank = 0
        self.epoch = self.global_step = self.batch_index = 0
        self.accumulating, self.stepped = False, True
        vars(self).update(attributes)

    def first_time(self, key):
        new = key not in self.seen
        self.seen.add(key)
        return new


def plugin(**listeners):
    return SimpleNamespace(**listeners)


def called_at(hook, runs, **options):
    """The indices of the runs at which a listener with these options is called."""
    bus, called = Bus(), []
    listener = hookimpl(**options)(lambda run: called.append(run.index))
    bus.register(plugin(**{hook: listener}), "foo")
    for index, run in enumerate(runs):
        run.index = index
        getattr(bus, hook)(run, *HOOKS[hook].arguments[1:])
    return called


# --- the markers ---------------------------------------------------------------------------------


def test_a_marked_function_is_the_function_itself():
    def on_fit_start(run):
        return "called"

    assert hookimpl(on_fit_start) is on_fit_start
    assert hookimpl(tryfirst=True)(on_fit_start) is on_fit_start
    assert hookspec(on_fit_start) is on_fit_start
    assert on_fit_start(None) == "called"


@pytest.mark.parametrize("option", ["before", "after"])
def test_a_text_where_names_are_meant_is_refused(option):
    with pytest.raises(TypeError, match=rf"{option}='clip'.*\['clip'\]"):
        hookimpl(**{option: "clip"})


@pytest.mark.parametrize("every", [0, -1, 1.5, "2", True])
def test_every_is_a_whole_number_of_at_least_one(every):
    with pytest.raises(ValueError, match=f"every={every!r}"):
        hookimpl(every=every)


@pytest.mark.parametrize("decorate", [
    lambda function: staticmethod(hookimpl(function)),
    lambda function: hookimpl(staticmethod(function)),
])  # fmt: skip
def test_static_methods_may_listen(decorate):
    bus, called = Bus(), []
    foo = type("Foo", (), {"on_fit_start": decorate(lambda run: called.append(run))})
    bus.register(foo(), "foo")
    bus.on_fit_start("run")
    assert called == ["run"]


@pytest.mark.parametrize("decorate", [
    lambda function: classmethod(hookimpl(once=True)(function)),
    lambda function: hookimpl(once=True)(classmethod(function)),
])  # fmt: skip
def test_class_methods_may_listen_with_their_options(decorate):
    bus, called, run = Bus(), [], FakeRun()
    foo = type("Foo", (), {"on_fit_start": decorate(lambda kind, run: called.append(run))})
    bus.register(foo(), "foo")
    bus.on_fit_start(run)
    bus.on_fit_start(run)
    assert called == [run]


def test_specname_says_which_hook_a_function_listens_to():
    bus = Bus()
    bus.register(plugin(hello=hookimpl(specname="on_fit_start")(lambda run: None)), "foo")
    assert bus.order() == {"on_fit_start": ["foo"]}


# --- every ---------------------------------------------------------------------------------------


def step_starts(windows, size):
    """Runs as the hooks before an optimizer step see them, with windows of `size` batches."""
    return [
        FakeRun(global_step=window, accumulating=micro < size - 1, stepped=False)
        for window in range(windows)
        for micro in range(size)
    ]


def step_ends(windows, size):
    """Runs as the hooks after an optimizer step see them."""
    return [
        FakeRun(global_step=window + (micro == size - 1), stepped=micro == size - 1)
        for window in range(windows)
        for micro in range(size)
    ]


@pytest.mark.parametrize("make", [("step", step_starts), ("step_end", step_ends)])
@pytest.mark.parametrize(
    ("every", "size", "calls"),
    [
        (2, 1, [1, 3, 5]),
        (3, 1, [2, 5]),
        (1, 2, [1, 3, 5, 7, 9, 11]),
        (2, 2, [3, 7, 11]),
        (7, 2, []),
    ],
)
def test_every_counts_optimizer_steps_at_training_make_line_loader(make, every, size, calls):
    cadence, runs = make
    for hook in CADENCES[cadence]:
        assert called_at(hook, runs(6, size), every=every) == calls


@pytest.mark.parametrize("hook", CADENCES["epoch"])
def test_every_counts_epochs_at_epochs(hook):
    assert called_at(hook, [FakeRun(epoch=i) for i in range(7)], every=3) == [2, 5]


@pytest.mark.parametrize("hook", CADENCES["batch"])
def test_every_counts_batches_in_evaluation(hook):
    assert called_at(hook, [FakeRun(batch_index=i) for i in range(7)], every=3) == [2, 5]


@pytest.mark.parametrize("hook", [*CADENCES["step"], *CADENCES["step_end"]])
@pytest.mark.parametrize("every", [1, 2])
def test_every_in_a_run_that_accumulates(hook, every, tmp_path):
    """Eight batches in windows of two are four steps; each due one is told once."""
    trainer = Trainer(accumulate=2, run_dir=tmp_path, epochs=2)
    called = []
    trainer.on(hook, every=every)(lambda run: called.append((run.epoch, run.batch_index)))
    trainer.fit(Line(), make_line_loader(8))
    due = [(epoch, index) for epoch in (0, 1) for index in (1, 3, 5, 7)]
    assert called == due[every - 1 :: every]


def test_every_in_a_run_with_validation(tmp_path):
    trainer = Trainer(run_dir=tmp_path, epochs=4)
    called = []
    trainer.on("epoch_start", every=2)(lambda run: called.append(("epoch", run.epoch)))
    trainer.on("validation_batch_end", every=2)(
        lambda run: called.append(("valid", run.epoch, run.batch_index))
    )
    trainer.fit(Line(), make_line_loader(1), make_line_loader(3))
    assert called == [
        ("valid", 0, 1),
        ("epoch", 1),
        ("valid", 1, 1),
        ("valid", 2, 1),
        ("epoch", 3),
        ("valid", 3, 1),
    ]


# --- once and rank_zero --------------------------------------------------------------------------


def test_once_is_once_in_a_run_and_again_in_the_next():
    one, other = FakeRun(), FakeRun()
    bus, called = Bus(), []
    bus.register(plugin(on_epoch_end=hookimpl(once=True)(lambda run: called.append(run))), "foo")
    for run in (one, one, other, one, other):
        bus.on_epoch_end(run)
    assert called == [one, other]


def test_once_holds_when_a_plugin_comes_in_between():
    bus, called, run = Bus(), [], FakeRun()
    bus.register(plugin(on_epoch_end=hookimpl(once=True)(lambda run: called.append(run))), "foo")
    bus.on_epoch_end(run)
    bus.register(plugin(on_epoch_end=hookimpl(lambda run: None)), "late")
    bus.on_epoch_end(run)
    assert called == [run]


def test_once_is_counted_per_plugin_and_hook():
    bus, called, run = Bus(), [], FakeRun()
    for name in ("foo", "bar"):
        listeners = {
            hook: hookimpl(once=True)(lambda run, it=(name, hook): called.append(it))
            for hook in ("on_epoch_start", "on_epoch_end")
        }
        bus.register(plugin(**listeners), name)
    for hook in ("on_epoch_start", "on_epoch_end"):
        getattr(bus, hook)(run)
        getattr(bus, hook)(run)
    assert called == [(name, hook) for hook in ("on_epoch_start", "on_epoch_end")
                      for name in ("foo", "bar")]  # fmt: skip


def test_once_with_every_is_the_first_time_that_is_due():
    runs = [FakeRun(epoch=i) for i in range(6)]
    for run in runs:
        run.seen = runs[0].seen
    assert called_at("on_epoch_end", runs, every=2, once=True) == [1]


def test_once_in_a_run_survives_a_plugin_that_comes(tmp_path):
    trainer = Trainer(run_dir=tmp_path, epochs=3)
    called = []
    trainer.on("epoch_start", once=True)(lambda run: called.append(run.epoch))

    @trainer.on("epoch_end", once=True)
    def add(run):
        trainer.on("epoch_end")(lambda run: None)

    trainer.fit(Line(), make_line_loader(1))
    assert called == [0]


def test_rank_zero_is_called_in_the_first_process_only():
    runs = [FakeRun(rank=0), FakeRun(rank=1), FakeRun(rank=2)]
    assert called_at("on_epoch_end", runs, rank_zero=True) == [0]


def test_rank_zero_does_not_use_up_once_elsewhere():
    first, second = FakeRun(rank=1), FakeRun(rank=0)
    second.seen = first.seen
    assert called_at("on_fit_start", [first, second], rank_zero=True, once=True) == [1]


def test_an_action_goes_on_to_the_next_where_one_is_not_due():
    bus = Bus()
    bus.register(plugin(training_step=hookimpl(rank_zero=True)(lambda run: "first")), "foo")
    bus.register(plugin(training_step=hookimpl(lambda run: "any")), "bar")
    assert bus.training_step(FakeRun(rank=0)) == "first"
    assert bus.training_step(FakeRun(rank=1)) == "any"


@pytest.mark.parametrize(
    ("options", "run"),
    [
        ({"rank_zero": True}, FakeRun(rank=1)),
        ({"every": 2}, FakeRun(epoch=0)),
        ({"once": True}, FakeRun(first_time=lambda key: False)),
    ],
    ids=["rank_zero", "every", "once"],
)
def test_a_wrapper_is_not_called_when_it_is_not_due(options, run):
    bus, called = Bus(), []

    def around(run):
        called.append("wrapper")
        return (yield)

    bus.register(plugin(on_epoch_end=hookimpl(wrapper=True, **options)(around)), "foo")
    bus.register(plugin(on_epoch_end=hookimpl(lambda run: called.append("plain"))), "bar")
    bus.on_epoch_end(run)
    assert called == ["plain"]
