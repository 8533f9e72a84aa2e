"""Checks of trainbus on a GPU: `make test-gpu`.

Each prints its name, a verdict, numbers and seconds; a line of JSON ends the output, and the exit
code is 1 where one failed. It needs torch, trainbus and the plugins cuda, amp and compile, and no
network. `--device cpu` runs what the host can do, to try the script itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from trainbus import Loader, Task, Trainer
from trainbus.builtin import OOM, Checkpoint, Clip

CHECKS: list[Callable[[torch.device], Any]] = []
#: What only a GPU can show.
NEEDS_GPU: set[str] = set()


def check(function: Callable[[torch.device], Any]) -> Callable[[torch.device], Any]:
    """One of the checks, in the order of this file."""
    CHECKS.append(function)
    return function


def on_gpu(function: Callable[[torch.device], Any]) -> Callable[[torch.device], Any]:
    """A check that only a GPU can make."""
    NEEDS_GPU.add(function.__name__)
    return check(function)


class Net(Task):
    """A small network with normalization and dropout."""

    def __init__(self, dropout: float = 0.1, width: int = 64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(16, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(width, 4),
        )  # fmt: skip
        self.losses: list[Any] = []

    def training_step(self, batch: Any, run: Any) -> Any:
        loss = functional.cross_entropy(self.net(batch[0]), batch[1])
        run.log(loss=loss)
        self.losses.append(loss.detach())
        return loss

    def validation_step(self, batch: Any, run: Any) -> Any:
        run.log(loss=functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizer(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def samples(count: int = 256) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Samples of 16 numbers and a label."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 16, generator=generator)
    return list(zip(x, (x.sum(1) > 0).long(), strict=True))


def loader(size: int = 32, count: int = 256, **options: Any) -> Loader:
    """Batches in a new order in each epoch."""
    return Loader(samples(count), batch_size=size, shuffle=True, **options)


def plugin(**options: Any) -> list[Any]:
    """The plugin cuda, plain but for these options; on the CPU none."""
    if not torch.cuda.is_available():
        return []
    from trainbus_cuda import Cuda

    return [Cuda(**{"tf32": False, "prefetch": False, "fused": False, **options})]


def weights(task: Task) -> torch.Tensor:
    """All numbers of a task, on the host."""
    return torch.cat(
        [value.detach().double().flatten().cpu() for value in task.state_dict().values()]
    )


def fit(device: torch.device, task: Task | None = None, data: Any = None, **options: Any) -> Task:
    """Train a task on the device."""
    task = task or Net()
    trainer = Trainer(accelerator=device.type, seed=3, **{"epochs": 2, **options})
    trainer.fit(task, data if data is not None else loader())
    return task


@contextmanager
def directory() -> Any:
    """A directory of its own for runs."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def same(one: Task, other: Task, tolerance: float = 0.0) -> float:
    """The greatest difference; fails above the tolerance."""
    difference = float((weights(one) - weights(other)).abs().max())
    assert difference <= tolerance, f"weights differ by {difference:.3g}"
    return difference


# --- batches ------------------------------------------------------------------------------------


@check
def what_is_here(device: torch.device) -> dict[str, Any]:
    """The device, torch, and the types that it computes in."""
    from trainbus import Accelerator

    accelerator = Accelerator(device.type)
    if device.type == "cuda":
        from trainbus_cuda.device import CudaDevice

        accelerator = CudaDevice()
    names = sorted(str(each).removeprefix("torch.") for each in accelerator.dtypes())
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return {"torch": torch.__version__, "device": gpu, "types": ", ".join(names)}


@on_gpu
def side_stream_gives_the_same_bits(device: torch.device) -> float:
    """Copies on a stream of their own, with and without workers, pinned and not."""
    plain = fit(device, plugins=plugin())
    return max(
        same(plain, fit(device, data=loader(**options), plugins=plugin(prefetch=True)))
        for options in ({}, {"pin_memory": True}, {"num_workers": 2, "pin_memory": True})
    )


@on_gpu
def a_late_reader_sees_its_batch(device: torch.device) -> int:
    """Sums of batches that are read long after they were copied."""
    sums = []

    class Late(Net):
        def training_step(self, batch: Any, run: Any) -> Any:
            torch.cuda._sleep(20_000_000)
            sums.append(batch[0].sum())
            return super().training_step(batch, run)

    data = [(torch.full((32, 16), float(i)), torch.zeros(32, dtype=torch.long)) for i in range(64)]
    fit(device, Late(), data, epochs=1, plugins=plugin(prefetch=True))
    assert [float(each) for each in sums] == [i * 512.0 for i in range(64)]
    return len(sums)


