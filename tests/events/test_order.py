"""In which order the listeners of a hook are called; pluggy's own call is the measure."""

import random
from functools import cache
from types import SimpleNamespace

import pytest

from trainbus import Bus, PluginError, hookimpl, hookspec
from trainbus.events import Plugin
from trainbus.events.compiler import Hook

FINAL_HOOKS = {name for name, hook in Bus().hooks.items() if hook.final}

HOOKS = Bus().hooks
#: Called by others than the bus.
APART = ("register_hookspecs", "on_log_start")
WITH_RESULT = ("action", "contribution")
MIXED = [
    {},
    {"tryfirst": True},
    {"trylast": True},
    {"wrapper": True},
    {"wrapper": True, "tryfirst": True},
    {"wrapper": True, "trylast": True},
]
NAMES = [f"p{i}" for i in range(9)]


def listener(hook, tell, arguments=None, **options):
    """A listener of `hook` that names its arguments and hands them to `tell`."""
    arguments = hook.arguments if arguments is None else arguments
    call = f"tell([{', '.join(arguments)}])"
    body = f"(yield from {call})" if options.get("wrapper") else call
    scope = {"tell": tell}
    exec(f"def {hook.name}({', '.join(arguments)}): return {body}", scope)
    return hookimpl(**options)(scope[hook.name])


def note(log, name, result=None, error=None):
    """What a plain listener does: write down its call, then return or raise."""

    def tell(values):
        log.append((name, values))
        if error is not None:
            raise error
        return result

    return tell


def note_around(log, name, passes_result, swallows=False):
    """What a wrapper does: write down both halves, and mark the result as seen."""

    def tell(values):
        log.append((name, "opens", values))
        try:
            result = yield
        except Exception as error:
            log.append((name, "catches", repr(error)))
            if swallows:
                return f"{name} swallowed"
            raise
        log.append((name, "closes", result if passes_result else None))
        return (name, result) if passes_result else None

    return tell


def plugins_for_all_hooks(seed, log, failing=False):
    """Plugins that listen to every hook, with options, results and errors drawn by `seed`."""
    draw = random.Random(seed)
    hidden = draw.sample(NAMES, len(NAMES))  # constraints follow this order: no cycle
    result = {}
    for name in NAMES:
        rank = hidden.index(name)
        listeners = {}
        for hook in HOOKS.values():
            if hook.name in APART:
                continue
            options = dict(draw.choice(MIXED))
            if draw.random() < 0.3:
                options["before"] = draw.sample(hidden[rank + 1 :], min(1, len(NAMES) - rank - 1))
            if draw.random() < 0.3:
                options["after"] = [*draw.sample(hidden[:rank], min(1, rank)), "absent"]
            if options.get("wrapper"):
                swallows = failing and draw.random() < 0.2
                tell = note_around(log, name, hook.kind in WITH_RESULT, swallows)
            else:
                value = name if hook.kind in WITH_RESULT and draw.random() < 0.3 else None
                broken = failing and draw.random() < 0.3
                tell = note(log, name, value, LookupError(name) if broken else None)
            arguments = draw.sample(hook.arguments, draw.randint(0, len(hook.arguments)))
            listeners[hook.name] = listener(hook, tell, arguments, **options)
        result[name] = SimpleNamespace(**listeners)
    return result


@cache
def bus_with_all_hooks(seed, failing=False):
    log = []
    bus = Bus()
    bus.register_all(
        Plugin(name, plugin) for name, plugin in plugins_for_all_hooks(seed, log, failing).items()
    )
    return bus, log


def outcome(log, call, *arguments, **named):
    """The calls that were made, and how they ended."""
    log.clear()
    try:
        ended = call(*arguments, **named)
    except LookupError as error:
        ended = repr(error)
    return list(log), ended


def values_of(hook):
    return {name: f"the {name}" for name in hook.arguments}


