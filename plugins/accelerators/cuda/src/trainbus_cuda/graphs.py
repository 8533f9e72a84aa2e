"""Modules of a task as CUDA graphs: forward and backward are replayed, without Python."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from trainbus import UsageError, hookimpl

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from trainbus import Run

logger = logging.getLogger("trainbus")


class Call(NamedTuple):
    """What a module was called with: positional arguments, and whether autocast was on."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    autocast: torch.dtype | None


class Graphs:
    """Watch the first batch, capture the modules that it called, and replay them from then on.

    A child of the task is captured when the batch called it once, in training mode, with plain
    tensors on the GPU. Another shape, another mode, or a window of accumulated batches is computed
    as before. Where a module changed (thawed layers, for example), it is captured again with the
    next epoch.
    """

    def __init__(self) -> None:
        self._calls: dict[str, list[Call]] | None = None
        self._handles: list[RemovableHandle] = []
        #: What was captured, and how each was then.
        self._captured: dict[nn.Module, tuple[Any, ...]] = {}
        self._done = False

    @hookimpl
    def on_train_epoch_start(self) -> None:
        """Begin again if a module is no longer what it was."""
        if any(_traits(module) != traits for module, traits in self._captured.items()):
            self.undo()

    @hookimpl(trylast=True)
    def on_train_batch_start(self, run: Run) -> None:
        """Watch which modules are called, with what."""
        if self._done or self._calls is not None:
            return
        self._calls = {}
        for name, module in run.task.named_children():
            hook = _watcher(self._calls.setdefault(name, []))
            self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    @hookimpl(trylast=True)
    def on_train_batch_end(self, run: Run) -> None:
        """Capture what was called, now that the batch is done."""
        if self._calls is None:
            return
        calls = self._calls
        self._unwatch()
        if not run.stepped:
            return  # the batch was skipped: the next one is watched
        self._done = True
        for name, module in run.task.named_children():
            if not calls[name] or not any(x.requires_grad for x in module.parameters()):
                continue  # a metric, a loss, what is frozen
            if reason := why_not(module, calls[name], run):
                logger.warning("cuda, graphs: %s is computed as before: %s", name, reason)
            else:
                self._capture(run, name, module, calls[name][0])
        if not self._captured:
            logger.warning("cuda, graphs: no module of the task was captured")

    def _capture(self, run: Run, name: str, module: nn.Module, call: Call) -> None:
        # Warming up runs the module a few times: what that changes is put back.
        random_state = run.accelerator.random_state()
        buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
        eager = module.forward
        samples = tuple(x.detach().clone().requires_grad_(x.requires_grad) for x in call.arguments)
        autocast = torch.autocast(
            "cuda", call.autocast, enabled=call.autocast is not None, cache_enabled=False
        )
        try:
            with torch.enable_grad(), autocast:
                torch.cuda.make_graphed_callables(module, samples)
        except Exception as error:
            module.__dict__.pop("forward", None)
            raise UsageError(
                f"plugin 'cuda' (trainbus-cuda): graphs=True: {name} of {type(run.task).__name__} "
                f"cannot be captured: {error}; leave out graphs, or compile the model"
            ) from error
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            run.accelerator.set_random_state(random_state)
        module.forward = _by_shape(run, module.forward, eager, samples, call.autocast)
        self._captured[module] = _traits(module)

    def _unwatch(self) -> None:
        self._calls = None
        while self._handles:
            self._handles.pop().remove()

    def undo(self) -> None:
        """Give the modules their own `forward` back."""
        self._unwatch()
        for module in self._captured:
            module.__dict__.pop("forward", None)
        self._captured.clear()
        self._done = False


def _watcher(calls: list[Call]) -> Callable[..., None]:
    def watch(_module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        calls.append(Call(arguments, keywords, _autocast()))

    return watch


def _autocast() -> torch.dtype | None:
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None


def _traits(module: nn.Module) -> tuple[Any, ...]:
    """What a captured module may not change: what is trained, and what is in training mode."""
    trained = tuple(parameter.requires_grad for parameter in module.parameters())
    return trained, tuple(each.training for each in module.modules())


def why_not(module: nn.Module, calls: list[Call], run: Run) -> str | None:
    """Why a module cannot be captured, or None when it can."""
    if run.manual:
        return "the task steps by itself, perhaps with several backward passes"
    if len(calls) != 1:
        return f"a batch called it {len(calls)} times"
    call = calls[0]
    if call.keywords or not all(type(x) is Tensor for x in call.arguments):
        return "it was called with something else than tensors by position"
    if not all(x.device == run.device for x in call.arguments):
        return f"it was called with tensors that are not on {run.device}"
    if "forward" in module.__dict__ or hasattr(module, "_orig_mod"):
        return "its forward was replaced (compiled, for example)"
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
        return "it has hooks"
    if not module.training:
        return "it is not in training mode"
    return None


def same_shapes(arguments: tuple[Any, ...], samples: tuple[Tensor, ...]) -> bool:
    """Whether a call is of the shapes, types and gradients that were captured."""
    return len(arguments) == len(samples) and all(
        type(x) is Tensor
        and x.shape == sample.shape
        and x.dtype == sample.dtype
        and x.device == sample.device
        and x.requires_grad == sample.requires_grad
        for x, sample in zip(arguments, samples, strict=True)
    )


def _by_shape(
    run: Run,
    graphed: Callable[..., Any],
    eager: Callable[..., Any],
    samples: tuple[Tensor, ...],
    autocast: torch.dtype | None,
) -> Callable[..., Any]:
    """A forward that replays the graph where it fits, and computes as before where not."""

    def forward(*arguments: Any, **keywords: Any) -> Any:
        fits = (
            run.stage == "train"
            and run.window.size == 1
            and torch.is_grad_enabled()
            and not keywords
            and same_shapes(arguments, samples)
            and _autocast() == autocast
        )
        return graphed(*arguments) if fits else eager(*arguments, **keywords)

    return forward