@check
def odd_batches_arrive(device: torch.device) -> int:
    """Expanded, sliced, channels last, empty and without dimensions."""
    odd = [
        torch.ones(4, 1).expand(4, 3), torch.arange(100.0).reshape(10, 10)[:, ::5],
        torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last), torch.ones(0, 3),
        torch.tensor(1.0),
    ]  # fmt: skip
    model = nn.Identity()
    trainer = Trainer(accelerator=device.type, plugins=plugin(prefetch=True))
    found = list(trainer.predict(model, odd))
    assert all(torch.equal(a.cpu(), b) for a, b in zip(found, odd, strict=True))
    return len(found)


@on_gpu
def no_step_waits_for_the_device(device: torch.device) -> int:
    """Twenty steps in bf16 with clipping, an average and a schedule, between two fetches."""
    from trainbus.builtin import EMA, Schedule

    plugins = ["amp", Clip(1.0), EMA(), Schedule(name="warmup_cosine"), *plugin(prefetch=True)]
    trainer = Trainer(accelerator="cuda", precision="bf16", plugins=plugins, log_every=1000)
    trainer.on("train_batch_start")(
        lambda run: torch.cuda.set_sync_debug_mode("error" if run.batch_index > 2 else "default")
    )
    trainer.on("train_epoch_end", before=["ema"])(lambda: torch.cuda.set_sync_debug_mode("default"))
    try:
        run = trainer.fit(Net(), loader(pin_memory=True, count=736))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return run.global_step


# --- endings and resumes ------------------------------------------------------------------------


@check
def a_run_that_was_cut_short_ends_with_the_same_bits(device: torch.device) -> float:
    """Stopped inside an epoch and resumed, with dropout, and a checkpoint in the background."""
    alone = fit(device, epochs=3, plugins=plugin())
    with directory() as folder:
        task = Net()
        for limit in (11, None):
            keep = Checkpoint(every_steps=1, background=True)
            trainer = Trainer(
                accelerator=device.type, seed=3, epochs=3, max_steps=limit, run_dir=folder,
                plugins=[keep, *plugin()],
            )  # fmt: skip
            trainer.fit(task, loader(), resume="auto")
    return same(alone, task)


@on_gpu
def a_checkpoint_changes_its_device(device: torch.device) -> str:
    """From the GPU to the CPU and back."""
    with directory() as folder:
        task = Net()
        for step, kind in enumerate(("cuda", "cpu", "cuda"), 1):
            trainer = Trainer(
                accelerator=kind, epochs=step, run_dir=folder, plugins=[Checkpoint(), *plugin()]
            )
            run = trainer.fit(task, loader(), resume="auto")
    assert run.epoch == 3
    return "three epochs on three devices"


@check
def a_failure_leaves_nothing_behind(device: torch.device) -> float:
    """An error in a step; the next run works, and memory is what it was."""

    class Breaks(Net):
        def training_step(self, batch: Any, run: Any) -> Any:
            if run.batch_index == 3:
                raise RuntimeError("broken")
            return super().training_step(batch, run)

    fit(device)
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    try:
        fit(device, Breaks())
    except RuntimeError as error:
        assert "broken" in str(error)
    else:
        raise AssertionError("it did not fail")
    fit(device)
    after = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    assert after <= before + 2**20, f"{after - before} bytes more"
    return after - before


# --- optimizers and products --------------------------------------------------------------------


@check
def fused_is_unfused(device: torch.device) -> float:
    """AdamW, Adam and SGD, a hundred steps, up to rounding."""
    from trainbus_cuda.fusing import fuse

    greatest = 0.0
    for make in (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD):
        found = []
        for fused in (False, True):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(128, 2)).to(device)
            optimizer = make(model.parameters(), lr=1e-3, foreach=None)
            assert not fused or fuse(optimizer, device.type)
            generator = torch.Generator().manual_seed(2)
            for _ in range(100):
                x = torch.randn(8, 3, 4, 4, generator=generator).to(device)
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
            found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
        greatest = max(greatest, float((found[0] - found[1]).abs().max()))
    return greatest


@on_gpu
def tf32_is_on_and_off(device: torch.device) -> dict[str, float]:
    """The error of a product against float64."""
    from trainbus_cuda.settings import Settings

    a, b = (torch.randn(2048, 2048, device=device) for _ in range(2))
    exact, errors = a.double() @ b.double(), {}
    for tf32 in (True, False):
        settings = Settings(tf32, cudnn_benchmark=False)
        settings.apply()
        errors[f"tf32={tf32}"] = float(((a @ b).double() - exact).abs().max() / exact.abs().max())
        settings.put_back()
    assert errors["tf32=False"] < 1e-5 < errors["tf32=True"]
    return errors


# --- graphs -------------------------------------------------------------------------------------


@on_gpu
def graphs_are_eager(device: torch.device) -> float:
    """A hundred steps with a smaller last batch and validation between, without dropout."""
    data = loader(count=250)
    tasks = [
        fit(device, Net(dropout=0.0), data, epochs=13, plugins=plugin(graphs=graphs))
        for graphs in (False, True)
    ]
    return same(*tasks, tolerance=1e-5)


