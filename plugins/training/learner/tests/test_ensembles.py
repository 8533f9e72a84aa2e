"""Several models as one: each learns as it would alone, and their predictions are averaged."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import UsageError
from trainbus_learner import Ensemble, Learner, load
from trainbus_learner.ensembles import mean_output
from trainbus_learner.groups import ParameterGroups

QUIET = ["-progress", "-journal", "-manifest"]


def plain(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 10)
    )


def steps(model, batches):
    """A few steps with the learner's own optimizer and loss; the weights after them."""
    learner = Learner((batches, None), model, loss=functional.cross_entropy, plugins=QUIET)
    learner.fit(1, lr=1e-2)
    return learner


@pytest.fixture
def batches():
    torch.manual_seed(5)
    return [(torch.rand(20, 1, 8, 8), torch.randint(10, (20,))) for _ in range(4)]


def test_each_member_learns_what_it_would_learn_alone(batches):
    together = steps(Ensemble([plain(0), plain(1)]), batches).model
    for place in (0, 1):
        alone = steps(plain(place), batches).model
        given = together.eval().outputs(batches[0][0])[:, place]
        torch.testing.assert_close(given, alone.eval()(batches[0][0]), atol=3e-3, rtol=0)


def test_with_norms_over_batches_members_run_one_after_the_other(batches, make_model):
    members = [make_model(0), make_model(1)]
    model = steps(Ensemble(members), batches).model
    assert model.each is not None
    assert model(batches[0][0]).shape == (20, 2, 10)
    assert model.eval()(batches[0][0]).shape == (20, 10)
    assert not torch.equal(members[0][0][1].running_mean, torch.zeros(8))


def test_what_gets_no_decay_alone_gets_none_together():
    groups = ParameterGroups(Ensemble([plain(0), plain(1)])).optimizer_groups([1e-3])
    sizes = [sum(p.numel() for p in each["params"]) for each in groups]
    assert sizes == [2 * (64 * 16 + 160), 2 * (16 + 32 + 10)]
    assert groups[1]["weight_decay"] == 0


@pytest.mark.parametrize(
    ("of", "to"), [("softmax", torch.softmax), ("exp", None), ("sigmoid", None)]
)
def test_the_mean_is_one_of_probabilities(of, to):
    outputs = 3 * torch.randn(5, 4, 3)
    read = {"softmax": lambda x: x.softmax(-1), "exp": torch.exp, "sigmoid": torch.sigmoid}[of]
    torch.testing.assert_close(read(mean_output(outputs, of)), read(outputs).mean(1))


def test_dropout_differs_between_members(batches):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))
    made = Ensemble([model, model])(batches[0][0])
    assert not torch.equal(made[:, 0], made[:, 1])


@pytest.mark.parametrize("format", ["weights", "torch.export"])
def test_an_ensemble_is_exported_as_one(data, format):
    learner = Learner(data, Ensemble([plain(0), plain(1)]), plugins=QUIET)
    learner.fit(1)
    learner.export("out", format=format)
    model = {"model": Ensemble([plain(2), plain(3)])} if format == "weights" else {}
    image = data.valid_items.parts[0][0]
    given = load("out", **model).predict(image).probabilities
    torch.testing.assert_close(given, learner.predict(image).probabilities)


def test_members_of_different_architectures_are_refused():
    with pytest.raises(UsageError, match="one architecture"):
        Ensemble([nn.Linear(2, 2), nn.Linear(3, 2)])
    with pytest.raises(UsageError, match="give one of softmax"):
        Ensemble([nn.Linear(2, 2)], mean="median")
