"""The runs that the suite plays: between them they fire everything there is."""

import pytest

from trainbus import hookspecs
from trainbus.events.markers import hookimpl, spec_options
from trainbus.testing import Recorder, TinyTask, make_loader
from trainbus.testing.bench import Bench, Subject
from trainbus.testing.scenarios import SCENARIOS


def lab_of(plugin):
    subject = Subject.of(
        lambda: plugin,
        {},
        beside=(),
        synchronises=0,
        milliseconds=10,
        skip={},
        task=TinyTask,
        loader=make_loader,
    )
    return Bench(subject)


def test_every_event_is_fired_and_every_action_called():
    recorder = Recorder()
    called = []
    for name, declaration in hookspecs.declared().items():
        if spec_options(declaration).kind == "action":

            def note(run, name=name):
                called.append(name)
                return (yield)

            setattr(recorder, name, hookimpl(wrapper=True)(note))
    for scenario in SCENARIOS.values():
        scenario.play(lab_of(recorder))
    kinds = {name: spec_options(each).kind for name, each in hookspecs.declared().items()}
    assert set(recorder.events) == {name for name, kind in kinds.items() if kind == "event"}
    assert set(called) == {name for name, kind in kinds.items() if kind == "action"}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_without_a_plugin_is_in_order(name):
    """What a plugin is blamed for is not the core's."""

    class Nothing:
        @hookimpl
        def on_run_start(self):
            pass

    SCENARIOS[name].play(lab_of(Nothing()))