@on_gpu
def graphs_beside_a_thread_that_pins(device: torch.device) -> int:
    """Captures while a loader with workers pins batches of changing size."""
    for _ in range(20):
        data = loader(num_workers=2, pin_memory=True, count=250)
        fit(device, Net(dropout=0.0), data, epochs=1, plugins=plugin(graphs=True))
    return 20


@on_gpu
def graphs_and_their_traps(device: torch.device) -> float:
    """Two calls in a later batch, parts of a batch, outputs that are kept."""

    class Twice(Net):
        def training_step(self, batch: Any, run: Any) -> Any:
            loss = super().training_step(batch, run)
            return loss + self.net(-batch[0]).square().mean() if run.batch_index > 1 else loss

    def pair(make: Callable[[], Task], *more: Any) -> float:
        tasks = [
            fit(device, make(), plugins=[*more, *plugin(graphs=graphs)]) for graphs in (False, True)
        ]
        return same(*tasks, tolerance=1e-5)

    return max(pair(lambda: Twice(0.0)), pair(lambda: Net(0.0), OOM(parts=2)))


# --- precision ----------------------------------------------------------------------------------


@check
def precisions_learn(device: torch.device) -> dict[str, float]:
    """The loss falls in each precision that the device has."""
    found = {}
    for precision in ("bf16", "fp16", "bf16-true", "fp64"):
        if precision == "fp16" and device.type == "cpu":
            continue
        task = Net(0.0)
        fit(device, task, epochs=6, precision=precision, plugins=["amp", *plugin()])
        first, last = (float(sum(part)) / 8 for part in (task.losses[:8], task.losses[-8:]))
        assert last < first, f"{precision}: {first:.3f} to {last:.3f}"
        found[precision] = round(last / first, 3)
    return found


@check
def large_gradients_are_clipped(device: torch.device) -> float:
    """In float16, where the norm of all does not fit."""

    class Large(Task):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(10_000, dtype=torch.float16))

        def training_step(self, batch: Any, run: Any) -> Any:
            return (self.weight * 1000).sum()

        def configure_optimizer(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1.0)

    task = fit(device, Large(), [torch.zeros(1)], epochs=1, plugins=[Clip(1.0), *plugin()])
    value = float(weights(task).mean())
    assert abs(value + 0.01) < 0.001, value
    return value


@check
def compiled_is_eager(device: torch.device) -> float:
    """By `compile`, with validation and a smaller last batch."""
    data = loader(count=250)
    backend = {} if device.type == "cuda" else {"backend": "eager"}
    from trainbus_compile import Compile

    tasks = [
        fit(device, Net(0.0), data, plugins=[*([Compile(**backend)] if on else []), *plugin()])
        for on in (False, True)
    ]
    return same(*tasks, tolerance=1e-4)


# --- memory -------------------------------------------------------------------------------------


@on_gpu
def exhausted_memory_is_mended(device: torch.device) -> int:
    """A batch that does not fit is made in parts, with the gradient of the whole."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        wide = Net(0.0, width=2**16)
        data = [(torch.randn(2**14, 16), torch.zeros(2**14, dtype=torch.long))]
        fit(device, wide, data, epochs=1, plugins=[OOM(), *plugin()])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return torch.cuda.max_memory_allocated()


@on_gpu
def many_runs_do_not_grow(device: torch.device) -> int:
    """Twenty runs in one process."""
    fit(device, plugins=plugin(prefetch=True, fused=True))
    before = torch.cuda.memory_allocated()
    for _ in range(20):
        fit(device, epochs=1, plugins=plugin(prefetch=True, fused=True))
    grown = torch.cuda.memory_allocated() - before
    assert grown <= 2**20, f"{grown} bytes more"
    return grown


def main() -> int:
    """Run all; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    device = torch.device(parser.parse_args().device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("skipped: torch finds no GPU here (--device cpu tries the script itself)")
        return 0
    results = []
    with directory() as folder, torch.random.fork_rng():
        os.chdir(folder)
        for each in CHECKS:
            started, verdict, said = perf_counter(), "ok", ""
            try:
                if device.type == "cpu" and each.__name__ in NEEDS_GPU:
                    verdict = "needs a GPU"
                else:
                    said = str(each(device))
            except Exception as error:
                verdict, said = "FAILED", f"{type(error).__name__}: {error}"[:300]
            seconds = perf_counter() - started
            print(f"{each.__name__:50} {verdict:12} {seconds:6.1f} s  {said}", flush=True)
            name, seconds = each.__name__, round(seconds, 1)
            results.append({"name": name, "verdict": verdict, "seconds": seconds, "said": said})
        os.chdir("/")
    print(json.dumps(results))
    return int(any(each["verdict"] == "FAILED" for each in results))


if __name__ == "__main__":
    sys.exit(main())
