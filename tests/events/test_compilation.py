"""A hook is compiled when it is first read after a change, and no sooner."""

import builtins
import subprocess
import sys

import pytest

from trainbus import Bus, PluginError, Trainer, hookimpl, hookspec
from trainbus.events import EventBus, Plugin


@pytest.fixture
def compiled(monkeypatch):
    """The file names of generated functions, as they are compiled."""
    names = []
    real = builtins.compile

    def noting(source, filename, *rest, **more):
        if str(filename).startswith("<trainbus "):
            names.append(filename)
        return real(source, filename, *rest, **more)

    monkeypatch.setattr(builtins, "compile", noting)
    return names


class Ends:
    def __init__(self):
        self.calls = []

    @hookimpl
    def on_epoch_end(self, run):
        self.calls.append("epoch")

    @hookimpl
    def on_fit_end(self, run):
        self.calls.append("fit")


def test_registering_compiles_nothing(compiled):
    bus = Bus()
    bus.register(Ends(), "ends")
    assert compiled == []


def test_a_hook_is_compiled_once_for_many_reads(compiled):
    bus = Bus()
    bus.register(Ends(), "ends")
    for _ in range(3):
        bus.on_epoch_end("run")
        assert bus.on_epoch_start is None
    assert compiled == ["<trainbus hook on_epoch_end>"]


def test_a_change_compiles_again_what_it_touches_and_nothing_else(compiled):
    bus, first, second = Bus(), Ends(), Ends()
    bus.register(first, "first")
    bus.on_epoch_end("run"), bus.on_fit_end("run")
    compiled.clear()
    bus.register(second, "second")
    bus.pause("second", "on_fit_end")
    bus.on_epoch_end("run"), bus.on_fit_end("run")
    assert sorted(compiled) == ["<trainbus hook on_epoch_end>", "<trainbus hook on_fit_end>"]
    compiled.clear()
    bus.pause("first", "on_epoch_end")
    bus.on_epoch_end("run"), bus.on_fit_end("run")
    assert compiled == ["<trainbus hook on_epoch_end>"]
    assert (first.calls, second.calls) == (["epoch", "fit"] * 2 + ["fit"], ["epoch", "epoch"])


def test_ten_functions_and_a_fit_generate_at_most_fifteen(line, loader, compiled):
    trainer = Trainer()
    heard = []
    for event in ("epoch_start", "train_batch_end"):
        for _ in range(5):
            trainer.on(event)(lambda run: heard.append(run))
    trainer.fit(line, loader)
    assert len(heard) == 5 + 5 * len(loader)
    assert len(compiled) <= 15, compiled


def test_all_is_checked_before_anything_is_registered():
    """Also what only several of them show together: an order that cannot be."""

    def listener(**order):
        return type("Listening", (), {"on_fit_start": hookimpl(**order)(lambda self, run: None)})()

    bus = Bus()
    first, second = listener(before=["second"]), listener(before=["first"])
    with pytest.raises(PluginError, match="contradict each other"):
        bus.register_all([Plugin("first", first), Plugin("second", second)])
    assert bus.plugins == {} and bus.order() == {}


def test_two_plugins_that_compare_equal_are_two():
    class Same(Ends):
        def __eq__(self, other):
            return True

        __hash__ = None

    bus, first, second = Bus(), Same(), Same()
    bus.register(first, "first")
    bus.register(second, "second")
    bus.on_fit_end("run")
    assert (first.calls, second.calls) == (["fit"], ["fit"])


def test_no_property_of_a_plugin_is_run():
    class Lazy(Ends):
        @property
        def client(self):
            raise OSError("no network")

    bus = Bus()
    bus.register(Lazy(), "lazy")
    assert bus.order() == {"on_epoch_end": ["lazy"], "on_fit_end": ["lazy"]}


# --- the mechanism alone -------------------------------------------------------------------------

SHOP = """
import sys
from trainbus.events import EventBus, hookimpl, hookspec

class Hooks:
    @hookspec
    def on_order(self, order): ...

class Mail:
    @hookimpl
    def on_order(self, order): order["sent"] = True

bus = EventBus()
bus.declare(Hooks)
assert bus.on_order is None and list(bus.hooks) == ["on_order"]
bus.register(Mail(), "mail")
order = {}
bus.on_order(order)
assert order == {"sent": True}
assert not {"torch", "trainbus.hookspecs", "trainbus.engine"} & set(sys.modules)
"""


def test_the_mechanism_works_without_torch_and_without_the_hooks_of_a_training():
    subprocess.run([sys.executable, "-c", SHOP], check=True)


def test_a_hook_that_nobody_declared_is_an_error_with_the_nearest_name():
    class Hooks:
        @hookspec
        def on_order(self, order): ...

    bus = EventBus()
    bus.declare(Hooks)
    with pytest.raises(AttributeError, match="did you mean 'on_order'"):
        bus.on_ordr  # noqa: B018
    with pytest.raises(PluginError, match="exists already"):
        bus.declare(type("Other", (), {"on_order": hookspec(lambda self: None)}))


# --- what computes, and what is silent -----------------------------------------------------------


def test_what_computes_is_known_from_the_hooks():
    class Wraps:
        @hookimpl(wrapper=True)
        def training_step(self):
            return (yield)

    class Clips:
        @hookimpl
        def on_before_optimizer_step(self, run): ...

    class Watches(Clips):
        observer = True

    class Follows(Clips):
        computes = False

    class Sets(Ends):
        computes = True

    bus = Bus()
    for kind in (Wraps, Clips, Watches, Follows, Sets, Ends):
        bus.register(kind(), kind.__name__)
    assert bus.computing() == ["Wraps", "Clips", "Sets"]


def test_a_silenced_listener_is_called_in_no_run(line, loader):
    calls = []

    class Tells:
        @hookimpl
        def on_run_end(self, run):
            calls.append("end")

        @hookimpl
        def on_fit_start(self, run):
            calls.append("start")

    trainer = Trainer(plugins=[Tells()])
    trainer.bus.silence("tells", ["on_run_end"])
    trainer.fit(line, loader)
    trainer.fit(line, loader)
    assert calls == ["start", "start"]
