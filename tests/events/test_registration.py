"""Who may listen: what is taken, what is refused, and that a refusal changes nothing."""

import functools
import types
from dataclasses import dataclass

import pluggy
import pytest

from trainbus import Bus, PluginError, hookimpl, hookspec
from trainbus.events import Plugin

ORIGIN = "trainbus-foo 0.1"
old_style = pluggy.HookimplMarker("trainbus")


class Listening:
    """A plugin that is in order; traps are told from it."""

    @hookimpl
    def on_fit_start(self, run):
        run.append("listening")


class MisspeltHook:
    @hookimpl
    def on_train_batch_ends(self, run): ...


class MisspeltSpecname:
    @hookimpl(specname="on_epok_end")
    def at_the_end(self, run): ...


class MisspeltArgument:
    @hookimpl
    def on_metrics(self, run, step, metrcs): ...


class KeywordOnly:
    @hookimpl
    def on_fit_start(self, *, run): ...


class KeywordArguments:
    @hookimpl
    def on_fit_start(self, **anything): ...


class PositionalArguments:
    @hookimpl
    def on_fit_start(self, *anything): ...


class Coroutine:
    @hookimpl
    async def on_fit_start(self, run): ...


class AsyncGenerator:
    @hookimpl(wrapper=True)
    async def on_fit_start(self, run):
        yield


class OldStyleWrapper:
    @old_style(hookwrapper=True)
    def on_fit_start(self, run):
        yield


class WrapperWithoutYield:
    @hookimpl(wrapper=True)
    def on_fit_start(self, run): ...


class YieldWithoutWrapper:
    @hookimpl
    def on_fit_start(self, run):
        yield


class Override(Listening):
    def on_fit_start(self, run): ...


class OverrideOfGrandparent(type("Between", (Listening,), {})):
    def on_fit_start(self, run): ...


class OverrideOfAction(
    type("Base", (), {"backward": hookimpl(lambda run: None)})  # an action has no `on_`
):
    def backward(self, run): ...


class Unmarked:
    def on_fit_start(self, run): ...


class UnmarkedStatic:
    @staticmethod
    def on_fit_start(run): ...


class EveryWithoutCadence:
    @hookimpl(every=2)
    def on_fit_start(self, run): ...


class EveryAtAction:
    @hookimpl(every=2)
    def training_step(self, run): ...


class OnceWithoutRun:
    @hookimpl(once=True)
    def provide_accelerator(self): ...


class RankZeroWithoutRun:
    @hookimpl(rank_zero=True)
    def register_commands(self, commands): ...


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


class DeclaresNoNamespace:
    @hookimpl
    def register_hookspecs(self):
        return Hooks()


class DeclaresNothing:
    @hookimpl
    def register_hookspecs(self):
        return Listening


class DeclaresTaken:
    @hookimpl
    def register_hookspecs(self):
        return type("Taken", (), {"on_fit_end": hookspec(lambda run: None)})


class DeclaresAndErrs(Declares):
    @hookimpl
    def on_sample(self, run, sampel): ...


