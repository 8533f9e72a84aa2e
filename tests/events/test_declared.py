"""Hooks that a plugin declares for others to listen to."""

import types
from types import SimpleNamespace

import pytest

from trainbus import Bus, PluginError, hookimpl, hookspec
from trainbus.events import Plugin

ORIGIN = "trainbus-foo 0.1"


class Hooks:
    """What a plugin declares for others."""

    @hookspec(cadence="epoch")
    def on_sample(self, run, sample): ...

    @hookspec(kind="action")
    def draw_sample(self, run): ...


class Declares:
    @hookimpl
    def register_hookspecs(self):
        return Hooks


class SampleListener:
    @hookimpl
    def on_sample(self, run, sample):
        run.append(sample)


def test_a_plugin_may_listen_to_a_hook_that_a_later_one_of_the_same_call_declares():
    bus, called = Bus(), []
    bus.register_all([Plugin("early", SampleListener()), Plugin("sampler", Declares())])
    bus.on_sample(called, 7)
    assert called == [7]
    assert bus.order()["on_sample"] == ["early"]


def test_a_declared_hook_has_its_kind_and_cadence():
    bus, called = Bus(), []
    every = hookimpl(every=2)(lambda run, sample: called.append(sample))
    action = hookimpl(lambda run: "drawn")
    bus.register(Declares(), "sampler")
    bus.register(SimpleNamespace(on_sample=every, draw_sample=action), "listener")
    for epoch in range(4):
        bus.on_sample(SimpleNamespace(epoch=epoch), epoch)
    assert called == [1, 3]
    assert bus.draw_sample(None) == "drawn"


def test_a_declared_hook_that_nobody_listens_to_is_none():
    bus = Bus()
    bus.register(Declares(), "sampler")
    assert bus.on_sample is None and bus.draw_sample is None


def test_a_module_may_declare_hooks():
    module = types.ModuleType("hooks_of_sampler")
    module.on_sample = hookspec(lambda run, sample: None)
    bus, called = Bus(), []
    bus.register(SimpleNamespace(register_hookspecs=hookimpl(lambda: module)), "sampler")
    bus.register(SampleListener(), "foo")
    bus.on_sample(called, 7)
    assert called == [7]


def test_a_declaring_plugin_may_go_and_come_back():
    bus, called, plugin = Bus(), [], Declares()
    bus.register_all([Plugin("sampler", plugin), Plugin("foo", SampleListener())])
    bus.unregister(plugin)
    bus.register(plugin, "sampler")
    bus.on_sample(called, 7)
    assert called == [7]
    bus.unregister("foo")
    assert bus.on_sample is None


def test_two_plugins_that_declare_one_hook_are_an_error():
    class Rival:
        @hookimpl
        def register_hookspecs(self):
            return type("Rivals", (), {"on_sample": hookspec(lambda run: None)})

    bus = Bus()
    bus.register(Declares(), "sampler")
    with pytest.raises(PluginError) as caught:
        bus.register(Rival(), "rival", ORIGIN)
    assert all(part in str(caught.value) for part in ("'rival'", ORIGIN, "'on_sample'"))
    assert list(bus.plugins) == ["sampler"]


def test_every_needs_a_hook_that_receives_the_run():
    class Counted:
        @hookspec(cadence="epoch")
        def on_count(self, number): ...

    bus = Bus()
    bus.register(SimpleNamespace(register_hookspecs=hookimpl(lambda: Counted)), "counter")
    with pytest.raises(PluginError, match="every"):
        bus.register(SimpleNamespace(on_count=hookimpl(every=2)(lambda number: None)), "foo")


def test_an_optional_listener_is_called_once_its_hook_is_declared():
    class Optional:
        @hookimpl(optionalhook=True)
        def on_sample(self, run, sample):
            run.append(sample)

    bus, called = Bus(), []
    bus.register(Optional(), "foo")
    bus.register(Declares(), "sampler")
    bus.on_sample(called, 7)
    assert called == [7]


def test_an_optional_listener_that_does_not_fit_the_declared_hook_is_refused_by_name():
    class Optional:
        @hookimpl(optionalhook=True)
        def on_sample(self, run, sampel): ...

    bus = Bus()
    bus.register(Optional(), "foo")
    with pytest.raises(PluginError, match="foo"):
        bus.register(Declares(), "sampler")
    assert list(bus.plugins) == ["foo"]


class Two:
    """Two hooks, so that a refusal at the first meets one that is not declared yet."""

    @hookspec
    def on_aim(self, run): ...

    @hookspec
    def on_fire(self, run): ...


class DeclaresTwo:
    @hookimpl
    def register_hookspecs(self):
        return Two


def test_an_optional_listener_that_does_not_fit_the_first_of_two_hooks_is_refused_by_name():
    bus = Bus()
    ill_fitting = hookimpl(optionalhook=True)(lambda rum: None)
    bus.register(SimpleNamespace(on_aim=ill_fitting), "foo")
    with pytest.raises(PluginError, match="foo"):
        bus.register(DeclaresTwo(), "two")
    assert list(bus.plugins) == ["foo"] and "on_aim" not in bus.hooks


def test_an_optional_listener_outlives_a_refused_declaration():
    bus, called = Bus(), []
    optional = hookimpl(optionalhook=True)(lambda run: called.append(run))
    bus.register(SimpleNamespace(on_aim=optional), "foo")
    broken = DeclaresTwo()
    broken.on_fyre = hookimpl(lambda run: None)
    with pytest.raises(PluginError, match="on_fyre"):
        bus.register(broken, "broken")
    bus.register(DeclaresTwo(), "two")
    bus.on_aim("run")
    assert called == ["run"]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("kind", ["event", "action", "contribution", "record"])
@pytest.mark.parametrize("name", ["result", "results", "error", "failed", "clock", "f", "f0", "l0"])
def test_an_argument_may_have_any_name(name, kind, wrapped):
    """None of these names is taken by the code that calls the listeners."""
    scope = {"hookspec": hookspec(kind=kind), "hookimpl": hookimpl, "seen": []}
    around = hookimpl(wrapper=True)
    exec(
        f"@hookspec\ndef on_it({name}): ...\n"
        f"def listen({name}): seen.append({name})\n"
        f"def around({name}):\n    seen.append({name})\n    return (yield)",
        scope,
    )
    declared = type("Declared", (), {"on_it": scope["on_it"]})
    bus = Bus()
    bus.register(SimpleNamespace(register_hookspecs=hookimpl(lambda: declared)), "declares")
    listen = hookimpl(specname="on_it")(scope["listen"])
    for plugin in ("one", "two"):
        bus.register(SimpleNamespace(on_it=listen, number=plugin), plugin)
    if wrapped:
        bus.register(SimpleNamespace(on_it=around(scope["around"])), "wraps")
    bus.on_it("value")
    assert scope["seen"] == ["value"] * (3 if wrapped else 2)
