"""The plugin in a training: which batches, which kinds, options, and an exact resume."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from trainbus import PluginError, Trainer, UsageError
from trainbus.builtin import Checkpoint
from trainbus_augment import (
    Augment,
    Brightness,
    CutMix,
    Flip,
    LabelSmoothing,
    MixUp,
    standard,
)
from trainbus_data import Data

QUIET = ["-journal", "-manifest"]


def test_training_batches_are_augmented_and_others_are_not(make_task, make_loader):
    task = make_task()
    data = list(make_loader())
    Trainer(epochs=1, plugins=["augment", *QUIET]).fit(task, data, data)
    assert not any(torch.equal(a[0], b[0]) for a, b in zip(task.trained, data, strict=True))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(task.trained, data, strict=True))
    assert all(a[0] is b[0] for a, b in zip(task.validated, data, strict=True))


def test_each_epoch_is_another(make_task, make_loader):
    task = make_task()
    Trainer(epochs=2, plugins=["augment", *QUIET], seed=1).fit(task, list(make_loader(1)))
    assert not torch.equal(task.trained[0][0], task.trained[1][0])


@pytest.mark.parametrize(
    ("seed", "again", "same"), [(None, None, True), (7, 7, True), (7, 8, False)]
)
def test_the_seed_of_the_run_or_of_the_plugin(make_task, make_loader, seed, again, same):
    tasks = []
    for each in (seed, again):
        tasks.append(make_task())
        plugins = [Augment(seed=each), *QUIET]
        Trainer(epochs=1, plugins=plugins, seed=1).fit(tasks[-1], list(make_loader(1)))
    assert torch.equal(tasks[0].trained[0][0], tasks[1].trained[0][0]) == same


def test_mixing_by_options(make_task, make_loader):
    task = make_task()
    plugin = Augment(mixup=0.4, smoothing=0.1, classes=3, erase=0.5)
    run = Trainer(epochs=1, plugins=[plugin, *QUIET]).fit(task, make_loader())
    assert run.status == "completed"
    assert task.trained[0][1].shape == (4, 3)
    assert run.header["augment"].endswith("Contrast, Erase, MixUp, LabelSmoothing")


def test_no_transforms_is_no_listener(make_task, make_loader):
    task = make_task()
    data = list(make_loader())
    Trainer(epochs=1, plugins=[Augment(transforms=[]), *QUIET]).fit(task, data)
    assert all(a[0] is b[0] for a, b in zip(task.trained, data, strict=True))


def test_batches_that_are_mappings(make_task, make_loader):
    task = make_task()
    data = [{"photo": x, "label": y} for x, y in make_loader()]
    kinds = {"photo": "image", "label": "category"}
    Trainer(plugins=[Augment(kinds=kinds), *QUIET]).fit(task, data)
    assert list(task.trained[0]) == ["photo", "label"]
    assert not torch.equal(task.trained[0]["photo"], data[0]["photo"])


@dataclass
class Plain:
    """A batch as a dataclass."""

    image: torch.Tensor
    label: torch.Tensor
    note: str = "kept"


@dataclass(frozen=True, slots=True)
class Frozen:
    """One that cannot be written to, and has no `__dict__`."""

    image: torch.Tensor
    label: torch.Tensor
    note: str = "kept"


@dataclass
class Asking(Plain):
    """One whose constructor wants something else."""

    def __init__(self, pair):
        self.image, self.label = pair
        self.note = "kept"


@pytest.mark.parametrize(
    "kinds", [None, ["image", "category"], {"image": "image", "label": "category"}]
)
@pytest.mark.parametrize("make", [Plain, Frozen, lambda *pair: Asking(pair)])
def test_batches_that_are_dataclasses(make_task, make_loader, make, kinds):
    class Fields(make_task().__class__):
        def training_step(self, batch, run):
            self.batches = [*getattr(self, "batches", []), batch]
            return super().training_step((batch.image, batch.label), run)

    task = make_task(Fields)
    data = [make(x, y) for x, y in make_loader()]
    Trainer(plugins=[Augment(kinds=kinds), *QUIET]).fit(task, data)
    for seen, given in zip(task.batches, data, strict=True):
        assert type(seen) is type(given)
        assert seen is not given
        assert not torch.equal(seen.image, given.image)
        assert seen.label is given.label
        assert seen.note == "kept"


def test_parts_of_a_dataclass_that_have_no_such_name(make_task, make_loader):
    data = [Plain(x, y) for x, y in make_loader()]
    with pytest.raises(UsageError, match=r"has no 'imag'; did you mean 'image'"):
        Trainer(plugins=[Augment(kinds={"imag": "image"}), *QUIET]).fit(make_task(), data)


def test_the_kinds_of_the_loader_are_used(make_task, make_loader):
    class Loader(list):
        kinds = ("category", "image")

    class Swapped(make_task().__class__):
        def training_step(self, batch, run):
            return super().training_step(batch[::-1], run)

    task = make_task(Swapped)
    data = Loader((y, x) for x, y in make_loader())
    Trainer(plugins=["augment", *QUIET], limit_batches=3).fit(task, data)
    assert len(task.trained) == 3
    assert not torch.equal(task.trained[0][0], data[0][1])


def test_a_mask_that_nobody_named_is_not_left_behind(make_task):
    data = [(torch.rand(2, 3, 8, 8), torch.ones(2, 8, 8, dtype=torch.int64))]
    with pytest.raises(UsageError, match=r"as large as the image.*kinds=\['image', 'mask'\]"):
        Trainer(plugins=["augment", *QUIET]).fit(make_task(), data)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (None, r"has the parts photo, label: say what they are"),
        ({"foto": "image"}, r"has no 'foto'; did you mean 'photo'"),
    ],
)
def test_mappings_need_kinds(make_task, make_loader, kinds, message):
    data = [{"photo": x, "label": y} for x, y in make_loader()]
    with pytest.raises(UsageError, match=message):
        Trainer(plugins=[Augment(kinds=kinds), *QUIET]).fit(make_task(), data)


def test_it_works_in_a_loop_of_ones_own(make_task, make_loader):
    task = make_task()
    optimizer = task.configure_optimizer()
    data = list(make_loader())
    with Trainer(plugins=["augment", *QUIET]).open(task, optimizer) as run:
        for (x, y), (old, _) in zip(run.batches(data, epochs=1), data, strict=True):
            assert not torch.equal(x, old)
            run.step(torch.nn.functional.cross_entropy(task.net(x), y))


def test_it_works_with_other_precisions(make_task, make_loader):
    pytest.importorskip("trainbus_amp", reason="trainbus-amp is not installed")
    task = make_task()
    data = [((x * 255).to(torch.uint8), y) for x, y in make_loader()]
    Trainer(precision="bf16-true", plugins=["augment", "amp", *QUIET]).fit(task, data)
    assert task.trained[0][0].dtype == torch.bfloat16, "augmented first, converted then"


def test_options_from_a_project_file(make_task, make_loader):
    Path("trainbus.toml").write_text(
        'plugins = ["augment"]\n'
        "[options.augment]\nrotate = 30\nvertical = true\nwarp = 0\nsize = [8, 8]\nmixup = 0.4\n"
        'classes = 3\nkinds = ["image", "category"]\n'
    )
    trainer = Trainer(plugins=QUIET)
    trainer.fit(make_task(), make_loader())
    names = [type(each).__name__ for each in trainer.bus.plugins["augment"].transforms]
    assert names == ["Flip", "Flip", "Rotate", "Zoom", "Crop", "Brightness", "Contrast", "MixUp"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("rotate = 500", "trainbus.toml.*|Rotate: degrees"),
        ("rotat = 5", "has no option 'rotat'; did you mean 'rotate'"),
        ('policy = "rand"', "policy"),
        ('kinds = ["img"]', "no kind 'img'"),
        ("mixup = -1", "MixUp: alpha=-1"),
    ],
)
def test_options_that_are_wrong_name_their_place(options, message):
    Path("trainbus.toml").write_text(f'plugins = ["augment"]\n[options.augment]\n{options}\n')
    with pytest.raises(PluginError, match=message) as error:
        Trainer()
    assert "trainbus.toml" in str(error.value)


def test_transforms_and_options_for_them_are_refused():
    with pytest.raises(PluginError, match=r"transforms and mixup=0.4 are both given"):
        Augment(transforms=standard(), mixup=0.4)
    assert Augment(transforms=[Flip(), Brightness(), MixUp(classes=3)], padding="border")


def test_a_run_that_is_stopped_and_resumed_ends_as_one_that_is_not(make_task, make_loader):
    def trainer(directory, **options):
        plugins = [Augment(mixup=0.4, classes=3), Checkpoint(every_steps=3)]
        return Trainer(epochs=3, plugins=plugins, run_dir=directory, seed=2, **options)

    whole, parts = make_task(), make_task()
    trainer("whole").fit(whole, make_loader())
    first = trainer("parts", max_steps=7)
    first.fit(parts, make_loader())
    parts = make_task()
    run = trainer("parts").fit(parts, make_loader(), resume="auto")
    assert run.global_step == 15
    assert len(parts.trained) == 15 - 7, "from inside of the second epoch"
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)
    assert all(
        torch.equal(a[0], b[0]) for a, b in zip(whole.trained[7:], parts.trained, strict=True)
    )


SCRIPT = """
import os, signal, sys
import torch
from torch import nn
from torch.nn import functional
from trainbus import Loader, Task, Trainer
from trainbus.builtin import Checkpoint
from trainbus_augment import Augment

