"""Photos and street scenes beside fastai: the same module, epochs, sizes, batches and seeds.

    python benchmarks/photos.py [--data DIR] [--seeds 0 1 2] [--what classes masks rate]

`classes` are the ants and bees of hymenoptera-160, `masks` the scenes of camvid-160, `rate` is the
loading and augmenting of photos alone. Each arm runs in a process of its own, and the arms take
turns. The module is that of trainbus, its normalization included, with the same first weights.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

#: Height and width, samples in a batch, epochs, highest learning rate.
GIVEN: dict[str, dict[str, Any]] = {
    "classes": {"size": 128, "batch": 16, "epochs": 8, "lr": 1e-3},
    "masks": {"size": (72, 96), "batch": 8, "epochs": 3, "lr": 1e-3},
}
#: The code of pixels of camvid-160 that count nowhere.
VOID = 11
#: How many times fastai's photos a processor second.
RATE_TARGET = 1.8
PASSES = 5


# --- data ----------------------------------------------------------------------------------------


def our_data(what: str, folder: Path) -> Any:
    """Photos or scenes, as the page of vision reads them."""
    from trainbus_data import splits
    from trainbus_vision import image_folder, segmentation

    given = GIVEN[what]
    if what == "masks":
        return segmentation(
            folder / "camvid-160", codes=12, ignore=VOID, size=given["size"],
            batch_size=given["batch"],
        )  # fmt: skip
    return image_folder(
        folder / "hymenoptera-160", size=given["size"], batch_size=given["batch"],
        split=splits.by_folder(),
    )  # fmt: skip


def their_data(what: str, folder: Path) -> Any:
    """fastai's blocks, with its standard augmentation of whole batches."""
    from fastai.vision import all as fastai

    given = GIVEN[what]
    if what == "masks":
        root = folder / "camvid-160"
        block = fastai.DataBlock(
            blocks=(fastai.ImageBlock, fastai.MaskBlock(codes=list(range(12)))),
            get_items=lambda _: sorted([*root.glob("train/*.jpg"), *root.glob("val/*.jpg")]),
            get_y=lambda path: root / f"{path.parent.name}annot" / f"{path.stem}.png",
            splitter=fastai.FuncSplitter(lambda path: path.parent.name == "val"),
            item_tfms=fastai.Resize(given["size"]),
            batch_tfms=fastai.aug_transforms(),
        )
        return block.dataloaders(root, bs=given["batch"], num_workers=0)
    return fastai.ImageDataLoaders.from_folder(
        folder / "hymenoptera-160", train="train", valid="val", bs=given["batch"], num_workers=0,
        item_tfms=fastai.Resize(given["size"]), batch_tfms=fastai.aug_transforms(),
    )  # fmt: skip


# --- what one process measures -------------------------------------------------------------------


def our_learner(what: str, folder: Path, seed: int) -> Any:
    """A learner of a network that knows nothing yet; all else follows from its rules."""
    from trainbus_vision import ImageLearner

    return ImageLearner(
        our_data(what, folder), arch="resnet18", pretrained=False, seed=seed,
        plugins=["-progress"],
    )  # fmt: skip


def ours(what: str, folder: Path, seed: int) -> dict[str, float]:
    """Train it, with the epochs and the rate that both are given."""
    learner = our_learner(what, folder, seed)
    given = GIVEN[what]
    name = "accuracy" if what == "classes" else "pixel_accuracy"
    return fitted(
        lambda: learner.fit_one_cycle(given["epochs"], lr=given["lr"]),
        lambda: float(learner.validate()[name]),
    )


def theirs(what: str, folder: Path, seed: int) -> dict[str, float]:
    """The same module in a learner of fastai, by its one cycle."""
    from fastai.vision import all as fastai

    def pixels(output: Any, target: Any) -> Any:
        counts = target != VOID
        return (output.argmax(1)[counts] == target[counts]).float().mean()

    masks = {"axis": 1, "ignore_index": VOID} if what == "masks" else {}
    model = our_learner(what, folder, seed).model
    fastai.set_seed(seed)
    learner = fastai.Learner(
        their_data(what, folder), model, loss_func=fastai.CrossEntropyLossFlat(**masks),
        metrics=pixels if masks else fastai.accuracy,
    )  # fmt: skip
    given = GIVEN[what]
    with learner.no_bar(), learner.no_logging():
        return fitted(
            lambda: learner.fit_one_cycle(given["epochs"], given["lr"]),
            lambda: float(learner.validate()[1]),
        )


