"""MNIST: accuracy, time and memory of one epoch, and the speed of the data path alone.

    python benchmarks/mnist.py [--data DIR] [--peers] [--samples N] [--threads N]

The data are the four original files, in DIR or DIR/mnist; without --data those of the environment
variable TRAINBUS_DATA. What is measured, and how, is told in README.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

NETWORKS = ("resnet18", "small_cnn")
BATCH, LR = 64, 3e-3
#: Accuracy to reach, and seconds on two cores that it may take.
TARGETS = {"resnet18": (0.99, 300), "small_cnn": (0.98, 40)}
#: How many times the samples per second of the fastest peer.
DATA_TARGET = 20
WORKERS = 2


# --- what one process measures -------------------------------------------------------------------


def trainbus_train(arch: str, data_dir: Path, samples: int | None) -> dict[str, Any]:
    """The five lines of the README, on all data or the first samples."""
    from trainbus_vision import ImageLearner

    begun = perf_counter()
    data = memory(data_dir, samples)
    learner = ImageLearner(data, arch=arch, plugins=["-progress"])
    return fitted(begun, lambda: learner.fine_tune(1), lambda: learner.validate()["accuracy"])


def fastai_train(arch: str, data_dir: Path, samples: int | None) -> dict[str, Any]:
    """The same network, epochs, batch size and highest learning rate in fastai."""
    import fastai.callback.progress
    import fastai.callback.schedule  # noqa: F401  # these two give the learner its methods
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat
    from fastai.metrics import accuracy

    begun = perf_counter()
    learner = Learner(
        fastai_loaders(data_dir, samples),
        network(arch, data_dir),
        loss_func=CrossEntropyLossFlat(),
        metrics=accuracy,
    )
    with learner.no_bar(), learner.no_logging():
        return fitted(
            begun,
            lambda: learner.fit_one_cycle(1, lr_max=LR),
            lambda: float(learner.validate()[1]),
        )


def lightning_train(arch: str, data_dir: Path, samples: int | None) -> dict[str, Any]:
    """The same network, epochs, batch size and highest learning rate in Lightning.

    AdamW and one cycle, as a user would write them: biases and norms have weight decay, too.
    """
    import lightning
    import torch
    from torch.nn import functional

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    class Module(lightning.LightningModule):
        def __init__(self, net: torch.nn.Module, steps: int) -> None:
            super().__init__()
            self.net, self.steps = net, steps

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, _: int) -> None:
            right = (self.net(batch[0]).argmax(1) == batch[1]).float().mean()
            self.log("accuracy", right, batch_size=len(batch[1]))

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(
                self.parameters(), LR, betas=(0.9, 0.99), eps=1e-5, fused=True
            )
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, LR, self.steps, pct_start=0.25
            )
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    begun = perf_counter()
    train = torchvision_loader(data_dir, samples, True, WORKERS)
    valid = torchvision_loader(data_dir, samples, False, WORKERS)
    module = Module(network(arch, data_dir), len(train))
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    return fitted(
        begun,
        lambda: trainer.fit(module, train, valid),
        lambda: float(trainer.callback_metrics["accuracy"]),
    )


def fitted(begun: float, fit: Callable[[], Any], accuracy: Callable[[], float]) -> dict[str, Any]:
    """Train, and tell the time from `begun` (before the data are read) to the end of it."""
    fit()
    seconds = perf_counter() - begun
    return {
        "seconds": seconds,
        "cpu": process_time(),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "workers": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        "accuracy": accuracy(),
    }


def network(arch: str, data_dir: Path) -> Any:
    """The network that `ImageLearner` makes, its normalization included."""
    from trainbus_vision import ImageLearner

    return ImageLearner(memory(data_dir, 1000), arch=arch).model


# --- data ----------------------------------------------------------------------------------------


def memory(data_dir: Path, samples: int | None) -> Any:
    """Data of trainbus; the first samples, and a fifth as many to validate."""
    from trainbus_vision import mnist

    data = mnist(data_dir, batch_size=BATCH)
    if samples is None:
        return data
    train = [part[:samples] for part in data.train_items.parts]
    valid = [part[: max(samples // 5, 1)] for part in data.valid_items.parts]
    return type(data).from_tensors(train, valid, blocks=data.blocks, batch_size=BATCH)


def torchvision_loader(data_dir: Path, samples: int | None, train: bool, workers: int) -> Any:
    """torch's DataLoader with torchvision's MNIST and its ToTensor."""
    import torch
    from torchvision import datasets, transforms

    dataset: Any = datasets.MNIST(torchvision_root(data_dir), train, transforms.ToTensor())
    if samples is not None:
        count = samples if train else max(samples // 5, 1)
        dataset = torch.utils.data.Subset(dataset, range(count))
    return torch.utils.data.DataLoader(dataset, BATCH, shuffle=train, num_workers=workers)


def torchvision_root(data_dir: Path) -> Path:
    """A folder as torchvision has it, with the files unpacked."""
    root = Path(os.environ["MNIST_ROOT"])
    raw = root / "MNIST" / "raw"
    if not raw.is_dir():
        raw.mkdir(parents=True)
        folder = (
            data_dir if (data_dir / "t10k-labels-idx1-ubyte.gz").exists() else data_dir / "mnist"
        )
        for path in folder.glob("*-ubyte.gz"):
            (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    return root


def fastai_loaders(data_dir: Path, samples: int | None) -> Any:
    """fastai's blocks on the same arrays, as its documentation has it for images in memory."""
    from fastai.data.block import CategoryBlock, DataBlock
    from fastai.data.transforms import ItemGetter, MaskSplitter
    from fastai.vision.core import PILImageBW
    from fastai.vision.data import ImageBlock

    data = memory(data_dir, samples)
    items, is_valid = [], []
    for store, valid in ((data.train_items, False), (data.valid_items, True)):
        images, labels = store.parts
        items += [
            (image.numpy(), int(label)) for image, label in zip(images[:, 0], labels, strict=True)
        ]
        is_valid += [valid] * len(labels)
    block = DataBlock(
        blocks=(ImageBlock(PILImageBW), CategoryBlock),
        getters=[ItemGetter(0), ItemGetter(1)],
        splitter=MaskSplitter(is_valid),
    )
    return block.dataloaders(items, bs=BATCH, num_workers=WORKERS)


