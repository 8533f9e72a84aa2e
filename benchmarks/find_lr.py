"""How good the rates are that `find_lr` suggests: `python benchmarks/find_lr.py --data DIR`.

DIR has the files of MNIST and the folder hymenoptera-160 with train and val. For each task and seed
a cycle is trained at rates from 1e-4 to 1e-1; a rule's score is the validation loss at its
suggestion (interpolated) over the best one. Processor time: a quarter of an hour on one core.
"""

import argparse
import math
import tempfile
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import torch
from torch import nn

from trainbus_data import Data
from trainbus_learner import Learner
from trainbus_vision import ImageLearner, image_folder, mnist
from trainbus_vision.demo import digits

RATES = [1e-4 * 10 ** (half / 2) for half in range(7)]


class Flat(nn.Module):
    """A network of two hidden layers, with batch norm or without."""

    def __init__(self, norm):
        super().__init__()
        sizes = [784, 128, 64]
        layers = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), *([nn.BatchNorm1d(after)] * norm), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(64, 10))

    def forward(self, x):
        return self.layers(x.flatten(1))


def tasks(folder, options):
    """By name: what makes a learner for a seed, and how many epochs."""
    whole = mnist(folder)
    (x, y), (vx, vy) = whole.train_items.parts, whole.valid_items.parts

    def part(classes, count, batch_size=64):
        of, valid = (torch.isin(labels, torch.tensor(classes)) for labels in (y, vy))
        train = x[of][:count], y[of][:count]
        return Data.from_tensors(train, (vx[valid][:1500], vy[valid][:1500]), batch_size=batch_size)

    def images(data, **more):
        return lambda seed: ImageLearner(data, "small_cnn", seed=seed, **options, **more)

    def flat(norm):
        def make(seed):
            torch.manual_seed(seed)
            return Learner(some, Flat(norm), seed=seed, **options)

        return make

    some, photos = part(range(10), 3000), Path(folder) / "hymenoptera-160"
    first = images(part(range(5), 4000))(0)
    first.fit_one_cycle(2, 3e-3)
    weights = Path(options["run_dir"]) / "first.pth"
    torch.save(first.model.state_dict(), weights)
    small = image_folder(photos, size=48, memory=True, batch_size=16)
    return {
        "digits, small_cnn": (images(digits()), 3),
        "MNIST, small_cnn": (images(some), 2),
        "MNIST, plain": (flat(False), 3),
        "MNIST, plain with batch norm": (flat(True), 3),
        "photos, small_cnn": (images(small, augment=False), 5),
        "MNIST 5 to 9, trained on 0 to 4": (
            images(part(range(5, 10), 1000, 32), weights=weights),
            2,
        ),
    }


def at(rate, losses):
    """The loss at a rate, between those that were tried."""
    rate = min(max(rate, RATES[0]), RATES[-1])
    place = min(sum(other < rate for other in RATES[1:]), len(RATES) - 2)
    share = math.log(rate / RATES[place]) / math.log(RATES[place + 1] / RATES[place])
    return math.exp(math.log(losses[place]) * (1 - share) + math.log(losses[place + 1]) * share)


def main():
    """Train, and print each rule's score for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    scores = defaultdict(list)
    with tempfile.TemporaryDirectory() as runs:
        plugins = ["-progress", "-journal", "-manifest"]
        for task, (make, epochs) in tasks(
            given.data, {"plugins": plugins, "run_dir": runs}
        ).items():
            for seed in range(given.seeds):
                suggested = make(seed).find_lr().suggestions | {"3e-3": 3e-3}
                losses = []
                for rate in RATES:
                    learner = make(seed)
                    learner.fit_one_cycle(epochs, rate)
                    losses.append(learner.validate()["loss"])
                found = {rule: at(rate, losses) / min(losses) for rule, rate in suggested.items()}
                print(f"{task}, seed {seed}:", {rule: round(x, 2) for rule, x in found.items()})
                for rule, score in found.items():
                    scores[rule].append(score)
    for rule, each in scores.items():
        mean = math.exp(fmean(map(math.log, each)))
        print(f"{rule:12} mean {mean:.2f}, worst {max(each):.2f}")


if __name__ == "__main__":
    main()
