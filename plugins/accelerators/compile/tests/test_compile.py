"""Compiled runs: the same results, the same state, and nothing left behind."""

import copy

import pytest
import torch
from torch import nn

from trainbus import Task, Trainer, hookimpl
from trainbus_compile import Compile


def weights(task):
    return torch.cat([value.flatten() for value in task.state_dict().values()])


def is_compiled(module):
    return module._compiled_call_impl is not None


class Watcher:
    """Notes whether a module is compiled in the first step."""

    def __init__(self, module):
        self.module = module

    @hookimpl(once=True)
    def on_train_batch_end(self):
        self.seen = is_compiled(self.module)


def fit(task, batches, *plugins, **options):
    trainer = Trainer(plugins=[*plugins, "-manifest"], **options)
    return trainer.fit(task, batches, batches[:1])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_weights_and_metrics_are_those_of_a_run_without_it(make_net, batches, accumulate):
    plain, compiled = make_net(), make_net()
    expected = fit(plain, batches, epochs=2, accumulate=accumulate).metrics
    found = fit(compiled, batches, Compile(backend="eager"), epochs=2, accumulate=accumulate)
    assert torch.equal(weights(plain), weights(compiled))
    assert {name: found.metrics[name] for name in expected} == expected


def test_traced_gradients_are_those_of_autograd(make_deep, make_net, batches):
    plain, compiled = make_net(make_deep()), make_net(make_deep())
    fit(plain, batches)
    fit(compiled, batches, Compile(backend="aot_eager", regions="auto"))
    torch.testing.assert_close(weights(plain), weights(compiled))


def test_a_modules_names_do_not_change_and_it_is_given_back(make_net, batches):
    task, names = make_net(), list(make_net().state_dict())
    watcher = Watcher(task.net)

    @hookimpl
    def on_fit_end(run):
        assert list(run.task.state_dict()) == names

    ends = type("Ends", (), {"on_fit_end": staticmethod(on_fit_end)})()
    run = fit(task, batches, Compile(backend="eager"), watcher, ends)
    assert (run.status, watcher.seen) == ("completed", True)
    assert "_compiled_call_impl" not in vars(task.net)
    assert list(task.state_dict()) == names


def test_it_is_given_back_when_the_run_fails(make_net, batches):
    task = make_net()

    class Fails:
        @hookimpl
        def on_after_optimizer_step(self):
            assert is_compiled(task.net)
            raise RuntimeError("no power")

    with pytest.raises(RuntimeError, match="no power") as caught:
        fit(task, batches, Compile(backend="eager"), Fails())
    assert not is_compiled(task.net)
    assert not any("torch.compile" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("compiled_first", [True, False])
def test_a_checkpoint_is_for_runs_with_and_without_it(make_net, batches, compiled_first):
    expected = make_net()
    fit(expected, batches, epochs=2)
    first, second = [[Compile(backend="eager")], []][:: 1 if compiled_first else -1]
    options = {"epochs": 2, "run_dir": "runs"}
    task = make_net()
    trainer = Trainer(plugins=["checkpoint", *first], **options)
    trainer.on("epoch_end", once=True)(lambda run: run.stop())
    trainer.fit(task, batches)
    task = make_net()
    run = Trainer(plugins=["checkpoint", *second], **options).fit(task, batches, resume="auto")
    assert (run.status, run.global_step) == ("completed", 8)
    assert torch.equal(weights(task), weights(expected))


def test_a_copy_of_a_compiled_module_is_plain(make_net, batches):
    """As an average of the weights makes one."""
    copies = []

    class Copies:
        @hookimpl(once=True)
        def on_train_batch_end(self, run):
            copies.append(copy.deepcopy(run.task))

    fit(make_net(), batches, Compile(backend="eager"), Copies())
    assert not is_compiled(copies[0].net)
    assert copies[0].net(torch.ones(1, 4)).shape == (1, 3)


def test_a_compiled_module_is_exported_as_it_is(make_net, make_deep, batches):
    names = []

    class Exports:
        @hookimpl
        def on_fit_end(self, run):
            exported = torch.export.export(run.task.net, (torch.ones(2, 4),))
            names.extend(exported.state_dict)

    fit(make_net(make_deep()), batches, Compile(backend="eager", regions="auto"), Exports())
    assert names == list(make_deep().state_dict())


def test_a_loop_by_hand(make_net, batches):
    def train(*plugins):
        model = make_net().net
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Trainer(plugins=[*plugins]).open(model, optimizer) as run:
            for inputs, target in run.batches(batches, epochs=2):
                run.step(nn.functional.cross_entropy(model(inputs), target))
        return run, weights(model)

    run, found = train(Compile(backend="eager"))
    assert run.metrics["compile/seconds"] > 0
    assert torch.equal(found, train()[1])


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_evaluation_is_compiled(make_net, batches, verb):
    model = make_net().net
    task = Task.supervised(model)
    run_header = {}

    class Header:
        @hookimpl(trylast=True)
        def on_run_end(self, run):
            run_header.update(run.header)

    def evaluate(*plugins):
        result = getattr(Trainer(plugins=[*plugins]), verb)(task, batches)
        return result if isinstance(result, dict) else torch.cat(list(result)).tolist()

    assert evaluate(Compile(backend="eager"), Header()) == evaluate()
    assert run_header["compile"].startswith("model by eager: 1 compiled in")


def test_the_runs_of_one_trainer_share_what_was_compiled(make_net, batches):
    task = make_net()
    trainer = Trainer(plugins=[Compile(backend="eager")])
    trainer.fit(task, batches, batches)
    frames = trainer.fit(task, batches, batches).header["compile"]
    assert frames.startswith("net by eager: 0 compiled")


def test_what_the_task_compiled_itself_is_left_to_it(make_net, batches):
    task = make_net()
    task.net.compile(backend="eager")
    before = task.net._compiled_call_impl
    run = fit(task, batches, Compile(backend="aot_eager"))
    assert task.net._compiled_call_impl is before
    assert "compiled by the task itself: net" in run.header["compile"]


def test_it_comes_after_precision_and_before_sharding(make_net, batches):
    seen = []

    class Amp:
        @hookimpl(wrapper=True)
        def configure_model(self, run):
            model = yield
            seen.append(("amp", is_compiled(run.task.net)))
            return model

    class Distributed:
        @hookimpl(wrapper=True)
        def configure_model(self, run):
            model = yield
            seen.append(("distributed", is_compiled(run.task.net)))
            return model

    plugins = [Amp(), Compile(backend="eager"), Distributed()]
    for order in (plugins, plugins[::-1]):
        seen.clear()
        fit(make_net(), batches, *order)
        assert seen == [("amp", False), ("distributed", True)]


def test_the_backend_is_that_of_the_accelerator(make_net, batches):
    from trainbus import Accelerator

    class Odd(Accelerator):
        name = "odd"

        def compile_backend(self):
            return "eager"

    run = Trainer(plugins=["compile"], accelerator=Odd()).fit(make_net(), batches)
    assert run.header["compile"].startswith("net by eager")


@pytest.mark.slow
def test_inductor_trains_to_the_same_weights(make_net, make_deep, batches):
    plain, compiled = make_net(make_deep()), make_net(make_deep())
    fit(plain, batches, epochs=2)
    run = fit(compiled, batches, "compile", epochs=2)
    assert run.header["compile"].startswith("net by inductor: ")
    torch.testing.assert_close(weights(plain), weights(compiled), rtol=1e-4, atol=1e-5)