CALLED = [name for name in HOOKS if name not in APART]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", CALLED)
def test_compiled_order_and_results_equal_pluggys(name, seed):
    bus, log = bus_with_all_hooks(seed)
    hook = bus.hooks[name]
    compiled = outcome(log, getattr(bus, name), *values_of(hook).values())
    truth = outcome(log, getattr(bus._manager.hook, name), **values_of(hook))
    assert compiled[0] == truth[0]
    assert len(compiled[0]) >= 3
    if hook.kind in WITH_RESULT:
        assert compiled[1] == truth[1]
    else:
        assert compiled[1] is None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "name", [n for n in CALLED if HOOKS[n].kind != "record" and n not in FINAL_HOOKS]
)
def test_compiled_order_equals_pluggys_when_a_listener_fails(name, seed):
    bus, log = bus_with_all_hooks(seed, failing=True)
    hook = bus.hooks[name]
    compiled = outcome(log, getattr(bus, name), *values_of(hook).values())
    truth = outcome(log, getattr(bus._manager.hook, name), **values_of(hook))
    assert compiled[0] == truth[0]
    failed = any(entry[1] == "catches" for entry in compiled[0]) or "LookupError" in str(truth[1])
    if hook.kind in WITH_RESULT or failed:
        assert compiled[1] == truth[1]


@pytest.mark.parametrize("name", CALLED)
def test_order_tells_what_is_called(name):
    """`bus.order()` lists the plugins of a hook as they are called, wrappers first."""
    log = []
    bus = Bus()
    hook = HOOKS[name]
    for index, options in enumerate([{}, {"wrapper": True}, {"tryfirst": True}, {"trylast": True}]):
        tell = (note_around if "wrapper" in options else note)(log, f"p{index}", None)
        bus.register(SimpleNamespace(**{name: listener(hook, tell, **options)}), f"p{index}")
    getattr(bus, name)(*values_of(hook).values())
    called = [entry[0] for entry in log if entry[1] != "closes"]
    assert called == bus.order()[name] == ["p1", "p2", "p0", "p3"]


def test_compiled_order_of_declarations_equals_pluggys():
    """`register_hookspecs` is asked at registration, too, so its listeners return namespaces."""
    bus = Bus()
    for name, options in [("a", {"trylast": True}), ("b", {"after": ["c"]}), ("c", {})]:
        declared = type(name, (), {f"on_{name}": hookspec(lambda run: None)})
        ask = listener(HOOKS["register_hookspecs"], lambda _, it=declared: it, **options)
        bus.register(SimpleNamespace(register_hookspecs=ask), name)
    answers = [each.__name__ for each in bus.register_hookspecs()]
    assert answers == [each.__name__ for each in bus._manager.hook.register_hookspecs()]
    assert answers == ["c", "b", "a"]


# --- by hand: what each option does --------------------------------------------------------------


def ordered(*plugins):
    """The order of the plugins, given as (name, options of its on_fit_start)."""
    bus = Bus()
    for name, options in plugins:
        bus.register(fit_start(**options), name)
    return bus.order().get("on_fit_start", [])


def fit_start(**options):
    hook = Hook(name="on_fit_start", arguments=("run",))
    tell = note_around([], "", False) if options.get("wrapper") else note([], "")
    return SimpleNamespace(on_fit_start=listener(hook, tell, **options))


def test_those_that_ask_for_nothing_come_as_registered():
    assert ordered(("b", {}), ("a", {}), ("c", {})) == ["b", "a", "c"]


def test_tryfirst_and_trylast_keep_registration_order_among_themselves():
    first, last = {"tryfirst": True}, {"trylast": True}
    given = [("a", last), ("b", first), ("c", {}), ("d", last), ("e", first)]
    assert ordered(*given) == ["b", "e", "c", "a", "d"]


def test_wrappers_come_first_whatever_the_others_ask_for():
    assert ordered(("a", {"tryfirst": True}), ("b", {"wrapper": True, "trylast": True})) == [
        "b",
        "a",
    ]


@pytest.mark.parametrize("kind", [{}, {"wrapper": True}])
def test_before_and_after_by_plugin_name(kind):
    assert ordered(("a", {"after": ["c"], **kind}), ("b", kind), ("c", kind)) == ["b", "c", "a"]
    assert ordered(("a", kind), ("b", kind), ("c", {"before": ["a"], **kind})) == ["b", "c", "a"]


def test_before_and_after_hold_whichever_plugin_comes_first():
    assert ordered(("b", {}), ("a", {"before": ["b"]})) == ["a", "b"]
    assert ordered(("a", {"before": ["b"]}), ("b", {})) == ["a", "b"]


def test_several_names_in_before_and_after():
    given = [("a", {}), ("b", {}), ("c", {"before": ["b", "a"]}), ("d", {"after": ["a", "b"]})]
    assert ordered(*given) == ["c", "a", "b", "d"]


