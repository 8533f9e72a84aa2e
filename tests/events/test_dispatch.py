"""What a call hands in and gives back, and how it follows plugins that come and go."""

from types import SimpleNamespace

import pytest

from trainbus import Bus, hookimpl, hookspec
from trainbus.events import Plugin


def plugin(**listeners):
    return SimpleNamespace(**listeners)


def bus_of(*plugins):
    bus = Bus()
    bus.register_all(Plugin(f"p{i}", each) for i, each in enumerate(plugins))
    return bus


# --- results -------------------------------------------------------------------------------------


def test_an_action_returns_the_first_result_that_is_not_none():
    called = []

    def step(result):
        return plugin(
            training_step=hookimpl(lambda run: called.append(result) or result),
        )

    bus = bus_of(step(None), step(0), step("never reached"))
    assert bus.training_step(None) == 0
    assert called == [None, 0]


def test_an_action_of_which_nobody_has_a_result_returns_none():
    assert bus_of(plugin(training_step=hookimpl(lambda run: None))).training_step(None) is None


def test_a_contribution_returns_the_list_of_all_results():
    offers = [plugin(provide_accelerator=hookimpl(lambda it=it: it)) for it in ("a", None, "c")]
    assert bus_of(*offers).provide_accelerator() == ["a", "c"]


@pytest.mark.parametrize("hook", ["on_fit_start", "on_metrics"])
def test_events_and_records_return_nothing(hook):
    bus = bus_of(plugin(**{hook: hookimpl(lambda: "ignored")}))
    assert getattr(bus, hook)(*bus.hooks[hook].arguments) is None


@pytest.mark.parametrize("hook", Bus().hooks)
def test_a_hook_that_nobody_listens_to_is_none(hook):
    assert getattr(Bus(), hook) is None


# --- arguments -----------------------------------------------------------------------------------


def test_a_listener_names_the_arguments_that_it_wants_in_any_order():
    seen = []

    @hookimpl
    def on_metrics(metrics, run):
        seen.append((metrics, run))

    bus_of(plugin(on_metrics=on_metrics)).on_metrics("run", 1, {"loss": 2.0}, 0.0)
    assert seen == [({"loss": 2.0}, "run")]


def test_a_listener_may_want_nothing():
    seen = []
    bus_of(plugin(on_metrics=hookimpl(lambda: seen.append("called")))).on_metrics("run", 1, {}, 0.0)
    assert seen == ["called"]


def test_a_default_does_not_keep_an_argument_of_the_hook_away():
    seen = []

    @hookimpl
    def on_metrics(run, step=-1, factor=3):
        seen.append((run, step, factor))

    bus_of(plugin(on_metrics=on_metrics)).on_metrics("run", 7, {}, 0.0)
    assert seen == [("run", 7, 3)]


@pytest.mark.parametrize("wrapper", [False, True])
def test_a_default_of_the_listeners_own_stays_where_it_stands(wrapper):
    """`factor` is no argument of the hook: it keeps its value though `step` comes after it."""
    seen = []

    def plain(run, factor=3, step=-1):
        seen.append((run, factor, step))

    def around(run, factor=3, step=-1):
        seen.append((run, factor, step))
        return (yield)

    listener = hookimpl(wrapper=wrapper)(around if wrapper else plain)
    bus = bus_of(plugin(on_metrics=listener))
    bus.on_metrics("run", 7, {}, 0.0)
    bus._manager.hook.on_metrics(run="run", step=7, metrics={}, time=0.0)
    assert seen == [("run", 3, 7)] * 2


class Loud:
    @hookspec
    def on_loud(self, run, volume): ...


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_hook_may_be_called_by_keyword(wrapped):
    seen = []

    @hookimpl(wrapper=True)
    def around(run):
        return (yield)

    plugins = [
        plugin(register_hookspecs=hookimpl(lambda: Loud)),
        plugin(on_loud=hookimpl(lambda volume: seen.append(volume))),
    ]
    if wrapped:
        plugins.append(plugin(on_loud=around))
    bus_of(*plugins).on_loud("run", volume=11)
    assert seen == [11]


# --- plugins that come and go --------------------------------------------------------------------


def test_a_plugin_that_comes_during_a_call_listens_from_the_next_one_on():
    bus, called = Bus(), []
    late = plugin(on_epoch_end=hookimpl(lambda run: called.append("late")))

    @hookimpl
    def on_epoch_end(run):
        called.append("early")
        if "late" not in bus.plugins:
            bus.register(late, "late")

    bus.register(plugin(on_epoch_end=on_epoch_end), "early")
    bus.on_epoch_end(None)
    assert called == ["early"]
    bus.on_epoch_end(None)
    assert called == ["early", "early", "late"]


def test_a_plugin_that_goes_during_a_call_listens_no_more():
    bus, called = Bus(), []

    @hookimpl
    def on_epoch_end(run):
        called.append("once")
        bus.unregister("brief")

    bus.register(plugin(on_epoch_end=on_epoch_end), "brief")
    bus.on_epoch_end(None)
    assert bus.on_epoch_end is None and called == ["once"]


def test_muted_kinds_are_not_called_until_the_undo():
    bus = bus_of(plugin(on_metrics=hookimpl(lambda: None), on_fit_start=hookimpl(lambda: None)))
    unmute = bus.mute("record")
    assert bus.on_metrics is None and bus.on_fit_start is not None
    bus.register(plugin(on_metrics=hookimpl(lambda: None)), "late")
    assert bus.on_metrics is None
    unmute()
    assert bus.on_metrics is not None


def test_muting_another_kind_leaves_the_first_one_muted():
    bus = bus_of(plugin(on_metrics=hookimpl(lambda: None), on_fit_start=hookimpl(lambda: None)))
    unmute_records = bus.mute("record")
    unmute_events = bus.mute("event")
    assert bus.on_metrics is None and bus.on_fit_start is None
    unmute_events()
    assert bus.on_metrics is None and bus.on_fit_start is not None
    unmute_records()
    assert bus.on_metrics is not None
