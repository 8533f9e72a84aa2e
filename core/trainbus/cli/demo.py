"""`trainbus demo`: a small convolutional network learns to read handwritten digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from trainbus import terminal
from trainbus.builtin import Checkpoint
from trainbus.checkpoints.weights import save_weights
from trainbus.devices.random_state import seed_everything
from trainbus.engine.run import Run
from trainbus.engine.task import Task
from trainbus.engine.trainer import Trainer
from trainbus.errors import UsageError
from trainbus.storage.files import replacing, shown

Loader = DataLoader[tuple[Tensor, ...]]


class Digits(Task):
    """Images of 1 x 8 x 8 pixels to one of ten digits."""

    def __init__(self, channels: int = 32, lr: float = 2e-3) -> None:
        super().__init__()
        self.lr = lr
        self.hparams = {"channels": channels, "lr": lr}
        self.net = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.BatchNorm2d(2 * channels),
            nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3),
            nn.Linear(2 * channels * 16, 10),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Logits, batch x 10."""
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: Any, run: Run) -> Tensor:
        """Cross-entropy."""
        images, digits = batch
        loss: Tensor = functional.cross_entropy(self(images), digits)
        run.log(loss=loss)
        return loss

    def validation_step(self, batch: Any, run: Run) -> Tensor:
        """The predicted digits; logs loss and accuracy."""
        images, digits = batch
        logits = self(images)
        predicted: Tensor = logits.argmax(1)
        accuracy = (predicted == digits).float().mean()
        run.log(loss=functional.cross_entropy(logits, digits), accuracy=accuracy)
        return predicted

    def configure_optimizer(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.01)


def load(seed: int) -> tuple[Loader, Loader, Loader]:
    """The 1,797 digits that scikit-learn carries: loaders for training, validation and test."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
        from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]
    except ImportError as error:
        raise UsageError(
            f'the demo needs its data: pip install "trainbus[demo]" ({error})'
        ) from None
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    digits = torch.tensor(data.target)
    rest, test = train_test_split(
        range(len(digits)), test_size=0.2, random_state=seed, stratify=digits
    )
    train, valid = train_test_split(
        rest, test_size=0.25, random_state=seed, stratify=digits[list(rest)]
    )
    parts = [TensorDataset(images[list(part)], digits[list(part)]) for part in (train, valid, test)]
    return (
        DataLoader(parts[0], batch_size=32, shuffle=True),
        DataLoader(parts[1], batch_size=256),
        DataLoader(parts[2], batch_size=256),
    )


def train(run_dir: str, seed: int, epochs: int = 20) -> None:
    """Fit, keep the best weights, test them, and draw the curves and the confusion matrix."""
    seed_everything(seed)
    training, validation, testing = load(seed)
    best = Checkpoint(monitor="valid/accuracy", mode="max")
    trainer = Trainer(
        epochs=epochs, seed=seed, run_dir=run_dir, plugins=["progress", "tensorboard", best]
    )
    curves: dict[str, list[tuple[int, float]]] = {}

    @trainer.on("metrics")
    def remember(step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            curves.setdefault(name, []).append((step, value))

    @trainer.on("fit_end")
    def test_the_best(run: Run) -> None:
        path = best.best_path(run)
        if path is None or run.interruption is not None:
            return
        run.load_weights(path)
        predicted = list(run.evaluation_batches(testing, "test", run.bus.validation_step))
        truth = torch.cat([digits for _, digits in testing])
        save_weights(run.task, run.dir / "weights.pt")
        for name, figure in (
            ("curves", _curves(curves)),
            ("confusion", _confusion(truth, torch.cat(predicted).cpu())),
        ):
            with replacing(run.dir / f"{name}.png") as beside:
                figure.savefig(beside, dpi=120, format="png")
            run.log_artifact(name, figure, "figure")

    run = trainer.fit(Digits(), training, validation)
    terminal.say(
        f"test accuracy {run.metrics['test/accuracy']:.2%} with the weights of the best epoch"
    )
    terminal.say(f"look at {shown(run.dir)}: curves.png, confusion.png, run.json, weights.pt")


def _curves(curves: Mapping[str, list[tuple[int, float]]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, title, names in (
        (left, "loss", ("train/loss", "train/loss_epoch", "valid/loss")),
        (right, "accuracy", ("valid/accuracy",)),
    ):
        for name in names:
            if name in curves:
                steps, values = zip(*curves[name], strict=True)
                width = 0.6 if name == "train/loss" else 1.8
                axes.plot(steps, values, label=name, linewidth=width)
        axes.set(title=title, xlabel="optimizer steps")
        axes.grid(alpha=0.3)
        axes.legend()
    left.set_yscale("log")
    return figure


def _confusion(truth: Tensor, predicted: Tensor) -> Any:
    from matplotlib.figure import Figure

    counts = torch.zeros(10, 10, dtype=torch.int64)
    counts.index_put_((truth, predicted), torch.ones_like(truth), accumulate=True)
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts.clamp(max=5), cmap="Blues")
    for i, row in enumerate(counts.tolist()):
        for j, count in enumerate(row):
            if count:
                color = "white" if count >= 4 else "black"
                axes.text(j, i, str(count), ha="center", va="center", color=color)
    right = int(counts.diagonal().sum())
    axes.set(
        title=f"test: {right} of {len(truth)} right",
        xlabel="predicted digit", ylabel="true digit", xticks=range(10), yticks=range(10),
    )  # fmt: skip
    return figure