def test_absent_names_are_ignored():
    assert ordered(("a", {}), ("b", {"before": ["nobody"], "after": ["no_one"]})) == ["a", "b"]


def test_a_name_that_does_not_listen_to_this_hook_is_ignored():
    bus = Bus()
    bus.register(fit_start(after=["silent"]), "a")
    bus.register(SimpleNamespace(), "silent")
    assert bus.order() == {"on_fit_start": ["a"]}


def test_before_and_after_beat_tryfirst_and_trylast():
    assert ordered(("a", {"tryfirst": True, "after": ["b"]}), ("b", {"trylast": True})) == [
        "b",
        "a",
    ]
    assert ordered(("a", {"tryfirst": True}), ("b", {"trylast": True, "before": ["a"]})) == [
        "b",
        "a",
    ]


def test_before_cannot_put_a_plain_listener_outside_a_wrapper():
    assert ordered(("w", {"wrapper": True}), ("a", {"before": ["w"]})) == ["w", "a"]


def test_a_plugin_may_listen_twice_and_others_order_themselves_around_both():
    bus = Bus()

    class Twice:
        @hookimpl(specname="on_fit_start")
        def one(self, run):
            run.append("one")

        @hookimpl(specname="on_fit_start", trylast=True)
        def two(self, run):
            run.append("two")

    @hookimpl(after=["twice"])
    def on_fit_start(run):
        run.append("after")

    bus.register(SimpleNamespace(on_fit_start=on_fit_start), "late")
    bus.register(Twice(), "twice")
    called = []
    bus.on_fit_start(called)
    assert called == ["one", "two", "after"]


def test_registering_one_by_one_or_together_gives_the_same_order():
    bus, _ = bus_with_all_hooks(0)
    one_by_one = Bus()
    for name, plugin in plugins_for_all_hooks(0, []).items():
        one_by_one.register(plugin, name)
    assert one_by_one.order() == bus.order()


def test_a_cycle_is_an_error_that_names_it():
    bus = Bus()
    bus.register(fit_start(before=["b"]), "a")
    bus.register(fit_start(before=["c"]), "b")
    with pytest.raises(PluginError) as caught:
        bus.register(fit_start(before=["a"]), "c")
    message = str(caught.value)
    assert "on_fit_start" in message
    assert any(
        cycle in message
        for cycle in (
            "a before b before c before a",
            "b before c before a before b",
            "c before a before b before c",
        )
    )


def test_a_plugin_before_itself_is_a_cycle():
    with pytest.raises(PluginError, match="a before a"):
        Bus().register(fit_start(before=["a"]), "a")


def test_a_cycle_leaves_the_bus_unchanged():
    bus = Bus()
    bus.register(fit_start(before=["b"]), "a")
    bus.register(fit_start(), "b")
    order, plugins = bus.order(), bus.plugins
    with pytest.raises(PluginError):
        bus.register(fit_start(after=["b"], before=["a"]), "c")
    assert (bus.order(), bus.plugins) == (order, plugins)


def between(hook, **options):
    return listener(HOOKS[hook], note([], ""), **options)


def test_a_cycle_in_one_hook_leaves_the_order_of_the_others_unchanged():
    """The refused plugin asked for another order in an earlier hook; that wish goes with it."""
    bus = Bus()
    first = between("on_run_start"), between("on_fit_start", before=["b"])
    bus.register(SimpleNamespace(on_run_start=first[0], on_fit_start=first[1]), "a")
    second = between("on_run_start"), between("on_fit_start")
    bus.register(SimpleNamespace(on_run_start=second[0], on_fit_start=second[1]), "b")
    order = bus.order()
    asks = {"after": ["b"], "before": ["a"]}
    with pytest.raises(PluginError):
        bus.register(
            SimpleNamespace(
                on_run_start=between("on_run_start", **asks),
                on_fit_start=between("on_fit_start", **asks),
            ),
            "c",
        )
    assert bus.order() == order


def test_the_order_that_a_plugin_asked_for_goes_with_it():
    bus = Bus()
    for name in "ab":
        bus.register(fit_start(), name)
    bus.register(fit_start(after=["b"], before=["a"]), "c")
    assert bus.order()["on_fit_start"] == ["b", "c", "a"]
    bus.unregister("c")
    assert bus.order()["on_fit_start"] == ["a", "b"]
