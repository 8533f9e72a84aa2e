"""Distil a teacher into a student, in a loop written by hand."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from trainbus import Trainer, seed_everything
from trainbus.builtin import Checkpoint, Schedule


def network(width: int) -> nn.Sequential:
    """Make a classifier of 16 numbers into 4 classes."""
    return nn.Sequential(nn.Linear(16, width), nn.Tanh(), nn.Linear(width, 4))


def main() -> None:
    """Train until the student agrees with the teacher."""
    seed_everything(0)
    teacher, student = network(64), network(24)
    batches = [torch.randn(64, 16) for _ in range(50)]
    held_out = [torch.randn(500, 16)]

    trainer = Trainer(
        clip_norm=1.0,
        plugins=[Checkpoint(monitor="valid/agreement", mode="max"), Schedule(name="one_cycle")],
    )
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.02)
    with trainer.open(student, optimizer) as run:
        for epoch in run.epochs(20):
            for inputs in run.batches(batches):
                with torch.no_grad():
                    target = teacher(inputs).softmax(dim=1)
                loss = functional.cross_entropy(student(inputs), target)
                run.log(loss=loss)
                run.step(loss)
            for inputs in run.evaluation_batches(held_out):
                same = student(inputs).argmax(dim=1) == teacher(inputs).argmax(dim=1)
                run.log(agreement=same.float().mean())
            agreement = run.metrics["valid/agreement"]
            print(f"epoch {epoch}: the student agrees on {agreement:.1%}")
            if agreement > 0.92:
                run.stop("the student agrees with the teacher")

    print(f"{run.status} after {run.global_step} steps: {run.dir}")


if __name__ == "__main__":
    main()
