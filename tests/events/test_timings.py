"""What each plugin costs: measured when asked for, at no cost when not."""

import cProfile
import pstats
import time
from types import SimpleNamespace

import pytest

from trainbus import Bus, hookimpl
from trainbus.events import Plugin


def plugin(**listeners):
    return SimpleNamespace(**listeners)


@hookimpl(wrapper=True)
def around(run):
    return (yield)


def listening_bus():
    """Plugins of every kind on an event, an action and a record."""
    bus = Bus()
    bus.register_all(
        [
            Plugin("core", plugin(training_step=hookimpl(trylast=True)(lambda run: 1)), core=True),
            Plugin("wrapper", plugin(training_step=around, on_epoch_end=around)),
            Plugin("plain", plugin(on_epoch_end=hookimpl(lambda: None))),
            Plugin("logger", plugin(on_metrics=hookimpl(lambda: None))),
        ]
    )
    return bus


def use(bus):
    bus.training_step("run")
    bus.on_epoch_end("run")
    bus.on_metrics("run", 1, {}, 0.0)


def counted(bus):
    return {(each.plugin, each.hook): each.calls for each in bus.timings()}


def clock_readings(bus):
    profile = cProfile.Profile()
    profile.runcall(use, bus)
    entries = pstats.Stats(profile).stats.items()
    return sum(calls for (_, _, name), (_, calls, *_) in entries if "perf_counter" in name)


def code(bus):
    """The byte code and the names of what an event's call runs, free of wrappers."""
    function = bus.on_metrics.__code__
    return function.co_code, function.co_names


def test_off_there_are_no_timings_and_no_clock_is_read():
    bus = listening_bus()
    assert clock_readings(bus) == 0
    assert bus.timings() == []
    assert not any("timing" in name for name in code(bus)[1])


def test_off_again_the_compiled_call_is_what_it_was():
    bus = listening_bus()
    before = code(bus)
    disable = bus.enable_timings()
    assert any("timing" in name for name in code(bus)[1])
    assert clock_readings(bus) > 0
    disable()
    assert code(bus) == before
    assert clock_readings(bus) == 0
    assert bus.timings() == []


def test_on_calls_are_counted_per_plugin_and_hook_wrappers_included():
    bus = listening_bus()
    bus.enable_timings()
    for _ in range(3):
        use(bus)
    assert counted(bus) == {
        ("core", "training_step"): 3,
        ("wrapper", "training_step"): 3,
        ("wrapper", "on_epoch_end"): 3,
        ("plain", "on_epoch_end"): 3,
        ("logger", "on_metrics"): 3,
    }


def test_halves_of_wrappers_are_counted_as_one_call():
    bus = listening_bus()
    bus.enable_timings()
    bus.close("training_step", bus.open("training_step", "run"), 1)
    assert counted(bus) == {("wrapper", "training_step"): 1}


def test_a_call_that_is_not_due_is_not_counted():
    bus = Bus()
    bus.register(plugin(on_epoch_end=hookimpl(every=2)(lambda: None)), "foo")
    bus.enable_timings()
    for epoch in range(4):
        bus.on_epoch_end(SimpleNamespace(epoch=epoch))
    assert counted(bus) == {("foo", "on_epoch_end"): 2}


def test_a_failing_call_is_counted():
    @hookimpl
    def on_epoch_end():
        raise LookupError

    bus = Bus()
    bus.register(plugin(on_epoch_end=on_epoch_end), "foo")
    bus.enable_timings()
    with pytest.raises(LookupError):
        bus.on_epoch_end("run")
    assert counted(bus) == {("foo", "on_epoch_end"): 1}


def test_results_are_the_same_with_the_clock_on():
    bus = listening_bus()
    bus.register(plugin(provide_accelerator=hookimpl(lambda: "cpu")), "offer")
    bus.enable_timings()
    assert bus.training_step("run") == 1
    assert bus.on_epoch_end("run") is None
    assert bus.provide_accelerator() == ["cpu"]


def test_seconds_are_those_of_the_listener_and_the_most_expensive_comes_first():
    @hookimpl(wrapper=True)
    def slow_around(run):
        time.sleep(0.002)
        result = yield
        time.sleep(0.002)
        return result

    bus = Bus()
    bus.register(plugin(on_epoch_end=hookimpl(lambda: None)), "quick")
    bus.register(plugin(on_epoch_end=hookimpl(lambda: time.sleep(0.02))), "slow")
    bus.register(plugin(on_epoch_end=slow_around), "wrapper")
    bus.enable_timings()
    bus.on_epoch_end("run")
    seconds = {each.plugin: each.seconds for each in bus.timings()}
    assert [each.plugin for each in bus.timings()] == ["slow", "wrapper", "quick"]
    assert seconds["slow"] >= 0.02  # what a sleep takes at least
    assert seconds["wrapper"] >= 0.004


def test_a_plugin_that_comes_later_is_measured_too():
    bus = Bus()
    bus.enable_timings()
    bus.register(plugin(on_epoch_end=hookimpl(lambda: None)), "late")
    bus.on_epoch_end("run")
    assert counted(bus) == {("late", "on_epoch_end"): 1}


def test_counts_go_on_when_plugins_come_and_go():
    bus = listening_bus()
    bus.enable_timings()
    use(bus)
    bus.register(plugin(on_epoch_end=hookimpl(lambda: None)), "late")
    use(bus)
    assert counted(bus)["plain", "on_epoch_end"] == 2


def test_timings_may_be_switched_off_in_the_middle_of_a_wrapped_call():
    bus = listening_bus()
    disable = bus.enable_timings()
    bus.register(plugin(on_epoch_end=hookimpl(lambda: disable())), "profiler")
    bus.on_epoch_end("run")
    assert bus.timings() == []


def test_two_who_measure_share_the_times_and_end_them_apart():
    bus = listening_bus()
    first, second = bus.enable_timings(), bus.enable_timings()
    use(bus)
    first()
    first()  # a second time it is nobody's
    use(bus)
    assert counted(bus)["plain", "on_epoch_end"] == 2
    second()
    assert bus.timings() == []


def test_the_time_of_a_listener_is_without_that_of_the_listeners_it_calls():
    bus = Bus()

    def tell():
        bus.on_epoch_end("run")

    bus.register(plugin(on_epoch_start=hookimpl(tell)), "caller")
    bus.register(plugin(on_epoch_end=hookimpl(lambda: time.sleep(0.02))), "slow")
    bus.enable_timings()
    bus.on_epoch_start("run")
    seconds = {each.plugin: each.seconds for each in bus.timings()}
    assert seconds["slow"] >= 0.02
    assert seconds["caller"] < 0.02
