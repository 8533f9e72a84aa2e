"""torch.compile: the modules of a task or their repeated blocks, compiled in place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from types import MethodType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from trainbus import PluginError, UsageError, hookimpl
from trainbus.arguments import check_whole
from trainbus.errors import nearest
from trainbus_compile.regions import Regions, find
from trainbus_compile.watch import Watch

if TYPE_CHECKING:
    from torch import nn

    from trainbus import Run

__all__ = ["Compile"]

logger = logging.getLogger("trainbus")

_WHO = "plugin 'compile' (trainbus-compile)"
#: Modes of inductor that replay graphs, and the plugin that tells them where steps begin.
_GRAPH_MODES = ("reduce-overhead", "max-autotune")
_GRAPH_STEPS = "compile_graph_steps"
#: Where an exception of the compiler comes from.
_COMPILER = ("torch._dynamo", "torch._inductor", "torch._functorch", "torch.fx.experimental")


class GraphSteps:
    """Says where a step begins: what the graphs of the one before gave may be written over."""

    @hookimpl(tryfirst=True)
    def on_train_batch_start(self) -> None:
        """Begin a step."""
        import torch

        torch.compiler.cudagraph_mark_step_begin()

    on_validation_batch_start = on_test_batch_start = on_train_batch_start

    @hookimpl(wrapper=True)
    def predict_step(self) -> Generator[None, Any, Any]:
        """Begin a step, and let the consumer keep what it gives."""
        import torch

        from trainbus.batches import rebuilt

        torch.compiler.cudagraph_mark_step_begin()
        output = yield
        return rebuilt(output, lambda value: value.clone() if type(value) is torch.Tensor else None)


class Compile:
    """Compiles modules of the task with `torch.compile`, in place, while a run lasts.

    The modules stay what they are: names in `state_dict`, checkpoints and exports do not change.

    Args:
        regions: what is compiled: by default each module with parameters that is an attribute of
            the task; "auto" for repeated blocks, which share one compiled code; or names of
            modules, in which `*` stands for anything.
        mode: a mode of inductor: "reduce-overhead", "max-autotune", ...
        backend: a backend of `torch.compile`; by default that of the accelerator.
        dynamic: True to compile for all shapes from the start, False to compile for each shape
            that comes; by default for all shapes once a second one has come.
        fullgraph: fail where a module cannot be captured as one graph.
        options: options of the backend by name; not together with `mode`.
        warn_after: recompilations of one region after which there is a warning.
    """

    def __init__(
        self,
        regions: str | list[str] | None = None,
        mode: str | None = None,
        backend: str | None = None,
        dynamic: bool | None = None,
        fullgraph: bool = False,
        options: dict[str, Any] | None = None,
        warn_after: int = 4,
    ) -> None:
        if mode is not None and options is not None:
            raise PluginError(f"{_WHO}: mode and options exclude each other; leave one out")
        check_whole(0, warn_after=warn_after)
        if regions is not None and not regions:
            raise PluginError(f"{_WHO}: regions={regions!r}: give names, or leave the option out")
        self.regions = regions
        self.mode = mode
        self.backend = backend
        self.dynamic = dynamic
        self.fullgraph = fullgraph
        self.options = options
        self.warn_after = warn_after
        self._watch: Watch | None = None
        #: Compiled functions, by the first module they are for.
        self._calls: WeakKeyDictionary[nn.Module, dict[tuple[str, str], Callable[..., Any]]]
        self._calls = WeakKeyDictionary()
        self._compiled: list[nn.Module] = []
        #: Regions of which no module was called yet.
        self._waiting: set[str] = set()
        self._logged: dict[str, float] = {}
        self._header = ""

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Check what was asked for, and begin to count."""
        run.claim("compile", run.bus.name_of(self))
        self._check(self._backend(run))
        self._begin_graphs(run)
        self._waiting, self._logged = set(), {}
        self._watch = Watch(__file__, self.warn_after)
        self._watch.start()

    def _begin_graphs(self, run: Run) -> None:
        """Tell inductor where steps begin, if it replays graphs; refuse what they cannot do."""
        asked = self.options or {}
        graphs = self.mode in _GRAPH_MODES or asked.get("triton.cudagraphs")
        if not graphs or run.device.type == "cpu":
            return
        if run.accumulate > 1:
            raise UsageError(
                f"{_WHO}: mode={self.mode!r} replays graphs, whose gradients the next batch writes "
                f"over, so those of {run.accumulate} batches cannot be gathered; leave out the "
                "mode, or Trainer(accumulate=...)"
            )
        run.bus.register(GraphSteps(), _GRAPH_STEPS, _WHO)

    def _backend(self, run: Run) -> str:
        return self.backend or run.accelerator.compile_backend()

    def _check(self, backend: str) -> None:
        import torch

        backends = torch.compiler.list_backends(exclude_tags=None)
        if backend not in backends:
            usual = ", ".join(torch.compiler.list_backends())
            raise PluginError(
                f"{_WHO}: there is no backend {backend!r}{nearest(backend, backends)} There are "
                f"{usual}, and for debugging eager and aot_eager"
            )
        if backend != "inductor":
            return
        from torch import _inductor

        modes, options = _inductor.list_mode_options(), _inductor.list_options()
        if self.mode is not None and self.mode not in modes:
            raise PluginError(
                f"{_WHO}: there is no mode {self.mode!r}{nearest(self.mode, modes)} "
                f"There are {', '.join(modes)}"
            )
        for name in self.options or ():
            if name.replace("-", "_") not in options:
                raise PluginError(
                    f"{_WHO}: inductor has no option {name!r}{nearest(name, options)} "
                    "torch._inductor.list_options() has all"
                )

    # What was converted is compiled, and what was compiled is sharded: a wrapper that comes
    # earlier works on the model later.
    @hookimpl(wrapper=True, before=["amp"], after=["distributed"])
    def configure_model(self, run: Run) -> Generator[None, nn.Module, nn.Module]:
        """Let the modules be compiled when they are first called."""
        model = yield
        from torch._dynamo import OptimizedModule

        backend, regions, own = self._backend(run), find(model, self.regions), []
        for name, modules in regions.items():
            call = self._call(name, modules[0], backend)
            for module in modules:
                # Those that the task has compiled itself are left as they are.
                if module._compiled_call_impl is None and not isinstance(module, OptimizedModule):
                    self._install(name, module, call)
                else:
                    own.append(name)
        self._header = _described(regions, backend, self.mode)
        if own:
            self._header += f"; compiled by the task itself: {', '.join(dict.fromkeys(own))}"
        run.header["compile"] = self._header
        return model

    def _call(self, name: str, module: nn.Module, backend: str) -> Callable[..., Any]:
        """A compiled function that calls modules like this one; in later runs, the same one.

        torch keeps what it compiled with the code of the function. So modules that are called by
        one function share it, and others do not count towards its limit of recompilations.
        """
        import torch

        kept = self._calls.setdefault(module, {})
        if (name, backend) in kept:
            return kept[name, backend]

        def call(module: Any, *inputs: Any, **named: Any) -> Any:
            return module._call_impl(*inputs, **named)

        call.__code__ = call.__code__.replace(co_name=name)
        kept[name, backend] = compiled = torch.compile(
            call,
            mode=self.mode,
            backend=backend,
            dynamic=self.dynamic,
            fullgraph=self.fullgraph,
            options=self.options,
        )
        return compiled

    def _install(self, name: str, module: nn.Module, call: Callable[..., Any]) -> None:
        """What `module.compile()` does, with a shared function."""
        compiled = MethodType(call, module)

        def first(*inputs: Any, **named: Any) -> Any:
            self._waiting.discard(name)
            module._compiled_call_impl = compiled
            return compiled(*inputs, **named)

        self._waiting.add(name)
        self._compiled.append(module)
        module._compiled_call_impl = first

    @hookimpl
    def on_train_epoch_end(self, run: Run) -> None:
        """Log what was compiled, if something was; say which modules were never called."""
        if self._watch is None:
            return
        self._watch.read()
        counted = self._watch.metrics()
        if counted != self._logged:
            self._logged = counted
            run.log(counted)
        if self._waiting and run.first_time("compile: never called"):
            logger.warning(
                "%s: nothing is compiled of %s, which was not called in the first pass over the "
                "training data; only calls of the module itself are compiled, and not its other "
                "methods. The option regions names what is to be compiled ('.' is the task's own "
                "forward)",
                _WHO,
                ", ".join(sorted(self._waiting)),
            )

    @hookimpl
    def on_exception(self, error: BaseException) -> None:
        """Say who compiled, if it is the compiler that failed."""
        if self._compiled and _of_compiler(error):
            error.add_note(
                f"raised by torch.compile, which {_WHO} has switched on. Leave it out ('-compile') "
                "or try its option backend='eager', which only traces: an error that stays with "
                "'-compile' is the model's; its option regions can leave out a module"
            )

    @hookimpl
    def on_run_end(self, run: Run) -> None:
        """Give the modules back as they were, and sum up."""
        if _GRAPH_STEPS in run.bus.plugins:
            run.bus.unregister(_GRAPH_STEPS)
        compiled, self._compiled = self._compiled, []
        for module in compiled:
            vars(module).pop("_compiled_call_impl", None)
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()
            if compiled:
                run.header["compile"] = f"{self._header}: {watch.summary()}"
                logger.info("compile: %s", watch.summary())


def _described(regions: Regions, backend: str, mode: str | None) -> str:
    """`net.blocks (12 modules), head by inductor, mode max-autotune`."""
    names = [
        name if len(modules) == 1 else f"{name} ({len(modules)} modules)"
        for name, modules in regions.items()
    ]
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
    return f"{listed} by {backend}" + (f", mode {mode}" if mode else "")


def _of_compiler(error: BaseException | None) -> bool:
    while error is not None:
        if any(kind.__module__.startswith(_COMPILER) for kind in type(error).__mro__):
            return True
        error = error.__cause__
    return False
