"""A batch is anything, any iterable is a loader, and a device is asked for by name."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch

from trainbus import Accelerator, Trainer, batches, hookimpl, seed_everything

Pair = namedtuple("Pair", "x y")


@dataclass
class Sample:
    x: torch.Tensor
    name: str


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (torch.ones(3, 2), 3),
        ((torch.ones(3, 2), torch.ones(3)), 3),
        ([torch.ones(4, 2)], 4),
        ({"a": torch.tensor(1.0), "b": torch.ones(5)}, 5),
        (Pair(torch.ones(2), "y"), 2),
        (Sample(torch.ones(6), "n"), 6),
        ({"nested": [(torch.ones(7), None)]}, 7),
        ("text", 1),
        (3, 1),
        ((), 1),
    ],
)
def test_the_samples_of_a_batch_of_any_type(batch, size):
    assert batches.batch_size(batch) == size


def test_moving_keeps_the_types_and_reaches_every_tensor():
    tensor = torch.ones(2)
    batch = {
        "pair": Pair(tensor, "y"),
        "list": [tensor, None, 3],
        "sample": Sample(tensor, "n"),
        "ordered": OrderedDict(a=tensor),
        "own": (Movable(),),
    }
    moved = batches.move(batch, torch.device("meta"))
    assert type(moved["pair"]) is Pair and type(moved["sample"]) is Sample
    assert type(moved["ordered"]) is OrderedDict
    assert [t.device.type for t in batches.tensors(moved)] == ["meta"] * 4
    assert moved["list"][1:] == [None, 3] and moved["sample"].name == "n"
    assert moved["own"][0].device == torch.device("meta")


class Movable:
    """Anything with `.to`."""

    device = torch.device("cpu")

    def to(self, device):
        moved = Movable()
        moved.device = device
        return moved


def test_any_iterable_is_a_loader(make_line):
    class Endless:
        def __iter__(self):
            while True:
                yield torch.ones(2, 4), torch.ones(2, 1)

    run = Trainer(max_steps=7).fit(make_line(), Endless())
    assert (run.global_step, run.batches_in_pass, run.epoch) == (7, None, 0)


def test_set_epoch_is_told_to_samplers(make_line, make_loader):
    class Sampler(torch.utils.data.SequentialSampler):
        epochs = []

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

    loader = make_loader(2)
    sampler = Sampler(loader.dataset)
    loader = torch.utils.data.DataLoader(loader.dataset, batch_size=2, sampler=sampler)
    Trainer(epochs=3).fit(make_line(), loader)
    assert sampler.epochs == [0, 1, 2]


def test_the_header_says_which_device_and_why(line, loader):
    header = {}
    trainer = Trainer(accelerator="cpu")
    trainer.on("fit_start")(lambda run: header.update(run.header))
    trainer.fit(line, loader)
    assert header["device"] == "cpu (asked for by name)"
    assert header["plugins"] == "journal, manifest, nonfinite (built in)"


class Toy(Accelerator):
    """A device of a plugin: the CPU under another name."""

    priority = 50

    def __init__(self, name="toy", reason=None):
        super().__init__("cpu")
        self.name, self.reason, self.placed = name, reason, 0

    def unavailable(self):
        return self.reason

    def place_batch(self, batch):
        self.placed += 1
        return batch


class ToyPlugin:
    def __init__(self, *devices):
        self.devices = devices

    @hookimpl
    def provide_accelerator(self):
        return self.devices[0]


@pytest.mark.parametrize("wanted", ["auto", "toy"])
def test_an_accelerator_of_a_plugin_is_chosen(line, loader, wanted):
    toy = Toy()
    Trainer(accelerator=wanted, plugins=[ToyPlugin(toy)]).fit(line, loader)
    assert toy.placed == 5


def test_one_that_is_not_available_is_not_chosen_by_itself(line, loader):
    toy = Toy(reason="no toy in this box")
    Trainer(plugins=[ToyPlugin(toy)]).fit(line, loader)
    assert toy.placed == 0
    with pytest.raises(ValueError, match="accelerator='toy' is not available: no toy in this box"):
        Trainer(accelerator="toy", plugins=[ToyPlugin(toy)]).fit(line, loader)


def test_two_plugins_that_offer_one_accelerator(line, loader):
    trainer = Trainer(plugins=[ToyPlugin(Toy())])
    trainer.bus.register(ToyPlugin(Toy()), "other")
    with pytest.raises(ValueError, match="two plugins offer the accelerator 'toy'"):
        trainer.fit(line, loader)


def test_an_accelerator_given_as_an_object(line, loader):
    toy = Toy()
    Trainer(accelerator=toy).fit(line, loader)
    assert toy.placed == 5


def test_the_same_seed_gives_the_same_weights(make_line, make_loader):
    def weights(seed):
        seed_everything(0)
        task = make_line(dropout=0.5)
        Trainer(seed=seed, epochs=2).fit(task, make_loader(5, shuffle=True))
        return task.linear.weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_deterministic_lasts_as_long_as_the_run(line, loader):
    seen = []
    trainer = Trainer(deterministic=True)
    trainer.on("train_batch_end")(
        lambda run: seen.append(torch.are_deterministic_algorithms_enabled())
    )
    trainer.fit(line, loader)
    assert all(seen) and not torch.are_deterministic_algorithms_enabled()


def test_a_batch_is_rebuilt_with_what_takes_the_place_of_its_values():
    batch = {"a": (torch.ones(1), "text"), "b": [2, torch.zeros(1)]}
    made = batches.rebuilt(batch, lambda x: x + 1 if isinstance(x, torch.Tensor) else None)
    assert made == {"a": (torch.full((1,), 2.0), "text"), "b": [2, torch.ones(1)]}
    assert batch["a"][0] == 1
