"""Modules of a task as CUDA graphs: forward and backward are replayed, without Python."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from trainbus import hookimpl

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
        #: Batches that were begun.
        self.batch = 0

    @hookimpl(trylast=True)
    def on_train_batch_start(self, run: Run) -> None:
        """Begin again if a module is no longer what it was; watch which are called, with what."""
        self.batch += 1
        if any(_traits(module) != traits for module, traits in self._captured.items()):
            self.undo()
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
                make = torch.cuda.make_graphed_callables
                make(module, samples, allow_unused_input=True, **_beside_other_threads(make))
        except Exception as error:
            module.__dict__.pop("forward", None)
            with suppress(Exception):  # of the capture that failed
                torch.cuda.synchronize()
            logger.warning(
                "cuda, graphs: %s is computed as before: it cannot be captured: %s", name, error
            )
            return
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            run.accelerator.set_random_state(random_state)
        graphed = module.forward
        module.forward = Replay(self, run, graphed, eager, samples, call.autocast)
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
    if any(map(_is_replaced, module.modules())):
        return "its forward was replaced, or that of a part of it (compiled, for example)"
    if any(map(_has_hooks, module.modules())):
        return "it has hooks, or a part of it has, which would run at the capture alone"
    if not module.training:
        return "it is not in training mode"
    return None


def _is_replaced(module: nn.Module) -> bool:
    compiled = getattr(module, "_compiled_call_impl", None) is not None
    return compiled or "forward" in module.__dict__ or hasattr(module, "_orig_mod")


def _has_hooks(module: nn.Module) -> bool:
    return any(
        getattr(module, name, None)
        for name in (
            "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
        )
    )  # fmt: skip


def _beside_other_threads(make: Callable[..., Any]) -> dict[str, Any]:
    """What lets a loader's thread pin memory during a capture, where this torch has it."""
    known = "capture_error_mode" in inspect.signature(make).parameters
    return {"capture_error_mode": "thread_local"} if known else {}


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


class Replay:
    """A forward that replays the graph where it fits, once in a batch, and is as before where not.

    What a graph gives lies in memory that its next replay writes to: so a second call in a batch is
    computed as before, and outputs are copies, which a metric may keep.
    """

    def __init__(
        self,
        graphs: Graphs,
        run: Run,
        graphed: Callable[..., Any],
        eager: Callable[..., Any],
        samples: tuple[Tensor, ...],
        autocast: torch.dtype | None,
    ) -> None:
        self._graphs = graphs
        self._run = run
        self._graphed = graphed
        self._eager = eager
        self._samples = samples
        self._autocast = autocast
        self._traits = _traits(self._module)
        #: The batch in which it was replayed last.
        self._batch = -1

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """What the module gives."""
        run, batch = self._run, self._graphs.batch
        fits = (
            batch != self._batch
            and run.stage == "train"
            and run.window.size == 1
            and torch.is_grad_enabled()
            and not keywords
            and same_shapes(arguments, self._samples)
            and _traits(self._module) == self._traits
            and _autocast() == self._autocast
        )
        if not fits:
            return self._eager(*arguments, **keywords)
        self._batch = batch
        return _copied(self._graphed(*arguments))

    def __reduce__(self) -> Any:
        """A copy in another process has no graph: it computes as before."""
        return _own_forward, (self._module,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _own_forward(memo.get(id(self._module), self._module))

    @property
    def _module(self) -> Any:
        return self._eager.__self__  # type: ignore[attr-defined]


def _own_forward(module: Any) -> Any:
    return type(module).forward.__get__(module)


def _copied(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.clone()
    return type(output)(map(_copied, output)) if isinstance(output, (tuple, list)) else output
