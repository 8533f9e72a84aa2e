"""A plugin that has nothing to do at a hook in this run is not called there."""

from types import SimpleNamespace

import pytest

from trainbus import Bus, PluginError, hookimpl


def bus_with(name, **listeners):
    bus = Bus()
    bus.register(SimpleNamespace(**listeners), name)
    return bus


def test_a_paused_listener_is_not_called_and_the_hook_costs_nothing():
    bus = bus_with(
        "quiet", on_epoch_end=hookimpl(lambda: None), on_epoch_start=hookimpl(lambda: None)
    )
    bus.pause("quiet", "on_epoch_end")
    assert bus.on_epoch_end is None
    assert bus.on_epoch_start is not None


def test_the_next_run_calls_it_again():
    bus = bus_with("quiet", on_epoch_end=hookimpl(lambda: None))
    bus.pause("quiet", "on_epoch_end")
    bus.recall()
    assert bus.on_epoch_end is not None


def test_others_at_the_same_hook_are_called():
    called = []
    bus = bus_with("quiet", on_epoch_end=hookimpl(lambda: called.append("quiet")))
    bus.register(SimpleNamespace(on_epoch_end=hookimpl(lambda: called.append("other"))), "other")
    bus.pause("quiet", "on_epoch_end")
    bus.on_epoch_end("run")
    assert called == ["other"]


def test_a_hook_that_does_not_exist_is_named():
    bus = bus_with("quiet", on_epoch_end=hookimpl(lambda: None))
    with pytest.raises(PluginError, match=r"on_epoch_ende.*on_epoch_end"):
        bus.pause("quiet", "on_epoch_ende")
