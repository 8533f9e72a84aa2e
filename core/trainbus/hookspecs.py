"""Every hook of trainbus, in firing order.

A hook receives the `Run` and nothing else, unless its declaration says so. Events notify, actions
do something and return it, records carry what was logged, contributions are asked once.
"""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus.events.markers import hookspec

if TYPE_CHECKING:
    import click
    import torch

    from trainbus.devices.accelerator import Accelerator
    from trainbus.devices.peers import Peers
    from trainbus.engine.run import Run
    from trainbus.records.artifacts import Artifact
    from trainbus.records.delivery import RunInfo

# --- contributions: asked once, at start-up ------------------------------------------------------


@hookspec(kind="contribution")
def register_hookspecs() -> object:
    """Return a class or module with `@hookspec` functions: hooks for other plugins to listen to."""


@hookspec(kind="contribution")
def register_commands(commands: click.Group) -> None:
    """Add verbs to the `trainbus` command: `commands.add_command(...)`."""


@hookspec(kind="contribution")
def provide_accelerator() -> Accelerator | None:
    """Return an accelerator that `Trainer(accelerator=...)` may choose by name or by priority."""


@hookspec(kind="contribution")
def provide_peers() -> Peers | None:
    """Return the processes that train together with this one, if there are any.

    Asked before a device is chosen, a checkpoint looked for or anything seeded.
    """


# --- the start of a run --------------------------------------------------------------------------


@hookspec(strict=True)
def on_run_start(run: Run) -> None:
    """The run begins; device, task and plugins are known, nothing is placed or built yet.

    Import an SDK, check credentials and add lines to `run.header` here: an error stops the run
    before its first step.
    """


@hookspec(kind="action", computes=True)
def configure_model(run: Run) -> torch.nn.Module:
    """Return the module to train, on its device. Wrap it to convert, compile or shard it."""


@hookspec(kind="action", computes=True)
def configure_optimizer(run: Run) -> Sequence[torch.optim.Optimizer]:
    """Return the optimizers. Default: those of `task.configure_optimizer()`."""


@hookspec(strict=True)
def on_fit_start(run: Run) -> None:
    """Training begins: model and optimizers are ready, the header is complete.

    The model was put into training mode; what a listener freezes here stays frozen.
    """


@hookspec(kind="action", answers=True)
def load_checkpoint(run: Run, path: Path) -> bool:
    """Read a checkpoint into the run; True when it is done."""


@hookspec
def on_checkpoint_loaded(run: Run, path: Path) -> None:
    """A checkpoint was read: model, optimizers, counters and plugins have its values."""


# --- an epoch and its training batches -----------------------------------------------------------


@hookspec(cadence="epoch")
def on_epoch_start(run: Run) -> None:
    """An epoch begins: its training pass and the validation that may follow."""


@hookspec(cadence="epoch")
def on_train_epoch_start(run: Run) -> None:
    """The pass over the training data begins."""


@hookspec(kind="action", computes=True)
def place_batch(run: Run) -> Any:
    """Return `run.batch` with its tensors on `run.device`."""


@hookspec(cadence="step", computes=True)
def on_train_batch_start(run: Run) -> None:
    """`run.batch` is on the device; a listener may replace it (augmentation of whole batches)."""


@hookspec(kind="action", computes=True)
def training_step(run: Run) -> Any:
    """Return the loss of `run.batch`. Default: `task.training_step(run.batch, run)`."""


@hookspec(cadence="step", computes=True)
def on_after_loss(run: Run) -> None:
    """`run.loss` is what is logged; `run.loss_to_backward`, differentiated, may be replaced."""


@hookspec(kind="action", computes=True, answers=True)
def backward(run: Run) -> bool:
    """Differentiate `run.loss_to_backward`; True when it is done."""


@hookspec(cadence="step", computes=True)
def on_after_backward(run: Run) -> None:
    """The gradients of this batch are there (scaled, if a scaler is at work)."""


@hookspec(cadence="step", computes=True)
def on_before_optimizer_step(run: Run) -> None:
    """Gradients are complete and unscaled: clip or inspect them, or raise `SkipStep`."""


@hookspec(kind="action", computes=True)
def optimizer_step(run: Run) -> bool:
    """Step `run.optimizer`; False when the step was skipped (an overflow, for example)."""


@hookspec(cadence="step_end")
def on_after_optimizer_step(run: Run) -> None:
    """The parameters have moved; `run.global_step` counts this step, gradients are still there."""


@hookspec(cadence="step_end", reaches_all=True)
def on_train_batch_end(run: Run) -> None:
    """The batch is done, also when it was skipped."""


@hookspec(reaches_all=True)
def on_savepoint(run: Run, after: str) -> None:
    """A state that is saved here resumes exactly: all who listen to what is over are done.

    `after` is what is over: "train_batch" (at the end of a window of accumulated batches),
    "validation", "epoch", or "train_epoch" in two cases: the validation that follows was not made
    since the run is stopping, or it is made only because the run ends here.
    """


@hookspec(cadence="epoch", reaches_all=True)
def on_train_epoch_end(run: Run) -> None:
    """The pass over the training data is over; its means are in `run.metrics`."""


