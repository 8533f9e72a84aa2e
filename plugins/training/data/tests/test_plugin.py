"""The plugin `data`, and a loader of this package, in a run."""

import pytest
import torch
from torch import nn

from trainbus import Task, Trainer
from trainbus_data import Block, Category, Data


class Grid(Block):
    """Numbers in a plane, as an image has them."""

    kind = "image"

    def encode(self, raw):
        return torch.as_tensor(raw)[None]

    def encode_all(self, raws):
        return torch.as_tensor(raws)[:, None]


def halves(parts, kinds):
    """Images as floats in 0..0.5."""
    return tuple(
        part.float() / 510 if kind == "image" else part
        for part, kind in zip(parts, kinds, strict=True)
    )


def make(transforms=(halves,), count=40, **options):
    x = torch.randint(0, 256, (count, 4, 4), dtype=torch.uint8)
    y = (x[:, 0, 0] > 127).long()
    return Data.from_tensors(
        (x, y), (x, y), (x, y), blocks=(Grid(), Category([0, 1])), batch_size=8,
        batch_transforms=transforms, **options,
    )  # fmt: skip


class Seen(Task):
    """Notes what each step was given."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.Dropout(0.2))
        self.seen = []

    def forward(self, x):
        return self.net(x.float())

    def training_step(self, batch, run):
        self.seen.append((run.stage, batch[0].dtype, float(batch[0].max()) <= 0.5))
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        run.log(loss=loss)
        return loss

    validation_step = training_step

    def predict_step(self, batch, run):
        self.seen.append((run.stage, batch[0].dtype, float(batch[0].max()) <= 0.5))
        return self(batch[0])

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_batch_transforms_in_every_stage():
    """Training, validation, test and prediction see what they made, also under a limit."""
    data, task = make(), Seen()
    trainer = Trainer(epochs=1, plugins=["data"], limit_batches=2)
    trainer.fit(task, data.train, data.valid)
    trainer.test(task, data.test)
    list(trainer.predict(task, data.loader(data.valid_items.parts[0][:, 0])))
    assert {stage for stage, _, _ in task.seen} == {"train", "valid", "test", "predict"}
    assert all(dtype == torch.float32 and small for _, dtype, small in task.seen)


def test_loaders_of_others_are_left_alone():
    """A list of batches, and a loader without batch transforms."""
    task = Seen()
    batches = [(torch.full((2, 1, 4, 4), 200, dtype=torch.uint8), torch.tensor([0, 1]))]
    for loader in (batches, make(transforms=()).train):
        Trainer(epochs=1, plugins=["data"]).fit(task, loader)
    assert {dtype for _, dtype, _ in task.seen} == {torch.uint8}


def test_interrupted_and_resumed_run_is_the_same(tmp_path):
    """Stopped inside an epoch and resumed from its checkpoint, it ends with the same weights."""

    def weights(stop):
        torch.manual_seed(1)
        task, data = Seen(), make(count=80)
        options = {"epochs": 3, "run_dir": tmp_path / str(stop), "seed": 5}
        plugins = ["data", "checkpoint"]
        trainer = Trainer(plugins=plugins, **options)
        if stop:

            @trainer.on("train_batch_end")
            def stopping(run):
                if run.global_step == 14:
                    run.stop("enough")

        trainer.fit(task, data.train, data.valid)
        if stop:
            torch.manual_seed(1)
            task = Seen()
            trainer = Trainer(plugins=plugins, **options)
            trainer.fit(task, make(count=80).train, data.valid, resume="auto")
        return [parameter.detach().clone() for parameter in task.parameters()]

    torch.manual_seed(0)
    state = torch.get_rng_state()
    whole = weights(stop=False)
    torch.set_rng_state(state)
    resumed = weights(stop=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_failing_batch_transform_is_named():
    """In the error that a run ends with, and in the summary."""

    def wrong(parts, kinds):
        raise ValueError("no such colour")

    data = make([wrong])
    with pytest.raises(ValueError, match="no such colour") as caught:
        Trainer(epochs=1, plugins=["data"]).fit(Seen(), data.train)
    assert "in the batch transform wrong" in caught.value.__notes__
    assert "FAILED: the batch transform wrong: ValueError: no such colour" in data.summary()


def test_one_batch_is_what_a_step_receives():
    """With the batch transforms."""
    assert make().one_batch()[0].dtype == torch.float32
