"""What cannot work, and what the message says."""

from importlib.util import find_spec

import pytest
import torch

from trainbus import Accelerator, PluginError, Trainer, UsageError
from trainbus_amp import AMP


class Narrow(Accelerator):
    """A CPU that computes in float32 and bfloat16 only."""

    name = "narrow"

    def dtypes(self):
        return frozenset({torch.float32, torch.bfloat16})


class Eight(Accelerator):
    """A CPU that says it has float8."""

    def dtypes(self):
        return super().dtypes() | {torch.float8_e4m3fn}


def test_an_unknown_precision_names_those_there_are(trainer, task, batches):
    """And the nearest one."""
    with pytest.raises(UsageError, match=r"'bf-16' is not known; did you mean 'bf16'\?.*fp16-true"):
        trainer("bf-16").fit(task, batches)
    with pytest.raises(PluginError, match=r"did you mean 'fp64'\?"):
        AMP(precision="fp6")


def test_a_type_that_the_device_lacks(trainer, task, batches):
    """The message names the types that it has, and the precisions that they make."""
    with pytest.raises(UsageError) as error:
        trainer("fp16", accelerator=Narrow()).fit(task, batches)
    text = str(error.value)
    assert "'narrow' computes in bfloat16, float32" in text
    assert text.endswith("usable here: bf16, bf16-true, fp32")


def test_trainer_and_option_that_contradict_each_other(trainer, task, batches):
    """Neither is silently the stronger."""
    with pytest.raises(UsageError, match="say one of them"):
        trainer("bf16", amp=AMP(precision="fp16")).fit(task, batches)


def test_two_precision_plugins(task, batches):
    """The message names both."""
    from trainbus import hookimpl

    class Other:
        @hookimpl
        def on_run_start(self, run):
            run.claim("precision", "other")

    with pytest.raises(UsageError, match="'amp' and 'other'"):
        Trainer(plugins=["amp", Other()]).fit(task, batches)


def test_weights_in_float16_under_a_scaler(trainer, task, batches):
    """Their gradients cannot be unscaled; the message says so before the first step."""
    with pytest.raises(UsageError, match="fp16-true"):
        trainer("fp16").fit(task.half(), batches)


def test_fp8_where_the_device_has_none(trainer, task, batches):
    """The CPU says so."""
    with pytest.raises(UsageError, match="needs float8_e4m3fn"):
        trainer("fp8").fit(task, batches)


@pytest.mark.skipif(find_spec("torchao") is not None, reason="torchao is installed")
def test_fp8_without_torchao(trainer, task, batches):
    """The message has the pip line."""
    with pytest.raises(PluginError, match="pip install 'torchao"):
        trainer("fp8", accelerator=Eight()).fit(task, batches)


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_fp8_replaces_linear_layers_and_puts_them_back(trainer, batches):
    """In a run they are torchao's; afterwards they are the model's own, trained."""
    from trainbus import Task

    net = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16))
    layer, before = net[0], net[0].weight.detach().clone()
    runner = trainer("fp8", accelerator=Eight())
    kinds = []
    runner.on("train_batch_end")(lambda run: kinds.append(type(net[0]).__name__))
    data = [(torch.randn(16, 16), torch.randint(16, (16,)))] * 3
    runner.fit(Task.supervised(net), data)
    assert kinds == ["Float8Linear"] * 3
    assert net[0] is layer
    assert not torch.equal(layer.weight, before)


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_fp8_for_a_model_without_a_fitting_layer(trainer, task, batches):
    """8 and 3 are no multiples of 16."""
    with pytest.raises(UsageError, match="multiples of 16"):
        trainer("fp8", accelerator=Eight()).fit(task, batches)
