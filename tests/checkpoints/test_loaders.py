"""Whatever the loader, a run that goes on reads what one that was left alone reads."""

import contextlib
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    Subset,
)

from trainbus import Loader, StopRun, Task, Trainer
from trainbus.builtin import Checkpoint

ITEMS = torch.arange(16.0).unsqueeze(1)
EPOCHS, BATCHES = 3, 4


class Net(Task):
    """Notes the numbers that it is given, by epoch."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, run):
        numbers = batch[0] if isinstance(batch, (tuple, list)) else batch
        self.seen.append((run.epoch, numbers.flatten().tolist()))
        return self.net(numbers.float().reshape(-1, 1)).pow(2).mean()

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=1e-4)


class Killed(BaseException):
    """Nothing is saved for it."""


def read(directory, loader, killed_at=None, **options):
    torch.manual_seed(0)
    task = Net()
    wanted = {"epochs": EPOCHS, "seed": 0, **options}
    trainer = Trainer(run_dir=directory, plugins=[Checkpoint(every_steps=1)], **wanted)

    @trainer.on("train_batch_start")
    def kill(run):
        if run.global_step == killed_at:
            raise Killed

    with contextlib.suppress(Killed):
        trainer.fit(task, loader, resume="auto")
    return task.seen


def goes_on_alike(tmp_path, make, killed_at):
    whole = read(tmp_path / "whole", make())
    first = read(tmp_path / "parts", make(), killed_at)[:killed_at]
    assert len(first) == killed_at
    return whole, first + read(tmp_path / "parts", make())


class OwnOrder(Sampler):
    """Shuffles with a generator that it keeps."""

    def __init__(self, generator, size=16):
        self.own, self.size = generator, size

    def __len__(self):
        return self.size

    def __iter__(self):
        order = list(range(self.size))
        self.own.shuffle(order)
        return iter(order)


class InTurns(Sampler):
    """Shuffles with one of several generators, for each pass the next."""

    def __init__(self, generators):
        self.generators = generators
        self.passes = 0

    def set_epoch(self, epoch):
        self.passes = epoch

    def __len__(self):
        return 16

    def __iter__(self):
        order = list(range(16))
        self.generators[self.passes % 2].shuffle(order)
        return iter(order)


class OwnBatches(OwnOrder):
    def __len__(self):
        return self.size // 4

    def __iter__(self):
        order = list(super().__iter__())
        return iter([order[i : i + 4] for i in range(0, self.size, 4)])


class Noise(Dataset):
    """Adds noise of a generator that it keeps."""

    def __init__(self, generator, items=ITEMS):
        self.own, self.items = generator, items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index] + self.own.random()


class Legacy(Noise):
    def __getitem__(self, index):
        return self.items[index] + float(self.own.rand())


class Stream(IterableDataset):
    """Another order in each epoch, as the streams of Hugging Face have it."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.epoch)
        return iter(ITEMS[torch.randperm(16, generator=generator)])


