"""What wrappers do with results and errors, in one call and in two halves, as pluggy does it."""

import traceback
from itertools import product
from types import SimpleNamespace

import pytest

from trainbus import Bus, hookimpl
from trainbus.events import Plugin


def plugin(**listeners):
    return SimpleNamespace(**listeners)


def bus_of(*plugins):
    bus = Bus()
    bus.register_all(Plugin(f"p{i}", each) for i, each in enumerate(plugins))
    return bus


def wrappers(log, name):
    """Generators of every kind, by what they do; all write down what happens to them."""

    def passes(run):
        log.append(f"{name} opens")
        try:
            result = yield
        except BaseException as error:
            log.append(f"{name} passes {type(error).__name__}")
            raise
        log.append(f"{name} passes {result!r}")
        return result

    def replaces(run):
        result = yield
        log.append(f"{name} replaces {result!r}")
        return f"replaced by {name}"

    def swallows(run):
        try:
            return (yield)
        except Exception as error:
            log.append(f"{name} swallows {type(error).__name__}")
            return f"rescued by {name}"

    def translates(run):
        try:
            return (yield)
        except LookupError as error:
            raise OSError(f"translated by {name}") from error

    def fails_before(run):
        raise LookupError(f"early in {name}")
        yield

    def fails_after(run):
        yield
        raise LookupError(f"late in {name}")

    def never_yields(run):
        if run is None:
            yield

    def yields_twice(run):
        yield
        yield

    kinds = (
        passes, replaces, swallows, translates, fails_before, fails_after, never_yields,
        yields_twice,
    )  # fmt: skip
    return {kind.__name__: hookimpl(wrapper=True)(kind) for kind in kinds}


KINDS = list(wrappers([], ""))
#: pluggy leaves the wrappers around one with a second `yield` open; a test below shows ours.
INNER = [kind for kind in KINDS if kind != "yields_twice"]
ENDINGS = {"value": "value", "none": None, "error": LookupError, "control-c": KeyboardInterrupt}
#: A body that stands between two halves cannot be left out, as pluggy then does.
LEFT_OUT = [("swallows", "fails_before"), ("swallows", "never_yields")]


def wrapped(outer, inner, ending):
    """A bus with two wrappers around a training step that ends so, and the log of all."""
    log = []
    bus = bus_of(
        plugin(training_step=wrappers(log, "outer")[outer]),
        plugin(training_step=wrappers(log, "inner")[inner]),
        plugin(training_step=hookimpl(lambda run: step(log, ending))),
    )
    return bus, log


def step(log, ending):
    log.append("step")
    ends = ENDINGS[ending]
    if isinstance(ends, type):
        raise ends("inside")
    return ends


def told(log, call):
    """All that happened in a call, and its result or its error."""
    log.clear()
    try:
        return [*log, call()], list(log)
    except BaseException as error:
        message = "" if isinstance(error, RuntimeError) else str(error)  # pluggy words it its way
        return [type(error), message], list(log)


def in_two_halves(bus, log, ending):
    """What `run.batches` and `run.step` do: the body stands between the halves."""
    opened = bus.open("training_step", "run")
    try:
        result = step(log, ending)
    except BaseException as error:
        return bus.close("training_step", opened, None, error)
    return bus.close("training_step", opened, result)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outer", KINDS)
def test_wrappers_do_what_pluggys_do(outer, inner, ending):
    bus, log = wrapped(outer, inner, ending)
    truth = told(log, lambda: bus._manager.hook.training_step(run="run"))
    assert told(log, lambda: bus.training_step("run")) == truth


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("outer", "inner"), [pair for pair in product(KINDS, INNER) if pair not in LEFT_OUT]
)
def test_wrappers_in_two_halves_do_what_pluggys_do(outer, inner, ending):
    bus, log = wrapped(outer, inner, ending)
    truth = told(log, lambda: bus._manager.hook.training_step(run="run"))
    assert told(log, lambda: in_two_halves(bus, log, ending)) == truth


@pytest.mark.parametrize("in_halves", [False, True])
def test_stop_iteration_goes_through_a_wrapper_as_it_is(in_halves):
    """A `next(...)` on something empty, in a training step; Python turns it into another error."""
    bus, log = wrapped("passes", "replaces", "value")

    @hookimpl(tryfirst=True)
    def training_step(run):
        raise StopIteration("inside")

    bus.register(plugin(training_step=training_step), "empty")
    error = StopIteration("inside")
    truth = told(log, lambda: bus._manager.hook.training_step(run="run"))
    call = (
        (lambda: bus.close("training_step", bus.open("training_step", "run"), None, error))
        if in_halves
        else (lambda: bus.training_step("run"))
    )
    assert told(log, call) == truth