TRAPS = {
    "misspelt hook": (MisspeltHook(), ["on_train_batch_ends", "'on_train_batch_end'"]),
    "misspelt specname": (MisspeltSpecname(), ["at_the_end", "'on_epoch_end'"]),
    "misspelt argument": (MisspeltArgument(), ["on_metrics", "'metrcs'", "'metrics'"]),
    "keyword-only": (KeywordOnly(), ["run", "on_fit_start(run)"]),
    "**kwargs": (KeywordArguments(), ["**anything", "on_fit_start(run)"]),
    "*args": (PositionalArguments(), ["*anything", "on_fit_start(run)"]),
    "coroutine": (Coroutine(), ["on_fit_start", "never awaited"]),
    "async generator": (AsyncGenerator(), ["on_fit_start", "never awaited"]),
    "old-style wrapper": (OldStyleWrapper(), ["on_fit_start", "use @hookimpl(wrapper=True)"]),
    "wrapper without yield": (WrapperWithoutYield(), ["on_fit_start", "yield"]),
    "yield without wrapper": (YieldWithoutWrapper(), ["on_fit_start", "wrapper=True"]),
    "class": (Listening, ["class Listening", "()"]),
    "override": (Override(), ["Override.on_fit_start", "@hookimpl"]),
    "override of grandparent": (
        OverrideOfGrandparent(),
        ["OverrideOfGrandparent.on_fit_start", "@hookimpl"],
    ),
    "override of action": (OverrideOfAction(), ["OverrideOfAction.backward", "@hookimpl"]),
    "unmarked": (Unmarked(), ["on_fit_start", "@hookimpl"]),
    "unmarked static": (UnmarkedStatic(), ["on_fit_start", "@hookimpl"]),
    "every without cadence": (EveryWithoutCadence(), ["on_fit_start", "every=2"]),
    "every at an action": (EveryAtAction(), ["training_step", "every=2"]),
    "once without run": (OnceWithoutRun(), ["provide_accelerator", "once"]),
    "rank_zero without run": (RankZeroWithoutRun(), ["register_commands", "rank_zero"]),
    "hooks in an instance": (DeclaresNoNamespace(), ["register_hookspecs", "class or module"]),
    "no hooks declared": (DeclaresNothing(), ["register_hookspecs"]),
    "declares a hook and errs": (DeclaresAndErrs(), ["on_sample", "'sampel'", "'sample'"]),
    "hook that exists": (DeclaresTaken(), ["'on_fit_end'", "exists already"]),
}


def state(bus):
    """All that a refused registration must leave alone."""
    return {
        "plugins": bus.plugins,
        "order": bus.order(),
        "hooks": dict(bus.hooks),
        "listened to": {name: getattr(bus, name) is not None for name in bus.hooks},
    }


@pytest.mark.parametrize("trap", TRAPS)
def test_trap_is_refused_with_plugin_origin_and_remedy(trap):
    plugin, phrases = TRAPS[trap]
    with pytest.raises(PluginError) as caught:
        Bus().register(plugin, "foo", ORIGIN)
    message = str(caught.value)
    for phrase in ["'foo'", ORIGIN, *phrases]:
        assert phrase in message


@pytest.mark.parametrize("trap", TRAPS)
def test_refused_registration_leaves_the_bus_as_it_was(trap):
    bus = Bus()
    bus.register(Listening(), "first")
    before = state(bus)
    with pytest.raises(PluginError):
        bus.register_all([Plugin("second", Listening()), Plugin("foo", TRAPS[trap][0], ORIGIN)])
    assert state(bus) == before


@pytest.mark.parametrize("trap", TRAPS)
def test_a_name_is_free_again_after_a_refusal(trap):
    bus = Bus()
    with pytest.raises(PluginError):
        bus.register(TRAPS[trap][0], "foo")
    bus.register(Listening(), "foo")
    assert bus.order() == {"on_fit_start": ["foo"]}


def test_two_plugins_of_one_name_are_refused_naming_both():
    bus = Bus()
    bus.register(Listening(), "foo", "trainbus-foo 0.1")
    with pytest.raises(PluginError) as caught:
        bus.register(Listening(), "foo", "other-foo 2.0")
    assert all(part in str(caught.value) for part in ("'foo'", "trainbus-foo 0.1", "other-foo 2.0"))
    assert list(bus.plugins) == ["foo"]


def test_one_object_twice_is_refused():
    bus = Bus()
    plugin = Listening()
    bus.register(plugin, "foo", ORIGIN)
    with pytest.raises(PluginError) as caught:
        bus.register(plugin, "bar", "trainbus-bar 0.2")
    assert all(part in str(caught.value) for part in ("'foo'", "'bar'", "trainbus-bar 0.2"))
    assert bus.order() == {"on_fit_start": ["foo"]}


