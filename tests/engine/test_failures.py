"""A plugin that raises, in each hook in turn."""

import logging

import pytest

from trainbus import Bus, Trainer, hookimpl

HOOKS = Bus().hooks
FIT_EVENTS = [
    name
    for name, hook in HOOKS.items()
    if hook.kind == "event"
    and not name.startswith(("on_test", "on_predict", "on_checkpoint_loaded"))
    and name not in ("on_exception", "on_run_end")
]
ACTIONS = ["configure_model", "configure_optimizer", "place_batch", "training_step", "backward",
           "optimizer_step", "validation_step", "save_checkpoint"]  # fmt: skip


class Failure(Exception):
    pass


def failing(hook, observer=False):
    scope = {"Failure": Failure}
    exec(f"def {hook}({', '.join(HOOKS[hook].arguments)}): raise Failure('on purpose')", scope)
    members = {hook: staticmethod(hookimpl(scope[hook])), "observer": observer}
    return type("Failing", (), members)()


@pytest.mark.parametrize("hook", [*FIT_EVENTS, *ACTIONS])
def test_an_error_ends_the_run_and_names_plugin_and_hook(line, loader, record, hook):
    trainer = Trainer(plugins=["checkpoint", failing(hook)])
    events = record(trainer)
    with pytest.raises(Failure, match="on purpose") as caught:
        trainer.fit(line, loader, loader)
    assert caught.value.__notes__[0] == f"raised by plugin 'failing', {hook}"
    ending = [event for event in events if event != "checkpoint_saved"]
    assert ending[-2:] == ["exception", "run_end"]
    trainer.bus.unregister("failing")
    assert trainer.fit(line, loader, loader).status == "completed"


@pytest.mark.parametrize(
    "hook", [h for h in FIT_EVENTS if h not in ("on_run_start", "on_fit_start")]
)
def test_an_observer_that_fails_is_set_aside_with_one_warning(line, loader, caplog, hook):
    trainer = Trainer(epochs=2, plugins=["checkpoint", failing(hook, observer=True)])
    run = trainer.fit(line, loader, loader)
    assert (run.status, run.global_step) == ("completed", 10)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    message = f"plugin 'failing', {hook}: Failure: on purpose"
    assert warnings == [f"{message}; it is set aside, the run goes on without it"]
    assert run.errors == [message]


@pytest.mark.parametrize("hook", ["on_run_start", "on_fit_start"])
def test_an_observer_that_cannot_start_stops_the_run(line, loader, hook):
    with pytest.raises(Failure):
        Trainer(plugins=[failing(hook, observer=True)]).fit(line, loader)


@pytest.mark.parametrize("hook", ["on_metrics", "on_params"])
def test_a_logger_that_fails_never_ends_the_run(line, loader, caplog, hook):
    told = []
    trainer = Trainer(plugins=[failing(hook)])
    trainer.on("metrics")(lambda step: told.append(step))
    line.hparams = {"a": 1}
    run = trainer.fit(line, loader)
    assert run.status == "completed"
    assert len(told) == 6, "the other listeners hear everything"
    assert len([r for r in caplog.records if "set aside" in r.getMessage()]) == 1


def test_an_error_at_the_very_end_hides_nothing(make_line, loader, caplog):
    class Broken(make_line):
        def training_step(self, batch, run):
            raise ValueError("the real one")

    ended = []
    trainer = Trainer(plugins=[failing("on_exception")])
    trainer.bus.register(failing("on_run_end"), "late")
    trainer.on("run_end")(lambda status: ended.append(status))
    with pytest.raises(ValueError, match="the real one"):
        trainer.fit(Broken(), loader)
    assert ended == ["failed"]
    messages = [r.getMessage() for r in caplog.records]
    assert any("plugin 'failing', on_exception: Failure: on purpose" in m for m in messages)
    assert any("plugin 'late', on_run_end: Failure: on purpose" in m for m in messages)


def test_an_error_of_the_task_carries_no_plugins_name(make_line, loader):
    class Broken(make_line):
        def training_step(self, batch, run):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        Trainer().fit(Broken(), loader)
    assert not hasattr(caught.value, "__notes__")


def test_a_plugin_may_come_and_go_in_the_middle_of_a_run(line, make_loader):
    seen = []

    class Late:
        @hookimpl
        def on_train_batch_end(self, run):
            seen.append(run.global_step)
            if run.global_step == 4:
                run.bus.unregister(self)

    trainer = Trainer()

    @trainer.on("train_batch_start")
    def bring(run):
        if run.batch_index == 1:
            run.bus.register(Late(), "late")

    trainer.fit(line, make_loader(6))
    assert seen == [2, 3, 4]