class ByEpoch(Sampler):
    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 16

    def __iter__(self):
        return iter(
            torch.randperm(16, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        )


class Around(Sampler):
    """A sampler that keeps another one under some name."""

    def __init__(self, inner, name="inner"):
        setattr(self, name, inner)
        self.name = name

    def __len__(self):
        return len(getattr(self, self.name))

    def __iter__(self):
        return iter(getattr(self, self.name))


class Prepared:
    """A loader around another one, whose `state_dict` works in some set-ups only."""

    def __init__(self, loader):
        self.inner = loader

    def __len__(self):
        return len(self.inner)

    def __iter__(self):
        return iter(self.inner)

    def state_dict(self):
        return self.state_that_is_not_there

    def load_state_dict(self, state):
        raise AssertionError("there is none")


def shuffled(**options):
    return DataLoader(ITEMS, 4, shuffle=True, **options)


def half(start):
    return ITEMS[start : start + 8]


LOADERS = {
    "shuffled": shuffled,
    "with a generator": lambda: shuffled(generator=torch.Generator().manual_seed(3)),
    "trainbus's": lambda: Loader(ITEMS, batch_size=4, shuffle=True, seed=3),
    "a sampler with Python's": lambda: DataLoader(ITEMS, 4, sampler=OwnOrder(random.Random(3))),
    "a sampler with NumPy's": lambda: DataLoader(
        ITEMS, 4, sampler=OwnOrder(np.random.default_rng(3))
    ),
    "a sampler with NumPy's old": lambda: DataLoader(
        ITEMS, 4, sampler=OwnOrder(np.random.RandomState(3))
    ),
    "a sampler with Philox": lambda: DataLoader(
        ITEMS, 4, sampler=OwnOrder(np.random.Generator(np.random.Philox(3)))
    ),
    "a batch sampler with Python's": lambda: DataLoader(
        ITEMS, batch_sampler=OwnBatches(random.Random(3))
    ),
    "a sampler in a sampler": lambda: DataLoader(
        ITEMS, 4, sampler=Around(Around(OwnOrder(random.Random(3))), "other")
    ),
    "a dataset with NumPy's": lambda: DataLoader(Noise(np.random.default_rng(3)), 4, shuffle=True),
    "a dataset with NumPy's old": lambda: DataLoader(Legacy(np.random.RandomState(3)), 4),
    "a dataset with Python's": lambda: DataLoader(Noise(random.Random(3)), 4),
    "a part of a dataset": lambda: DataLoader(
        Subset(Subset(Noise(random.Random(3)), range(16)), range(15, -1, -1)), 4
    ),
    "datasets joined": lambda: DataLoader(
        ConcatDataset(
            [Noise(random.Random(3), half(0)), Legacy(np.random.RandomState(4), half(8))]
        ),
        4,
    ),
    "a sampler with a list of them": lambda: DataLoader(
        ITEMS, 4, sampler=InTurns([random.Random(3), random.Random(4)])
    ),
    "a sampler with them by name": lambda: DataLoader(
        ITEMS, 4, sampler=InTurns({0: np.random.default_rng(3), 1: np.random.default_rng(4)})
    ),
    "a stream": lambda: DataLoader(Stream(), 4),
    "a sampler by epoch": lambda: DataLoader(ITEMS, 4, sampler=ByEpoch()),
    "prepared": lambda: Prepared(shuffled()),
}


@pytest.mark.parametrize("killed_at", [5, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", LOADERS)
def test_a_killed_run_reads_on_as_one_left_alone(tmp_path, caplog, kind, killed_at):
    whole, parts = goes_on_alike(tmp_path, LOADERS[kind], killed_at)
    assert parts == whole
    assert "gives other batches" not in caplog.text


@pytest.mark.parametrize(
    "killed_at", [5, *(pytest.param(at, marks=pytest.mark.slow) for at in (2, 9))]
)
def test_workers_that_stay_read_on_as_if_they_had_stayed(tmp_path, killed_at):
    def make():
        return shuffled(num_workers=1, persistent_workers=True)

    whole, parts = goes_on_alike(tmp_path, make, killed_at)
    assert parts == whole


@pytest.mark.parametrize("steps", [3, 4, 8])
@pytest.mark.parametrize("kind", ["with a generator", "a sampler with Python's", "shuffled"])
def test_a_run_that_ends_with_an_epochs_last_batch_goes_on_in_the_same_order(tmp_path, kind, steps):
    whole = read(tmp_path / "whole", LOADERS[kind]())
    first = read(tmp_path / "parts", LOADERS[kind](), max_steps=steps)
    assert first + read(tmp_path / "parts", LOADERS[kind]()) == whole


@pytest.mark.parametrize("hook", ["train_batch_start", "after_loss"])
@pytest.mark.parametrize(("batch", "accumulate"), [(0, 1), (0, 3), (1, 3), (2, 3), (3, 1)])
def test_a_batch_that_was_not_done_is_read_again(tmp_path, caplog, hook, batch, accumulate):
    def seen(directory, stopped):
        torch.manual_seed(0)
        task = Net()
        plugins = ["checkpoint"]
        trainer = Trainer(
            epochs=2, seed=0, accumulate=accumulate, run_dir=directory, plugins=plugins
        )

        @trainer.on(hook)
        def stop(run):
            if stopped and run.epoch == 1 and run.batch_index == batch:
                raise StopRun("enough")

        run = trainer.fit(task, LOADERS["with a generator"](), resume="auto")
        return task.seen, task.net.weight.tolist(), run.global_step

    whole, weights, steps = seen(tmp_path / "whole", stopped=False)
    seen(tmp_path / "parts", stopped=True)
    rest, weights_after, steps_after = seen(tmp_path / "parts", stopped=False)
    assert rest == whole[len(whole) - len(rest) :]
    assert "gives other batches" not in caplog.text
    assert (weights_after, steps_after) == (weights, steps)


# --- each epoch is told --------------------------------------------------------------------------

TOLD = {
    "a sampler": lambda: DataLoader(ITEMS, 4, sampler=ByEpoch()),
    "a sampler in a sampler": lambda: DataLoader(ITEMS, 4, sampler=Around(ByEpoch())),
    "a sampler in a batch sampler": lambda: DataLoader(
        ITEMS, batch_sampler=BatchSampler(Around(ByEpoch(), "sampler"), 4, False)
    ),
    "a batch sampler in a batch sampler": lambda: DataLoader(
        ITEMS, batch_sampler=Around(BatchSampler(ByEpoch(), 4, False), "anything")
    ),
    "one of several in a list": lambda: DataLoader(
        ITEMS, 4, sampler=FirstOf([ByEpoch(), ByEpoch()])
    ),
    "a sampler with a list of them": lambda: DataLoader(
        ITEMS, 4, sampler=InTurns([random.Random(3), random.Random(4)])
    ),
    "a sampler with them by name": lambda: DataLoader(
        ITEMS, 4, sampler=InTurns({0: np.random.default_rng(3), 1: np.random.default_rng(4)})
    ),
    "a stream": lambda: DataLoader(Stream(), 4),
    "a wrapped loader": lambda: Prepared(DataLoader(Stream(), 4)),
}


class FirstOf(Sampler):
    def __init__(self, several):
        self.several = several

    def __len__(self):
        return 16

    def __iter__(self):
        return iter(self.several[0])


@pytest.mark.parametrize("kind", TOLD)
def test_whoever_orders_the_samples_is_told_the_epoch(tmp_path, kind):
    seen = read(tmp_path, TOLD[kind]())
    orders = {tuple(x for at, batch in seen if at == epoch for x in batch) for epoch in range(3)}
    assert len(orders) == 3


def test_trainbus_loader_in_a_plain_loop_has_another_order_in_each_pass():
    loader = Loader(range(16), batch_size=16, shuffle=True)
    assert len({tuple(batch.tolist()) for _ in range(3) for batch in loader}) == 3


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState, random.Random])
def test_workers_and_epochs_draw_different_numbers_of_a_datasets_own_generator(make):
    kind = Legacy if make is np.random.RandomState else Noise

    def drawn(workers):
        data = kind(make(3), torch.zeros(12, 1, dtype=torch.float64))
        loader = Loader(data, batch_size=3, num_workers=workers)
        found = []
        for epoch in range(2):
            loader.set_epoch(epoch)
            found += [x for batch in loader for x in batch.flatten().tolist()]
        return found

    alone = drawn(0)
    assert len(set(alone)) == 24
    assert drawn(2) == alone


# --- a loader that gives other batches than before -----------------------------------------------


class Fixed:
    """Gives what it was given."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def pairs(labels, noise=0.0):
    return [
        (torch.full((2, 1), float(i)) + noise, torch.tensor([n, n])) for i, n in enumerate(labels)
    ]


def warned(tmp_path, caplog, first, second):
    read(tmp_path, Fixed(first), killed_at=3)
    caplog.clear()
    read(tmp_path, Fixed(second))
    return "the loader gives other batches than before: batch 3 of this epoch" in caplog.text


def test_other_labels_are_noticed(tmp_path, caplog):
    assert warned(tmp_path, caplog, pairs([1, 2, 3, 4]), pairs([1, 2, 9, 4]))


def test_augmented_inputs_with_the_same_labels_are_no_word(tmp_path, caplog):
    assert not warned(tmp_path, caplog, pairs([1, 2, 3, 4]), pairs([1, 2, 3, 4], noise=0.5))


def test_where_there_are_no_labels_the_inputs_tell(tmp_path, caplog):
    first = [torch.full((2, 1), float(i)) for i in range(4)]
    assert warned(tmp_path, caplog, first, [each + 1 for each in first])


def test_another_number_of_parts_is_noticed(tmp_path, caplog):
    first = pairs([1, 2, 3, 4])
    assert warned(tmp_path, caplog, first, [(*each, each[1]) for each in first])


# --- lengths -------------------------------------------------------------------------------------


class Tells(Fixed):
    """Tells a length that its test says."""

    def __init__(self, count, told):
        super().__init__([ITEMS[:2]] * count)
        self.told = told

    def __len__(self):
        return self.told


@pytest.mark.parametrize("told", [1, 3, 4, 5, 6, 7, 100])
@pytest.mark.parametrize("count", [4, 6, 7])
def test_windows_are_whole_but_at_an_end_that_was_told_and_is_none(tmp_path, caplog, count, told):
    sizes = [0]
    trainer = Trainer(epochs=1, accumulate=3, run_dir=tmp_path)

    @trainer.on("after_backward")
    def gather(run):
        sizes[-1] += 1

    trainer.on("after_optimizer_step")(lambda run: sizes.append(0))
    run = trainer.fit(Net(), Tells(count, told))
    assert sizes.pop() == 0 and sum(sizes) == count and max(sizes) == 3
    # One at the end, and one where the loader said that it would end.
    assert sum(size < 3 for size in sizes) <= (2 if told < count else 1)
    assert run.global_step == len(sizes)
    message = f"tells a length of {told} and gave {count} batches"
    assert (message in caplog.text) is (told != count)


def test_a_length_that_set_epoch_changes_is_that_of_the_epoch(tmp_path):
    class Grows(Fixed):
        def set_epoch(self, epoch):
            self.batches = [ITEMS[:2]] * (4, 8, 2)[epoch]

    steps, told = [], []
    trainer = Trainer(epochs=3, accumulate=3, run_dir=tmp_path)
    trainer.on("train_epoch_start")(lambda run: told.append(run.batches_in_pass))
    trainer.on("train_epoch_end")(lambda run: steps.append(run.global_step))
    trainer.fit(Net(), Grows([ITEMS[:2]]))
    assert (told, steps) == ([4, 8, 2], [2, 5, 6])


def test_a_right_length_is_no_word(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(tmp_path, Fixed([ITEMS[:2]] * 3))


class Shares(Net):
    """Draws with a generator in its steps, and validates."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def training_step(self, batch, run):
        if self.generator is not None:
            self.seen.append((run.epoch, self.generator.random()))
        return super().training_step(batch, run)

    def validation_step(self, batch, run):
        self.seen.append((run.epoch, "valid", batch.flatten().tolist()))


def read_and_validate(directory, make, stop_at=None):
    """What a run trains and validates on, twice in each epoch; in one or two parts."""
    train, valid, generator = make()
    torch.manual_seed(0)
    task = Shares(generator)
    trainer = Trainer(
        run_dir=directory, plugins=[Checkpoint(every_steps=1)], epochs=EPOCHS, seed=0,
        validate_every=0.5,
    )  # fmt: skip

    @trainer.on("train_batch_end")
    def stop(run):
        if run.global_step == stop_at:
            run.stop()

    trainer.fit(task, train, valid, resume="auto")
    return task.seen


def shared_by_task_and_loader():
    generator = random.Random(3)
    return DataLoader(ITEMS, 4, sampler=OwnOrder(generator)), ITEMS.split(4), generator


def shared_by_both_loaders():
    data = Noise(random.Random(3))
    return DataLoader(data, 4), DataLoader(data, 4), None


def the_validation_loaders_own():
    valid = DataLoader(ITEMS, 4, shuffle=True, generator=torch.Generator().manual_seed(3))
    return shuffled(), valid, None


def the_tasks_and_the_validation_loaders():
    generator = random.Random(3)
    return shuffled(), DataLoader(Noise(generator), 4), generator


@pytest.mark.parametrize(
    "stop_at", [2, 5, *(pytest.param(at, marks=pytest.mark.slow) for at in (1, 3, 4, 6, 9))]
)
@pytest.mark.parametrize(
    "make",
    [
        shared_by_task_and_loader, shared_by_both_loaders, the_validation_loaders_own,
        the_tasks_and_the_validation_loaders,
    ],
)  # fmt: skip
def test_generators_that_several_draw_from_go_on_as_they_were(tmp_path, make, stop_at):
    whole = read_and_validate(tmp_path / "whole", make)
    first = read_and_validate(tmp_path / "parts", make, stop_at)
    assert first + read_and_validate(tmp_path / "parts", make) == whole