def data_path(loader: str, data_dir: Path, samples: int | None) -> dict[str, Any]:
    """Samples per second of passes over the training data that nobody trains on."""
    made: Any
    if loader == "trainbus":
        made = memory(data_dir, samples).train
    elif loader == "fastai":
        made = fastai_loaders(data_dir, samples).train
    else:
        made = torchvision_loader(data_dir, samples, True, int(loader.rpartition(" ")[2]))
    rounds = 5 if loader == "trainbus" else 1
    return {"rate": median(rate_of(made) for _ in range(rounds))}


def rate_of(batches: Iterable[Any]) -> float:
    """Samples per second of one pass."""
    begun, count = perf_counter(), 0
    for batch in batches:
        count += len(batch[0])
    return count / (perf_counter() - begun)


# --- all of them, each in a process of its own ---------------------------------------------------

ARMS: dict[str, Callable[[str, Path, int | None], dict[str, Any]]] = {
    "trainbus": trainbus_train,
    "fastai": fastai_train,
    "lightning": lightning_train,
    "data": data_path,
}


def measure(arm: str, what: str, given: argparse.Namespace) -> dict[str, Any] | None:
    """Run an arm in a process of its own; None if it failed."""
    command = [sys.executable, __file__, "--data", str(given.data), "--arm", arm, "--what", what]
    command += ["--threads", str(given.threads)]
    if given.samples:
        command += ["--samples", str(given.samples)]
    print(f"{arm} {what} ...", file=sys.stderr, flush=True)
    begun = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "MNIST_ROOT": folder}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result | {"process": perf_counter() - begun}


def show_training(given: argparse.Namespace, arms: list[str]) -> None:
    print(f"{'one epoch':24}{'accuracy':>10}{'':>8}{'seconds':>9}{'':>7}{'process':>9}"
          f"{'cpu':>8}{'peak MB':>9}{'worker':>8}")  # fmt: skip
    for arch in NETWORKS:
        least, most = TARGETS[arch]
        for arm in arms:
            result = measure(arm, arch, given)
            if result is None:
                print(f"{f'{arch}, {arm}':24}{'failed':>10}")
                continue
            full = arm == "trainbus" and not given.samples
            right, seconds = result["accuracy"], result["seconds"]
            first = f">={least}{'' if right >= least else '!'}" if full else ""
            second = f"<={most}{'' if seconds <= most else '!'}" if full else ""
            print(
                f"{f'{arch}, {arm}':24}{right:10.4f}{first:>8}{seconds:9.1f}{second:>7}"
                f"{result['process']:9.1f}{result['cpu']:8.1f}{result['memory']:9.0f}"
                f"{result['workers']:8.0f}",
                flush=True,
            )


def show_data(given: argparse.Namespace, peers: bool) -> None:
    names = ["trainbus", "torchvision, workers: 0", f"torchvision, workers: {WORKERS}"]
    rates = {}
    for name in names + (["fastai"] if peers else []):
        result = measure("data", name, given)
        if result is not None:
            rates[name] = result["rate"]
    print(f"\n{'data path alone':32}{'samples/s':>12}")
    for name, rate in rates.items():
        print(f"{name:32}{rate:12,.0f}")
    others = [rate for name, rate in rates.items() if name != "trainbus"]
    if "trainbus" in rates and others:
        times = rates["trainbus"] / max(others)
        missed = "" if times >= DATA_TARGET else "!"
        print(f"{'trainbus over the fastest':32}{times:11.1f}x  >={DATA_TARGET}{missed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("TRAINBUS_DATA"))
    parser.add_argument("--peers", action="store_true", help="fastai and Lightning, too")
    parser.add_argument("--samples", type=int, help="the first samples only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--arm", choices=list(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--what", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.data is None:
        parser.error("give --data, the folder with the files of MNIST, or set TRAINBUS_DATA")
    given.data = Path(given.data).expanduser().absolute()
    if given.arm:
        import torch

        torch.set_num_threads(given.threads)
        print(json.dumps(ARMS[given.arm](given.what, given.data, given.samples)))
        return
    show_training(given, ["trainbus", *(["fastai", "lightning"] if given.peers else [])])
    show_data(given, given.peers)


if __name__ == "__main__":
    main()
