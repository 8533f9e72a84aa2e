"""What a failing listener does to the call, to the run, and to the plugin that it belongs to."""

import logging
from types import SimpleNamespace

import pytest

import trainbus
from trainbus import Bus, Trainer, hookimpl
from trainbus.testing import Line, make_line_loader

FINAL_HOOKS = {name for name, hook in Bus().hooks.items() if hook.final}
START_HOOKS = {name for name, hook in Bus().hooks.items() if hook.strict}

#: Called by others than the bus.
APART = ("register_hookspecs", "on_log_start")
HOOKS = {name: hook for name, hook in Bus().hooks.items() if name not in APART}
ORIGIN = "trainbus-foo 0.1"
CONTROLS = [trainbus.SkipBatch, trainbus.SkipStep, trainbus.StopEpoch, trainbus.StopRun]
RECORDS = [name for name, hook in HOOKS.items() if hook.kind == "record"]
ENDING = [name for name in HOOKS if name not in FINAL_HOOKS and HOOKS[name].kind != "record"]
OBSERVED = [name for name in ENDING if HOOKS[name].kind == "event" and name not in START_HOOKS]


def raising(error):
    def fail():
        raise error

    return hookimpl(fail)


def plugin(**listeners):
    return SimpleNamespace(**listeners)


def call(bus, hook):
    return getattr(bus, hook)(*HOOKS[hook].arguments)


def bus_with(hook, error, **attributes):
    """A bus with a failing plugin `foo` and a good one after it; and what the good one saw."""
    bus, called = Bus(), []
    bus.register(plugin(**{hook: raising(error)}, **attributes), "foo", ORIGIN)
    bus.register(plugin(**{hook: hookimpl(lambda: called.append("good"))}), "good")
    return bus, called


@pytest.fixture
def warnings(caplog):
    """The warnings of trainbus, one text each."""
    caplog.set_level(logging.WARNING, logger="trainbus")

    def texts():
        return [record.getMessage() for record in caplog.records]

    return texts


# --- failures that end the run -------------------------------------------------------------------


@pytest.mark.parametrize("hook", ENDING)
def test_an_error_keeps_its_type_and_names_plugin_origin_and_hook(hook):
    error = LookupError("no such thing")
    bus, called = bus_with(hook, error)
    with pytest.raises(LookupError, match="no such thing") as caught:
        call(bus, hook)
    assert caught.value is error
    assert caught.value.__notes__ == [f"raised by plugin 'foo' ({ORIGIN}), {hook}"]
    assert called == []


def test_an_error_in_a_wrapper_names_its_plugin_once():
    @hookimpl(wrapper=True)
    def outer(run):
        return (yield)

    @hookimpl(wrapper=True)
    def inner(run):
        yield
        raise LookupError

    bus = Bus()
    bus.register(plugin(training_step=outer), "outer")
    bus.register(plugin(training_step=inner), "foo", ORIGIN)
    with pytest.raises(LookupError) as caught:
        bus.training_step("run")
    assert caught.value.__notes__ == [f"raised by plugin 'foo' ({ORIGIN}), training_step"]


@pytest.mark.parametrize("hook", [*ENDING, *RECORDS])
@pytest.mark.parametrize("control", CONTROLS)
def test_what_directs_the_loop_passes_as_it_is(control, hook):
    bus, _ = bus_with(hook, control(), observer=True)
    with pytest.raises(control) as caught:
        call(bus, hook)
    assert not hasattr(caught.value, "__notes__")
    assert bus.errors == [] and "foo" in bus.order()[hook]


@pytest.mark.parametrize("hook", HOOKS)
def test_control_c_passes_everywhere(hook):
    bus, _ = bus_with(hook, KeyboardInterrupt(), observer=True)
    with pytest.raises(KeyboardInterrupt) as caught:
        call(bus, hook)
    assert not hasattr(caught.value, "__notes__")


def test_an_error_of_the_task_itself_is_not_blamed_on_a_plugin(tmp_path):
    class Broken(Line):
        def training_step(self, batch, run):
            raise LookupError("of the task")

    with pytest.raises(LookupError) as caught:
        Trainer(run_dir=tmp_path).fit(Broken(), make_line_loader(3))
    assert not hasattr(caught.value, "__notes__")


# --- failures that do not ------------------------------------------------------------------------


@pytest.mark.parametrize("hook", RECORDS)
def test_a_failing_logger_is_set_aside_and_the_others_go_on(hook, warnings):
    bus, called = bus_with(hook, OSError("disk full"))
    call(bus, hook)
    call(bus, hook)
    assert called == ["good", "good"]
    assert len(bus.errors) == 1
    (warning,) = warnings()
    for part in ("'foo'", ORIGIN, hook, "OSError: disk full", "set aside"):
        assert part in warning
    assert bus.errors[0] in warning