def test_two_equal_objects_are_taken_or_refused_by_name():
    """Plugins are often dataclasses, which compare by value; pluggy compares with `==`."""

    @dataclass
    class Options(Listening):
        path: str = "x"

    bus = Bus()
    bus.register(Options(), "foo", ORIGIN)
    try:
        bus.register(Options(), "bar", "trainbus-bar 0.2")
    except PluginError as error:
        assert "'bar'" in str(error) and "trainbus-bar 0.2" in str(error)
    else:
        bus.unregister("bar")
    assert bus.order() == {"on_fit_start": ["foo"]}


def test_a_failing_declaration_names_its_plugin():
    class Broken:
        @hookimpl
        def register_hookspecs(self):
            raise OSError("no such file")

    with pytest.raises((OSError, PluginError)) as caught:
        Bus().register(Broken(), "foo", ORIGIN)
    told = [str(caught.value), *getattr(caught.value, "__notes__", [])]
    assert any("'foo'" in line and ORIGIN in line for line in told)


# --- what is taken -------------------------------------------------------------------------------


def test_a_hook_that_may_be_absent_is_taken_with_optionalhook():
    class Optional(Listening):
        @hookimpl(optionalhook=True)
        def on_sample(self, run, sample):
            run.append(sample)

    bus = Bus()
    bus.register(Optional(), "foo")
    assert bus.order() == {"on_fit_start": ["foo"]}


def test_an_override_with_a_marker_takes_the_place_of_its_base():
    class Marked(Listening):
        @hookimpl
        def on_fit_start(self, run):
            run.append("marked")

    bus, called = Bus(), []
    bus.register(Marked(), "foo")
    bus.on_fit_start(called)
    assert called == ["marked"]


def test_a_subclass_may_switch_a_listener_off():
    class Silent(Listening):
        on_fit_start = None

    bus = Bus()
    bus.register(Silent(), "foo")
    assert bus.on_fit_start is None


def test_a_method_named_like_an_action_needs_no_marker():
    """A `Task` has a `training_step` of its own and is a plugin at once."""

    class Model(Listening):
        def training_step(self, batch): ...

    bus = Bus()
    bus.register(Model(), "task")
    assert bus.order() == {"on_fit_start": ["task"]}


def test_properties_are_not_evaluated():
    class Lazy(Listening):
        @property
        def expensive(self):
            raise AssertionError("evaluated")

        @functools.cached_property
        def more_expensive(self):
            raise AssertionError("evaluated")

    bus = Bus()
    bus.register(Lazy(), "foo")
    assert bus.order() == {"on_fit_start": ["foo"]}


def test_a_module_is_a_plugin():
    module = types.ModuleType("company_hooks")
    exec("def on_fit_start(run): run.append('module')", module.__dict__)
    hookimpl(module.on_fit_start)
    bus, called = Bus(), []
    bus.register(module, "company_hooks")
    bus.on_fit_start(called)
    assert called == ["module"]


def test_an_unmarked_function_of_a_module_is_refused():
    module = types.ModuleType("company_hooks")
    exec("def on_fit_start(run): ...", module.__dict__)
    with pytest.raises(PluginError, match="on_fit_start is named like a hook but not marked"):
        Bus().register(module, "company_hooks")


def test_unregister_by_name_and_by_object():
    bus, plugin = Bus(), Listening()
    bus.register(plugin, "foo")
    bus.register(Listening(), "bar")
    bus.unregister(plugin)
    assert bus.order() == {"on_fit_start": ["bar"]}
    bus.unregister("bar")
    assert bus.order() == {} and bus.plugins == {} and bus.on_fit_start is None


def test_unregistering_a_stranger_names_those_that_are_there():
    bus = Bus()
    bus.register(Listening(), "foo")
    with pytest.raises(PluginError, match=r"'bar'.*foo"):
        bus.unregister("bar")


def test_an_undeclared_hook_is_an_attribute_error_with_the_nearest_name():
    with pytest.raises(AttributeError, match="'on_train_batch_end'"):
        _ = Bus().on_train_batch_ends