class Net(Task):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    def training_step(self, batch, run):
        return functional.cross_entropy(self.net(batch[0]), batch[1])
    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

fixed = torch.Generator().manual_seed(1)
x = torch.randint(0, 256, (48, 3, 8, 8), dtype=torch.uint8, generator=fixed)
data = torch.utils.data.TensorDataset(x, torch.arange(48) % 3)
loader = Loader(data, batch_size=4, shuffle=True)
plugins = [Augment(cutmix=1.0, classes=3), Checkpoint(every_steps=5)]
trainer = Trainer(epochs=2, plugins=plugins, run_dir=sys.argv[1], seed=3)
kill = int(sys.argv[2])

@trainer.on("train_batch_end")
def die(run):
    if run.global_step == kill:
        os.kill(os.getpid(), signal.SIGKILL)

net = Net()
trainer.fit(net, loader, resume="auto")
print(net.net[1].weight.double().sum().item(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_run_that_is_killed_inside_an_epoch_ends_as_one_that_is_not():
    Path("script.py").write_text(SCRIPT)

    def run(directory, kill):
        return subprocess.run(
            [sys.executable, "script.py", directory, str(kill)],
            env=dict(os.environ), capture_output=True, text=True,
        )  # fmt: skip

    whole = run("whole", 0)
    assert whole.returncode == 0, whole.stderr
    assert run("parts", 8).returncode == -signal.SIGKILL
    resumed = run("parts", 0)
    assert resumed.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1], resumed.stderr


def test_the_package_imports_no_torch_until_it_is_used():
    code = "import sys, trainbus_augment; print('torch' in sys.modules, len(dir(trainbus_augment)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "23"]


@pytest.mark.parametrize("mix", [MixUp(), CutMix(), LabelSmoothing()], ids=repr)
def test_classes_come_from_the_data(mix):
    """In a learner nobody has to count them; with other data they are others."""
    from trainbus_learner import Learner

    seen = []
    pytest.importorskip("trainbus_vision")  # it brings the block of images

    class Net(torch.nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.layer = torch.nn.Linear(192, classes)

        def forward(self, x):
            return self.layer(x.flatten(1))

    def loss(output, target):
        seen.append(tuple(target.shape))
        return torch.nn.functional.cross_entropy(output, target)

    for classes in (3, 5):
        images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
        data = Data.from_tensors((images, torch.arange(40) % classes), batch_size=16)
        learner = Learner(data, Net(classes), loss=loss, plugins=[*QUIET, Augment([mix])])
        learner.fit(1)
        assert (16, classes) in seen
        seen.clear()
    assert mix.classes is None