def fitted(fit: Callable[[], Any], right: Callable[[], float]) -> dict[str, float]:
    """Train, and tell the time of it, by the clock and of the processor."""
    begun, used = perf_counter(), process_time()
    fit()
    seconds, processor = perf_counter() - begun, process_time() - used
    return {"right": right(), "seconds": seconds, "processor": processor}


def our_rate(_what: str, folder: Path, seed: int) -> dict[str, float]:
    """Photos a processor second: read, cut, put together and augmented."""
    import torch

    from trainbus_augment import Augmenter, standard

    batches, augment = our_data("classes", folder).train, Augmenter(standard())
    generator = torch.Generator().manual_seed(seed)
    return rate_of(
        lambda: sum(len(augment((each[0],), ("image",), generator)[0]) for each in batches)
    )


def their_rate(_what: str, folder: Path, _seed: int) -> dict[str, float]:
    """The same of fastai's loader, which augments its batches."""
    batches = their_data("classes", folder).train
    return rate_of(lambda: sum(len(each[0]) for each in batches))


def rate_of(one_pass: Callable[[], int]) -> dict[str, float]:
    """The median of some passes, behind one that warms up."""
    one_pass()
    rates = []
    for _ in range(PASSES):
        used = process_time()
        count = one_pass()
        rates.append(count / (process_time() - used))
    return {"rate": statistics.median(rates)}


# --- all of them, each in a process of its own ---------------------------------------------------

ARMS: dict[str, Callable[[str, Path, int], dict[str, float]]] = {
    "trainbus": ours,
    "fastai": theirs,
    "trainbus rate": our_rate,
    "fastai rate": their_rate,
}


def measure(arm: str, what: str, seed: int, given: argparse.Namespace) -> dict[str, float]:
    """Run an arm in a process of its own."""
    command = [sys.executable, __file__, "--data", str(given.data), "--arm", arm]
    command += ["--what", what, "--seeds", str(seed), "--threads", str(given.threads)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{arm}, {what}, seed {seed}:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def show_training(what: str, given: argparse.Namespace) -> None:
    """Each seed of both arms, and the means."""
    chosen = ", ".join(f"{name} {value}" for name, value in GIVEN[what].items())
    print(f"\n{what}: resnet18, {chosen}")
    print(f"{'':22}{'right':>8}{'seconds':>10}{'processor':>11}")
    found: dict[str, list[float]] = {"trainbus": [], "fastai": []}
    for seed in given.seeds:
        for arm, rights in found.items():
            result = measure(arm, what, seed, given)
            rights.append(result["right"])
            print(f"{f'{arm}, seed {seed}':22}{result['right']:8.4f}{result['seconds']:10.1f}"
                  f"{result['processor']:11.1f}", flush=True)  # fmt: skip
    means = {arm: statistics.mean(rights) for arm, rights in found.items()}
    missed = "" if means["trainbus"] >= means["fastai"] else "!"
    print(f"{'mean':22}{means['trainbus']:8.4f}  fastai {means['fastai']:.4f}{missed}")


def show_rate(given: argparse.Namespace) -> None:
    """Photos a processor second, by turns."""
    rates: dict[str, list[float]] = {"trainbus": [], "fastai": []}
    for seed in given.seeds:
        for arm, found in rates.items():
            found.append(measure(f"{arm} rate", "classes", seed, given)["rate"])
    ours, theirs = (statistics.median(found) for found in rates.values())
    missed = "" if ours / theirs >= RATE_TARGET else "!"
    print(f"\nphotos loaded and augmented a processor second: trainbus {ours:.0f}, "
          f"fastai {theirs:.0f}: {ours / theirs:.2f} times  >={RATE_TARGET}{missed}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=os.environ.get("TRAINBUS_DATA"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--what", nargs="+", default=["classes", "masks", "rate"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--arm", choices=list(ARMS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.data is None:
        parser.error("give --data, the folder with the data sets, or set TRAINBUS_DATA")
    given.data = Path(given.data).expanduser().absolute()
    if given.arm:
        import torch

        torch.set_num_threads(given.threads)
        print(json.dumps(ARMS[given.arm](given.what[0], given.data, given.seeds[0])))
        return
    for what in given.what:
        show_rate(given) if what == "rate" else show_training(what, given)


if __name__ == "__main__":
    main()