# --- validation, inside fit or alone -------------------------------------------------------------


@hookspec(cadence="epoch")
def on_validation_start(run: Run) -> None:
    """A validation pass begins; the model is in evaluation mode, gradients are off."""


@hookspec(cadence="batch")
def on_validation_batch_start(run: Run) -> None:
    """`run.batch` is on the device."""


@hookspec(kind="action")
def validation_step(run: Run) -> Any:
    """Evaluate `run.batch`, in validation and in test. Default: the task's step of that name."""


@hookspec(cadence="batch", reaches_all=True)
def on_validation_batch_end(run: Run) -> None:
    """`run.output` is what the step returned."""


@hookspec(cadence="epoch", reaches_all=True)
def on_validation_end(run: Run) -> None:
    """The validation pass is over; its means are in `run.metrics` as `valid/...`."""


@hookspec(cadence="epoch", reaches_all=True)
def on_epoch_end(run: Run) -> None:
    """The epoch is over, validation included: the place to decide."""


@hookspec(reaches_all=True)
def on_fit_end(run: Run) -> None:
    """Training is over, early or not; the run is about to end."""


# --- test and prediction: the same shape ---------------------------------------------------------


@hookspec
def on_test_start(run: Run) -> None:
    """A test pass begins; the model is in evaluation mode, gradients are off."""


@hookspec(cadence="batch")
def on_test_batch_start(run: Run) -> None:
    """`run.batch` is on the device."""


@hookspec(cadence="batch", reaches_all=True)
def on_test_batch_end(run: Run) -> None:
    """`run.output` is what the step returned."""


@hookspec(reaches_all=True)
def on_test_end(run: Run) -> None:
    """The test pass is over; its means are in `run.metrics` as `test/...`."""


@hookspec
def on_predict_start(run: Run) -> None:
    """A stream of predictions begins; the model is in evaluation mode, gradients are off."""


@hookspec(cadence="batch")
def on_predict_batch_start(run: Run) -> None:
    """`run.batch` is on the device."""


@hookspec(kind="action")
def predict_step(run: Run) -> Any:
    """Return the predictions for `run.batch`. Default: `task.predict_step(run.batch, run)`."""


@hookspec(cadence="batch", reaches_all=True)
def on_predict_batch_end(run: Run) -> None:
    """`run.output` holds the predictions that the caller receives next."""


@hookspec(reaches_all=True)
def on_predict_end(run: Run) -> None:
    """The last prediction was handed out, or the caller wants no more."""


# --- records: what was logged --------------------------------------------------------------------
#
# A plugin that listens to `on_log_start` is a logger: its record hooks are called on a thread of
# its own, in the order of the journal, and again when a call failed; `run` is then a `RunInfo`.
# Those of other plugins are called at once, with the `Run`.


@hookspec(kind="record")
def on_log_start(run: RunInfo) -> None:
    """A logger begins: import the SDK, check credentials, begin or resume the remote run.

    Add its link to `run.header`, and what finds it again to `run.state`. Training waits for this;
    an error stops the run before its first step.
    """


@hookspec(kind="record")
def on_params(run: Run, params: Mapping[str, Any]) -> None:
    """Parameters that describe the run: plain values by name."""


@hookspec(kind="record")
def on_metrics(run: Run, step: int, metrics: Mapping[str, float], time: float) -> None:
    """Numbers logged at one optimizer step, fetched from the device, named `stage/name`.

    `time` is when they were logged, in seconds since the epoch.
    """


@hookspec(kind="record")
def on_artifact(run: Run, artifact: Artifact) -> None:
    """A file, figure, image, text, table or model was logged."""


@hookspec(kind="record")
def on_tags(run: Run, tags: Mapping[str, str]) -> None:
    """Short labels to find the run by."""


@hookspec(kind="record")
def on_log_return(run: RunInfo, step: int) -> None:
    """The run went back, and goes another way: what was logged for `step` and later is void."""


@hookspec(kind="record")
def on_log_flush(run: RunInfo) -> None:
    """What a logger was given since the last flush is to be safe when this returns.

    If it fails, all that is given once more: forget it in any case.
    """


@hookspec(kind="record")
def on_log_end(run: RunInfo, status: str) -> None:
    """A logger has all records: end the remote run with `status`, that of `on_run_end`."""


# --- checkpoints and the end ---------------------------------------------------------------------


@hookspec(kind="action", answers=True)
def save_checkpoint(run: Run, path: Path) -> bool:
    """Write the run's state to `path`; True when it is on the disk."""


@hookspec
def on_checkpoint_saved(run: Run, path: Path) -> None:
    """A checkpoint is complete at `path`."""


@hookspec(final=True)
def on_exception(run: Run, error: BaseException) -> None:
    """The run ends by `error`: any exception, Ctrl-C and SIGTERM included."""


@hookspec(final=True)
def on_run_end(run: Run, status: str) -> None:
    """The run is over: `completed`, `stopped`, `interrupted` or `failed`. Always fires."""


def declared() -> dict[str, Callable[..., Any]]:
    """The hooks of this module by name, in firing order."""
    return {
        name: member
        for name, member in globals().items()
        if hasattr(member, "trainbus_spec_options")
    }
