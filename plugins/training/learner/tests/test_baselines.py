"""The classical answers beside a learner's own."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import UsageError
from trainbus_data import Categories, Category, Data, Number
from trainbus_learner import Learner, Problem, Unsuited, baselines

QUIET = ["-progress", "-journal", "-manifest"]


def test_of_images_there_are_the_constant_one_and_the_linear_one(data, make_model):
    learner = Learner(data, make_model(), plugins=QUIET)
    table = learner.baselines()
    assert [row.name for row in table] == ["constant", "linear", "this learner"]
    assert table["constant"].metrics["accuracy"] < 0.15
    assert table["linear"].metrics["accuracy"] > 0.93
    assert table["this learner"].metrics == learner.validate()
    lines = str(table).splitlines()
    assert lines[0].split() == ["loss", "accuracy", "seconds"]
    assert len({len(line) for line in lines}) == 1


def test_of_loaders_too(loaders, make_model):
    learner = Learner(loaders, make_model(), loss=functional.cross_entropy, plugins=QUIET)
    assert learner.baselines(names=["linear"])["linear"].metrics["accuracy"] > 0.9


def test_a_linear_function_is_found_in_closed_form():
    values = torch.randn(300, 3)
    wanted = values @ torch.tensor([[1.0], [2.0], [-1.0]]) + 5
    data = Data.from_tensors(
        (values[:200], wanted[:200]), (values[200:], wanted[200:]), blocks=(Number(3), Number(1))
    )
    table = Learner(data, nn.Linear(3, 1), plugins=QUIET).baselines(names=["constant", "linear"])
    assert table["linear"].metrics["loss"] < 1e-3
    assert table["constant"].metrics["loss"] == pytest.approx(float(wanted.var()), rel=0.3)


def problem(kind, target, outputs, **options):
    torch.manual_seed(0)
    values = torch.randn(len(target), 4)
    return Problem(kind, outputs, (values,), target, (values,), **options)


def test_the_constant_answer_is_what_occurs():
    target = torch.tensor([0, 0, 0, 1])
    made = baselines.constant(problem("category", target, 3))
    torch.testing.assert_close(made[0, :2].exp(), torch.tensor([0.75, 0.25]))
    flags = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    made = baselines.constant(problem("categories", flags, 2)).sigmoid()
    torch.testing.assert_close(made[0], torch.tensor([1.0, 0.25]), atol=1e-5, rtol=0)


def test_the_linear_answer_is_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    target = torch.randint(3, (200,))
    asked = problem("category", target, 3)
    values = asked.inputs[0]
    scaled = ((values - values.mean(0)) / values.std(0, correction=0)).numpy()
    wanted = linear_model.LogisticRegression(C=1.0, tol=1e-8).fit(scaled, target)
    torch.testing.assert_close(
        baselines.linear(asked).exp().double(),
        torch.from_numpy(wanted.predict_proba(scaled)).double(), atol=1e-3, rtol=0,
    )  # fmt: skip


def test_trees_take_codes_as_categories():
    pytest.importorskip("sklearn")
    codes = torch.randint(40, (2000, 1))
    target = (codes[:, 0] * 7919 % 11 < 5).long()  # no order of the codes says it
    numbers = torch.randn(2000, 1)
    made = baselines.boosted_trees(
        Problem("category", 2, (numbers, codes), target, (numbers, codes))
    )
    assert (made.argmax(1) == target).float().mean() > 0.99


def test_what_does_not_suit_is_left_out_or_said_where_it_was_asked_for(data, make_model):
    learner = Learner(data, make_model(), plugins=QUIET)
    row = learner.baselines(names=["trees"])["trees"]
    assert row.metrics == {} and "rows of numbers" in row.note
    assert "rows of numbers" in str(learner.baselines(names=["trees"]))
    with pytest.raises(Unsuited):
        baselines.constant(problem("points", torch.zeros(4, 2), 2))


def test_a_name_that_is_none_is_refused(data, make_model):
    with pytest.raises(UsageError, match="did you mean 'linear'"):
        Learner(data, make_model(), plugins=QUIET).baselines(names=["liner"])


def test_a_baseline_of_another_distribution_is_in_the_table(data, make_model, own_distribution):
    code = "    return torch.zeros(len(problem.asked[0]), problem.outputs)\n"
    own_distribution(
        "trainbus.baselines", "nearest", f"import torch\ndef nearest(problem):\n{code}"
    )
    row = Learner(data, make_model(), plugins=QUIET).baselines()["nearest"]
    assert row.metrics["loss"] == pytest.approx(math.log(10))


@pytest.fixture
def own_distribution(tmp_path, monkeypatch):
    """Makes a module with one function, and the metadata of a distribution that offers it."""

    def make(group, name, code):
        info = tmp_path / "own_baselines-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-baselines\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = own_baselines:{name}\n")
        (tmp_path / "own_baselines.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)

    return make


def test_several_labels_have_a_linear_answer():
    values = torch.randn(400, 2)
    flags = (values > 0).float()
    data = Data.from_tensors(
        (values[:300], flags[:300]), (values[300:], flags[300:]),
        blocks=(Number(2), Categories(["a", "b"])),
    )  # fmt: skip
    table = Learner(data, nn.Linear(2, 2), plugins=QUIET).baselines(names=["linear"])
    assert table["linear"].metrics["accuracy"] > 0.97


def test_the_seconds_of_fits_are_counted(data, make_model):
    learner = Learner(data, make_model(), plugins=QUIET)
    assert learner.seconds == 0
    learner.fit(1)
    assert learner.seconds > 0
    assert isinstance(data.target, Category)
