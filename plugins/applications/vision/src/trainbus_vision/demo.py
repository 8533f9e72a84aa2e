"""`trainbus demo vision`: the learner on handwritten digits, and the pictures that it makes."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from trainbus import UsageError
from trainbus.storage.files import replacing, shown
from trainbus_data import Category, Data
from trainbus_learner import load
from trainbus_vision.images import Image
from trainbus_vision.learner import ImageLearner

#: Pixels of a side: four times as many as the digits have, so that networks for photos take them.
_SIZE = 32


def digits(seed: int = 0, batch_size: int = 64) -> Data:
    """The 1,797 digits that scikit-learn carries: 1 x 32 x 32, four fifths of them for training.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    except ImportError as error:
        raise UsageError(
            f"the digits are scikit-learn's: pip install scikit-learn ({error})"
        ) from None
    bunch = load_digits()
    small = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1)
    large = functional.interpolate(small, size=(_SIZE, _SIZE), mode="bilinear")
    images = (large / 16 * 255).round().to(torch.uint8)
    labels = torch.tensor(bunch.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    train, valid = order[len(order) // 5 :], order[: len(order) // 5]
    return Data.from_tensors(
        train=(images[train], labels[train]),
        valid=(images[valid], labels[valid]),
        blocks=(Image(1), Category(vocab=[str(digit) for digit in range(10)])),
        batch_size=batch_size,
        name="digits",
    )


def train(run_dir: str, seed: int, epochs: int = 6) -> None:
    """Find a learning rate, fine-tune, look at what is wrong, export, and predict with that."""
    data = digits(seed)
    learner = ImageLearner(
        data, arch="resnet18", seed=seed, run_dir=run_dir, plugins=["tensorboard"]
    )
    rates = learner.find_lr()
    print(f"find_lr suggests {rates.suggestion:.2g}, with care; the default of fine_tune is taken")
    # The run's header says what was chosen; the reasons are in learner.summary().
    run = learner.fine_tune(epochs)
    found = learner.interpret()
    pictures: dict[str, Any] = {
        "batch": learner.show_batch(),
        "rates": rates.plot(),
        "results": learner.show_results(),
        "confusion": found.plot_confusion_matrix(),
        "worst": found.plot_worst(9),
    }
    for name, figure in pictures.items():
        with replacing(run.dir / f"{name}.png") as beside:
            figure.savefig(beside, dpi=120, format="png")
    exported = learner.export(run.dir / "export")
    image = (
        data.valid.source[0][0] if hasattr(data.valid, "source") else data.one_batch("valid")[0][0]
    )
    print(f"validation accuracy {learner.validate()['accuracy']:.2%}")
    print(f"loaded again from {exported}: {load(exported).predict(image[0])}")
    print(f"look at {shown(run.dir)}: {', '.join(f'{name}.png' for name in pictures)}")