def test_an_observer_that_was_set_aside_is_called_by_no_hook_but_the_last():
    bus, called = Bus(), []
    tell = {
        hook: hookimpl(lambda hook=hook: called.append(hook))
        for hook in ("on_epoch_end", "on_params", "on_exception", "on_run_end")
    }
    bus.register(plugin(on_metrics=raising(OSError()), observer=True, **tell), "foo")
    call(bus, "on_metrics")
    assert bus.on_epoch_end is bus.on_params is bus.on_metrics is None
    call(bus, "on_exception")
    call(bus, "on_run_end")
    assert called == ["on_exception", "on_run_end"]


def test_what_a_plugin_does_for_the_training_goes_on_though_its_record_fails():
    bus, called = Bus(), []
    step = hookimpl(lambda: called.append("step") or 1)
    bus.register(plugin(on_metrics=raising(OSError()), training_step=step), "foo")
    call(bus, "on_metrics")
    assert bus.on_metrics is None
    assert bus.training_step("run") == 1


def test_a_plugin_whose_record_fails_keeps_its_vetoes_and_its_other_events():
    """Only an observer is set aside whole: what others do for the training goes on."""
    bus, called = Bus(), []

    @hookimpl
    def on_before_optimizer_step():
        raise trainbus.SkipStep

    tell = hookimpl(lambda: called.append("end"))
    bus.register(
        plugin(
            on_metrics=raising(OSError()),
            on_before_optimizer_step=on_before_optimizer_step,
            on_train_batch_end=tell,
        ),
        "foo",
    )
    call(bus, "on_metrics")
    assert bus.on_metrics is None
    with pytest.raises(trainbus.SkipStep):
        call(bus, "on_before_optimizer_step")
    call(bus, "on_train_batch_end")
    assert called == ["end"] and len(bus.errors) == 1


class AlertHooks:
    @trainbus.hookspec
    def on_alert(self, run):
        """Something is wrong."""


def bus_with_an_alarm(hook, **attributes):
    """A bus whose plugin `caller` fires a hook of its own in `hook`; `foo` fails there."""
    bus, called = Bus(), []

    def fire():
        called.append("caller")
        if bus.on_alert:
            bus.on_alert("run")

    listeners = {hook: hookimpl(fire), "register_hookspecs": hookimpl(lambda: AlertHooks)}
    bus.register(plugin(**listeners, **attributes), "caller")
    tell = hookimpl(lambda: called.append("foo"))
    bus.register(plugin(on_alert=raising(ValueError("no pager")), on_fit_end=tell), "foo", ORIGIN)
    return bus, called


@pytest.mark.parametrize(
    ("hook", "attributes"), [("on_metrics", {}), ("on_epoch_end", {"observer": True})]
)
def test_who_fails_in_the_event_of_another_is_blamed_and_set_aside_there(hook, attributes):
    bus, called = bus_with_an_alarm(hook, **attributes)
    for _ in range(2):
        call(bus, hook)
    assert bus.errors == [f"plugin 'foo' ({ORIGIN}), on_alert: ValueError: no pager"]
    call(bus, "on_fit_end")
    assert called == ["caller", "caller", "foo"]


def test_a_failure_in_the_event_of_another_ends_the_run_in_the_name_of_who_failed():
    bus, _ = bus_with_an_alarm("on_epoch_end")
    with pytest.raises(ValueError, match="no pager") as caught:
        call(bus, "on_epoch_end")
    assert caught.value.__notes__ == [f"raised by plugin 'foo' ({ORIGIN}), on_alert"]


def test_a_plugin_that_is_unregistered_in_the_call_and_raises_is_named():
    bus, _ = bus_with("on_fit_start", LookupError("what went wrong"))
    bus.register(plugin(on_fit_start=hookimpl(tryfirst=True)(lambda: bus.unregister("foo"))), "a")
    with pytest.raises(LookupError, match="what went wrong") as caught:
        call(bus, "on_fit_start")
    assert caught.value.__notes__ == [f"raised by plugin 'foo' ({ORIGIN}), on_fit_start"]


def test_an_observer_that_is_unregistered_in_the_call_and_raises_is_reported():
    bus, _ = bus_with("on_epoch_end", LookupError("late"), observer=True)
    leave = plugin(on_epoch_end=hookimpl(tryfirst=True)(lambda: bus.unregister("foo")))
    bus.register(leave, "a")
    call(bus, "on_epoch_end")
    assert bus.errors == [f"plugin 'foo' ({ORIGIN}), on_epoch_end: LookupError: late"]


def test_recall_brings_a_plugin_back_and_forgets_its_errors():
    bus, called = Bus(), []

    @hookimpl
    def on_metrics(step):
        if step == 1:
            raise OSError
        called.append(step)

    bus.register(plugin(on_metrics=on_metrics), "foo")
    for step in (0, 1):
        bus.on_metrics("run", step, {}, 0.0)
    assert bus.on_metrics is None
    bus.recall()
    bus.on_metrics("run", 2, {}, 0.0)
    assert called == [0, 2] and bus.errors == []


