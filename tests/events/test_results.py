"""What listeners return: who is told of a value that nobody takes, or that is missing."""

from types import SimpleNamespace

import pytest

from trainbus import Bus, PluginError, Trainer, hookimpl

ORIGIN = "trainbus-foo 0.1"


def bus_with(name="foo", **listeners):
    bus = Bus()
    bus.register(SimpleNamespace(**listeners), name, ORIGIN)
    return bus


def refusal(call, *arguments):
    with pytest.raises(PluginError) as caught:
        call(*arguments)
    assert "plugin 'foo' (trainbus-foo 0.1)" in str(caught.value)
    return str(caught.value)


# --- a value from an event -----------------------------------------------------------------------


@hookimpl
def returns_a_batch(run):
    return [run]


@hookimpl
def returns_now_and_then(run):
    return run if run == "odd" else None


def test_a_value_from_an_event_names_plugin_hook_and_what_to_do():
    bus = bus_with(on_train_batch_start=returns_a_batch)
    message = refusal(bus.on_train_batch_start, "run")
    assert "on_train_batch_start: it returned a value of the type list" in message
    assert "`run.batch = ...`" in message
    assert message.endswith("return nothing")


def test_a_listener_that_may_return_a_value_is_asked_at_each_call():
    bus = bus_with(on_epoch_end=returns_now_and_then)
    bus.on_epoch_end("even")
    assert "type str" in refusal(bus.on_epoch_end, "odd")


def test_an_observer_that_returns_a_value_is_set_aside():
    bus = bus_with(on_epoch_end=returns_a_batch, observer=True)
    bus.on_epoch_end("run")
    assert "it returned a value" in bus.errors[0]
    assert bus.on_epoch_end is None


def test_a_wrapper_of_an_event_that_returns_a_value_is_named():
    @hookimpl(wrapper=True)
    def on_epoch_end(run):
        yield
        return 5

    assert "type int" in refusal(bus_with(on_epoch_end=on_epoch_end).on_epoch_end, "run")


def test_the_value_of_a_lambda_is_nobodys_word():
    assert bus_with(on_epoch_end=hookimpl(lambda: 5)).on_epoch_end("run") is None


def test_a_listener_that_returns_the_none_of_another_call_is_in_order():
    seen = []

    @hookimpl
    def on_epoch_end(run):
        return seen.append(run)

    bus_with(on_epoch_end=on_epoch_end).on_epoch_end("run")
    assert seen == ["run"]


@pytest.mark.parametrize("hook", ["on_params", "on_metrics"])
def test_what_a_record_hook_returns_does_not_matter(hook):
    bus = bus_with(**{hook: hookimpl(lambda: 5)})
    getattr(bus, hook)(*bus.hooks[hook].arguments)
    assert bus.errors == []


# --- a wrapper that lets the result go -----------------------------------------------------------


@hookimpl(wrapper=True)
def forgets(run):
    yield


@pytest.mark.parametrize("in_halves", [False, True])
def test_a_wrapper_that_forgets_the_result_is_named_with_what_to_write(in_halves):
    bus = bus_with(training_step=forgets)
    bus.register(SimpleNamespace(training_step=hookimpl(lambda: 5)), "step")
    call = bus.training_step
    if in_halves:
        opened = bus.open("training_step", "run")
        call = lambda run: bus.close("training_step", opened, 5)  # noqa: E731
    message = refusal(call, "run")
    assert "training_step: this wrapper returned nothing where the others gave a value" in message
    assert "`result = yield`, then `return result`" in message


def test_the_wrapper_outside_one_that_forgets_sees_the_error_and_is_not_blamed():
    seen = []

    @hookimpl(wrapper=True)
    def outer(run):
        try:
            return (yield)
        except PluginError as error:
            seen.append(error)
            raise

    bus = Bus()
    bus.register(SimpleNamespace(training_step=outer), "outer")
    bus.register(SimpleNamespace(training_step=forgets), "foo", ORIGIN)
    bus.register(SimpleNamespace(training_step=hookimpl(lambda: 5)), "step")
    message = refusal(bus.training_step, "run")
    assert "'outer'" not in message
    assert len(seen) == 1


def test_a_wrapper_may_return_nothing_where_there_is_nothing():
    bus = bus_with(validation_step=forgets)
    bus.register(SimpleNamespace(validation_step=hookimpl(lambda: None)), "step")
    assert bus.validation_step("run") is None


def test_a_wrapper_of_the_task_is_not_the_tasks_mistake(line, loader):
    plugin = SimpleNamespace(training_step=forgets, plugin_name="foo")
    with pytest.raises(PluginError, match="plugin 'foo', training_step"):
        Trainer(plugins=[plugin]).fit(line, loader)


# --- an action that does not say that it is done -------------------------------------------------


@pytest.mark.parametrize("hook", ["backward", "save_checkpoint", "load_checkpoint"])
def test_a_listener_that_never_says_that_it_is_done_is_refused(hook):
    @hookimpl(specname=hook)
    def forgets(run):
        run.done()

    message = refusal(lambda: bus_with(forgets=forgets))
    assert f"{hook} would be done once more" in message
    assert "return True when it is done" in message


def test_a_listener_that_says_it_in_one_case_is_taken():
    @hookimpl
    def backward(run):
        if run == "mine":
            return True
        return None

    assert bus_with(backward=backward).backward("mine") is True


def test_a_listener_that_vetoes_an_action_needs_no_result():
    @hookimpl
    def backward(run):
        if run == "bad":
            raise LookupError

    assert bus_with(backward=backward).backward("good") is None


def test_an_action_that_may_be_left_to_the_next_needs_no_result():
    seen = []

    @hookimpl
    def training_step(run):
        seen.append(run)

    bus = bus_with(training_step=training_step)
    bus.register(SimpleNamespace(training_step=hookimpl(lambda: 5)), "step")
    assert bus.training_step("run") == 5
    assert seen == ["run"]