def test_a_wrapper_that_fails_early_and_is_swallowed_leaves_out_the_step():
    bus, log = wrapped("swallows", "fails_before", "value")
    assert bus.training_step("run") == "rescued by outer"
    assert log == ["outer swallows LookupError"]


@pytest.mark.parametrize("in_halves", [False, True])
def test_a_second_yield_is_an_error_that_the_outer_wrapper_sees(in_halves):
    bus, log = wrapped("passes", "yields_twice", "value")
    with pytest.raises(RuntimeError, match="second `yield`"):
        in_two_halves(bus, log, "value") if in_halves else bus.training_step("run")
    assert log == ["outer opens", "step", "outer passes RuntimeError"]


@pytest.mark.parametrize("kind", ["never_yields", "yields_twice"])
def test_a_wrapper_with_a_wrong_number_of_yields_is_named(kind):
    bus = Bus()
    bus.register(plugin(training_step=wrappers([], "w")[kind]), "foo", "trainbus-foo 0.1")
    with pytest.raises(RuntimeError) as caught:
        bus.training_step("run")
    assert any("'foo' (trainbus-foo 0.1)" in note for note in caught.value.__notes__)


def test_wrappers_open_outside_in_and_close_inside_out():
    bus, log = wrapped("passes", "passes", "value")
    assert bus.training_step("run") == "value"
    assert log == [
        "outer opens", "inner opens", "step", "inner passes 'value'", "outer passes 'value'",
    ]  # fmt: skip


def test_the_error_that_is_thrown_in_is_the_very_one():
    bus, error = wrapped("passes", "passes", "value")[0], LookupError()

    @hookimpl(tryfirst=True)
    def training_step(run):
        raise error

    bus.register(plugin(training_step=training_step), "failing")
    with pytest.raises(LookupError) as caught:
        bus.training_step("run")
    assert caught.value is error


def test_a_wrapper_of_an_event_gets_none_and_of_a_contribution_the_list():
    got = []

    @hookimpl(wrapper=True)
    def around():
        got.append((yield))
        return got[-1]

    bus = bus_of(
        plugin(on_fit_start=around, provide_accelerator=around),
        plugin(
            on_fit_start=hookimpl(lambda: "ignored"), provide_accelerator=hookimpl(lambda: "one")
        ),
    )
    assert bus.on_fit_start("run") is None
    assert bus.provide_accelerator() == ["one"]
    assert got == [None, ["one"]]


def test_a_wrapper_alone_is_called_around_nothing():
    bus, log = Bus(), []
    bus.register(plugin(training_step=wrappers(log, "w")["passes"]), "foo")
    assert bus.training_step("run") is None
    assert log == ["w opens", "w passes None"]


def test_halves_of_a_hook_without_wrappers_pass_result_and_error():
    bus = Bus()
    assert bus.close("training_step", bus.open("training_step", "run"), 5) == 5
    with pytest.raises(LookupError):
        bus.close("training_step", bus.open("training_step", "run"), None, LookupError())


def test_what_was_opened_is_closed_though_its_plugin_has_gone():
    bus, log = Bus(), []
    bus.register(plugin(training_step=wrappers(log, "w")["passes"]), "foo")
    opened = bus.open("training_step", "run")
    bus.unregister("foo")
    assert bus.close("training_step", opened, 5) == 5
    assert log == ["w opens", "w passes 5"]


def test_a_traceback_shows_the_generated_lines_of_wrappers_and_listeners_alike():
    class Around:
        @hookimpl(wrapper=True)
        def training_step(self, run):
            return (yield)

    class Broken:
        @hookimpl
        def training_step(self, run):
            raise ValueError("no")

    bus = Bus()
    bus.register(Around(), "around")
    bus.register(Broken(), "broken")
    with pytest.raises(ValueError) as caught:
        bus.training_step("run")
    shown = "".join(traceback.format_exception(caught.value))
    assert "_tb_result = _tb_inner(run)" in shown
    assert "_tb_result = _tb_call0(run)" in shown