@pytest.mark.parametrize("hook", OBSERVED)
def test_a_failing_observer_is_set_aside_and_the_others_go_on(hook, warnings):
    bus, called = bus_with(hook, OSError("no terminal"), observer=True)
    call(bus, hook)
    call(bus, hook)
    assert called == ["good", "good"]
    assert len(warnings()) == 1 and "'foo'" in warnings()[0]


@pytest.mark.parametrize("hook", sorted(START_HOOKS) + ["training_step"])
def test_a_failing_observer_ends_the_run_at_its_start_and_in_actions(hook):
    bus, called = bus_with(hook, OSError(), observer=True)
    with pytest.raises(OSError):
        call(bus, hook)
    assert called == [] and bus.errors == []


@pytest.mark.parametrize("hook", sorted(FINAL_HOOKS))
def test_all_listeners_of_the_end_are_called_though_one_fails(hook, warnings):
    bus, called = bus_with(hook, OSError("no network"))
    call(bus, hook)
    assert called == ["good"]
    assert len(bus.errors) == 1
    (warning,) = warnings()
    assert all(part in warning for part in ("'foo'", ORIGIN, hook, "no network"))
    assert "foo" in bus.order()[hook] and getattr(bus, hook) is not None


@pytest.mark.parametrize("hook", [*RECORDS, *OBSERVED, *sorted(FINAL_HOOKS)])
def test_those_after_a_failing_listener_receive_every_argument(hook):
    bus, seen, arguments = Bus(), [], HOOKS[hook].arguments
    bus.register(plugin(**{hook: raising(OSError())}, observer=True), "foo")
    scope = {"seen": seen}
    exec(f"def listen({', '.join(arguments)}): seen.append(({', '.join(arguments)},))", scope)
    bus.register(plugin(**{hook: hookimpl(scope["listen"])}), "good")
    call(bus, hook)
    assert seen == [arguments]
    assert len(bus.errors) == 1


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("hook", sorted(FINAL_HOOKS))
def test_what_directs_the_loop_keeps_no_listener_of_the_end_from_its_call(hook, control):
    """The run is over: there is nothing to direct, and the others have files to close."""
    bus, called = bus_with(hook, control())
    call(bus, hook)
    assert called == ["good"]


@pytest.mark.parametrize("hook", [*RECORDS, *sorted(FINAL_HOOKS)])
@pytest.mark.parametrize("half", ["before", "after"])
def test_a_failing_wrapper_of_a_record_or_of_the_end_is_isolated(hook, half):
    def around():
        if half == "before":
            raise OSError("in a wrapper")
        yield
        raise OSError("in a wrapper")

    bus, called = Bus(), []
    bus.register(plugin(**{hook: hookimpl(wrapper=True)(around)}), "foo", ORIGIN)
    bus.register(plugin(**{hook: hookimpl(lambda: called.append("good"))}), "good")
    call(bus, hook)
    assert called == ["good"]
    assert len(bus.errors) == 1 and "in a wrapper" in bus.errors[0]


# --- in a run ------------------------------------------------------------------------------------


class Failing:
    """A plugin that fails in one hook; named by its class."""

    def __init__(self, hook, error, observer=False):
        self.observer = observer
        setattr(self, hook, raising(error))


def test_a_failing_logger_does_not_end_the_run(tmp_path):
    trainer = Trainer(plugins=[Failing("on_metrics", OSError("disk full"))], run_dir=tmp_path)
    run = trainer.fit(Line(), make_line_loader(3))
    assert run.status == "completed" and run.global_step == 3
    assert len(run.errors) == 1 and "disk full" in run.errors[0]


def test_the_next_run_begins_with_all_plugins(tmp_path):
    """The first metrics come at the end of an epoch; then the plugin is silent until a new run."""
    failing, epochs = Failing("on_metrics", OSError(), observer=True), []
    failing.on_epoch_start = hookimpl(lambda run: epochs.append(run.epoch))
    trainer = Trainer(epochs=2, plugins=[failing], run_dir=tmp_path)
    trainer.fit(Line(), make_line_loader(3))
    assert epochs == [0]
    trainer.fit(Line(), make_line_loader(3))
    assert epochs == [0, 0]


@pytest.mark.parametrize("hook", sorted(FINAL_HOOKS))
def test_a_failure_at_the_end_does_not_hide_how_the_run_ended(hook, tmp_path):
    trainer = Trainer(plugins=[Failing(hook, OSError("late"))], run_dir=tmp_path)
    ended = []
    trainer.on("run_end")(lambda status: ended.append(status))
    trainer.on("epoch_end")(raising(LookupError("the reason")))
    with pytest.raises(LookupError, match="the reason"):
        trainer.fit(Line(), make_line_loader(3))
    assert ended == ["failed"]


def test_an_observer_that_fails_in_a_batch_is_silent_for_the_rest_of_the_run(tmp_path):
    observer = Failing("on_train_batch_end", OSError("no terminal"), observer=True)
    run = Trainer(plugins=[observer], run_dir=tmp_path).fit(Line(), make_line_loader(3))
    assert run.global_step == 3 and len(run.errors) == 1
