"""The verbs of a learner of tables, on small tables made by hand."""

import math

import numpy as np
import pytest
import torch

from trainbus import UsageError
from trainbus_data import Block
from trainbus_data.container import Container
from trainbus_data.items import Tensors
from trainbus_data.recipe import Recipe
from trainbus_data.tables.columns import Table
from trainbus_learner import load
from trainbus_tabular import TableLayout, TableTarget, TabularLearner, table

QUIET = ["-progress", "-journal", "-manifest"]


class Part(Block):
    """An input that is encoded already."""

    def __init__(self, kind):
        self.kind = kind


class Rows(Recipe):
    """Rows as dicts or columns of x, y and colour."""

    def encode(self, source):
        if isinstance(source, Table):
            columns = {name: [source.row(i)[name] for i in range(source.rows)] for name in source}
        elif isinstance(source, dict):
            columns = source
        else:
            columns = {name: [row[name] for row in source] for name in source[0]}
        listed = {k: v if isinstance(v, list) else [v] for k, v in columns.items()}
        numbers = torch.tensor([listed["x"], listed["y"]]).T.float()
        codes = torch.tensor([[COLOURS.get(each, 0)] for each in listed["colour"]])
        return numbers, codes

    def encode_and_look(self, source):
        return *self.encode(source), self.odd(source)

    def odd(self, source):
        rows = [source] if isinstance(source, dict) else source
        return [
            [] if row["colour"] in COLOURS else [f"colour: {row['colour']!r} is new"]
            for row in rows
        ]


COLOURS = {"red": 1, "green": 2}
TARGETS = {
    "class": TableTarget("class", 2, ["no", "yes"], ["answer"]),
    "ordinal": TableTarget("ordinal", 3, ["low", "middle", "high"], ["size"]),
    "labels": TableTarget("labels", 2, ["big", "odd"]),
    "number": TableTarget("number", 1, names=["price"], centre=[100.0], scale=[20.0]),
    "numbers": TableTarget(
        "numbers", 2, names=["a", "b"], centre=[0, 3], scale=[1, 0.5], log=[False, True]
    ),
    "count": TableTarget("count", 1, names=["visits"]),
}


def wanted_of(kind, value):
    """Targets that follow from a value of each row."""
    noisy = value + 0.1 * torch.randn(len(value))
    return {
        "class": (noisy > 0).long(),
        "ordinal": (noisy > -0.5).long() + (noisy > 0.5).long(),
        "labels": torch.stack([noisy > 1, noisy < 0], 1).float(),
        "number": noisy[:, None],
        "numbers": torch.stack([noisy, 0.3 * noisy], 1),
        "count": torch.poisson(value.exp())[:, None],
    }[kind]


def table_of(kind, rows=900, weights=False):
    """Rows whose target follows from a number that is not linear in it, and from a colour."""
    torch.manual_seed(1)
    numbers = torch.randn(rows, 2)
    codes = torch.randint(0, 3, (rows, 1))
    value = torch.sin(2 * numbers[:, 0]) + (codes[:, 0] == 1)
    parts = [numbers, codes, wanted_of(kind, value)]
    blocks = [Part("numbers"), Part("codes"), TableTarget(**TARGETS[kind].options())]
    cut = rows * 2 // 3
    data = Container(
        Rows(tuple(blocks), 2),
        Tensors([part[:cut] for part in parts]),
        Tensors([part[cut:] for part in parts]),
        batch_size=64,
    )
    target = TARGETS[kind]
    vocab = None if target.vocab is None else tuple(target.vocab)
    data.layout = TableLayout(("x", "y"), ("colour",), (3,), kind, target.outputs, vocab)
    return data


def fitted(kind, epochs=8, **options):
    learner = TabularLearner(table_of(kind), seed=0, plugins=QUIET, **options)
    learner.fit_one_cycle(epochs)
    return learner


ENOUGH = {
    "class": ("accuracy", 0.9), "ordinal": ("kappa", 0.8), "labels": ("accuracy", 0.9),
    "number": ("r2", 0.9), "numbers": ("r2", 0.8), "count": ("r2", 0.3),
}  # fmt: skip


@pytest.mark.parametrize("kind", TARGETS)
def test_each_kind_of_target_is_learned_and_measured(kind):
    measured = fitted(kind).validate()
    name, least = ENOUGH[kind]
    assert measured[name] > least
    assert all(math.isfinite(value) for value in measured.values())


@pytest.mark.parametrize("arch", ["linear", "resnet", "tabm", "transformer", "realmlp"])
def test_each_network_learns(arch):
    learner = fitted("class", epochs=4, arch=arch)
    assert learner.validate()["accuracy"] > 0.6
    assert learner.arch == arch


def test_numbers_are_measured_in_the_units_of_the_table():
    learner = fitted("number", 1)
    rows = learner.validate()
    numbers, codes, wanted = learner.data.valid_items.parts
    with torch.no_grad():
        given = learner.model.eval()(numbers, codes)
    assert rows["rmse"] == pytest.approx(20 * (given - wanted).square().mean().sqrt().item(), 1e-4)
    assert rows["mae"] == pytest.approx(20 * (given - wanted).abs().mean().item(), 1e-4)


def test_a_row_and_a_table_are_predicted_alike():
    learner = fitted("class", 2)
    rows = [{"x": 0.5, "y": 1.0, "colour": "red"}, {"x": -0.5, "y": 1.0, "colour": "blue"}]
    table = learner.predictions(rows)
    assert list(table) == ["answer", "probability", "p(no)", "p(yes)"]
    for row, given in zip(rows, table.rows(), strict=True):
        one = learner.predict(row)
        assert one.label == given["answer"]
        assert one.probability == pytest.approx(given["probability"], abs=1e-6)
    assert learner.predict(rows[0]).odd == []
    assert learner.predict(rows[1]).odd == ["colour: 'blue' is new"]
    assert "is new" in repr(learner.predict(rows[1]))


def test_predictions_do_not_depend_on_the_batch_size():
    learner = fitted("number", 1)
    columns = {"x": [0.1 * i for i in range(20)], "y": [0.0] * 20, "colour": ["green"] * 20}
    a, b = learner.predictions(columns), learner.predictions(columns, batch_size=3)
    torch.testing.assert_close(torch.tensor(a["price"]), torch.tensor(b["price"]))


def test_numbers_come_back_in_their_units_also_where_the_logarithm_is_learned():
    target = TARGETS["numbers"]
    label = target.decode(torch.tensor([0.5, 1.0]))
    assert label == pytest.approx({"a": 0.5, "b": math.expm1(3.5)})
    assert TableTarget.from_options(target.options()).decode(torch.tensor([0.5, 1.0])) == label


def test_an_ensemble_is_one_learner_and_better_than_its_members_on_average():
    learner = fitted("number", 3, ensemble=4)
    numbers, codes, wanted = learner.data.valid_items.parts
    with torch.no_grad():
        each = learner.model.eval().outputs(numbers, codes)
        mean = learner.model(numbers, codes)
    torch.testing.assert_close(mean, each.mean(1))
    assert each.std(1).min() > 0
    errors = (each - wanted[:, None]).square().mean((0, 2))
    assert (mean - wanted).square().mean() < errors.mean()
    assert "4 of them" in learner.summary()


def test_the_seed_says_what_is_learned():
    a, b = fitted("class", 1), fitted("class", 1)
    assert a.validate() == b.validate()


def test_baselines_stand_beside_the_learner():
    pytest.importorskip("sklearn")
    learner = fitted("number")
    table = learner.baselines()
    assert [row.name for row in table] == ["constant", "linear", "trees", "this learner"]
    assert table["constant"].metrics["r2"] == pytest.approx(0, abs=0.05)
    assert table["linear"].metrics["r2"] < table["trees"].metrics["r2"]
    assert table["this learner"].metrics == learner.validate()
    assert table["this learner"].seconds > 0


def test_a_calibrated_learner_says_intervals_that_hold_what_is_right():
    learner = fitted("number", 3)
    found = learner.calibrate(0.8)
    numbers, codes, wanted = learner.data.valid_items.parts
    made = learner.predictor().columns(learner.model.eval()(numbers, codes).detach())
    price = 100 + 20 * wanted[:, 0].numpy()
    inside = (made["price_low"] <= price) & (price <= made["price_high"])
    assert inside.mean() == pytest.approx(0.8, abs=0.01)
    assert found.rows == len(wanted)
    low, high = learner.predict({"x": 0.0, "y": 0.0, "colour": "red"}).interval
    assert low < high


def test_calibration_makes_the_loss_no_greater():
    learner = fitted("class", 12, lr=2e-2)
    found = learner.calibrate()
    assert found.loss_after <= found.loss_before + 1e-9
    assert learner.validate()["log_loss"] == pytest.approx(found.loss_after, rel=1e-4)
    numbers, codes, wanted = learner.data.valid_items.parts
    target = learner.data.target
    probabilities = target.activation(learner.model.eval()(numbers, codes).detach())
    held = [
        target.vocab[right] in target.decoded_set(each)
        for each, right in zip(probabilities, wanted.tolist(), strict=True)
    ]
    assert sum(held) / len(held) >= 0.89


def test_too_few_rows_for_a_coverage_are_refused():
    learner = TabularLearner(table_of("number", 30), plugins=QUIET)
    with pytest.raises(UsageError, match="at least 99 are needed"):
        learner.calibrate(0.99)


def test_weights_of_rows_count_in_the_loss():
    from trainbus_tabular.targets import TableLoss

    output, target = torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [3.0]])
    loss = TableLoss("number")
    assert loss(output, (target, torch.tensor([1.0, 0.0]))) == 1
    assert loss(output, target) == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arch": "mpl"}, "did you mean 'mlp'"),
        ({"ensemble": 0}, "ensemble=0: give a whole number of at least 1"),
        ({"embed": "pieces"}, "give one of quantile"),
        ({"arch": torch.nn.Linear(2, 2), "ensemble": 3}, "for a network by name"),
    ],
)
def test_what_cannot_work_is_said(options, said):
    with pytest.raises(UsageError, match=said):
        TabularLearner(table_of("class"), plugins=QUIET, **options)


def test_other_data_than_a_table_are_refused_with_what_would_be_right():
    with pytest.raises(UsageError, match=r"table\('file.csv'"):
        TabularLearner([1, 2])


# --- explaining ----------------------------------------------------------------------------------


def test_what_the_target_follows_from_is_important_and_what_not_is_not():
    found = fitted("number").importance()
    assert set(found.columns[:2]) == {"x", "colour"}
    assert found.columns[2] == "y"
    assert found.losses[1] > 10 * abs(found.losses[2])
    assert found.table()[0]["column"] == found.columns[0]
    assert found.plot().axes[0].get_yticklabels()[0].get_text() == found.columns[0]


def test_partial_dependence_follows_the_target():
    learner = fitted("number")
    rows = {"x": [0.0, 0.1, 0.2] * 5, "y": [0.0] * 15, "colour": ["red"] * 15}
    found = learner.partial_dependence("x", rows, [-0.8, 0.8])
    low, high = found.predicted["price"]
    assert low < 100 + 20 * 0.5 < high
    assert found.table()[0] == {"x": -0.8, "price": low}
    assert found.plot().axes
    with pytest.raises(UsageError, match="did you mean 'colour'"):
        learner.partial_dependence("color", rows)


def test_a_sure_model_that_is_right_has_a_curve_on_the_diagonal():
    learner = fitted("class")
    curve = learner.calibration_curve(bins=5)
    assert sum(curve.count) == len(learner.data.valid_items)
    assert curve.error < 0.1
    assert curve.plot().axes
    with pytest.raises(UsageError, match="no probabilities"):
        TabularLearner(table_of("number"), plugins=QUIET).calibration_curve()


def test_residuals_are_in_units_and_say_where_errors_depend_on_a_column():
    learner = fitted("number", 3)
    (found,) = learner.residuals()
    rmse = (found.actual - found.predicted).square().mean().sqrt()
    torch.testing.assert_close(float(rmse), learner.validate()["rmse"], rtol=1e-4, atol=1e-4)
    assert set(found.by_column) == {"x", "y"}
    assert found.plot().axes


def test_interpret_has_what_is_confused():
    found = fitted("class").interpret()
    assert found.confusion_matrix().sum() == 300
    assert "yes" in found.report()
    assert found.worst(1)[0].loss >= found.worst(2)[1].loss


def test_quantiles_are_learned_and_rise():
    draw = np.random.default_rng(0)
    size = draw.normal(size=2000)
    price = 2 * size + draw.normal(size=2000) * (0.2 + abs(size))
    data = table(
        {"size": size.tolist(), "price": price.tolist()}, "price", quantiles=(0.9, 0.1, 0.5)
    )
    assert "quantiles 0.1, 0.5, 0.9" in data.summary()
    learner = TabularLearner(data, seed=0, plugins=["-progress"])
    learner.fit_one_cycle(6)
    found = learner.validate()
    assert 0.7 < found["coverage"] < 0.9
    rows = learner.baselines(names=["constant", "linear"])
    assert rows["this learner"].metrics["pinball"] < rows["constant"].metrics["pinball"]
    assert 0.7 < rows["linear"].metrics["coverage"] < 0.9
    wide, narrow = (learner.predict({"size": each}).label for each in (2.0, 0.0))
    names = ["price_q0.1", "price_q0.5", "price_q0.9"]
    assert list(wide) == names
    assert sorted(wide.values()) == list(wide.values())
    assert wide[names[2]] - wide[names[0]] > narrow[names[2]] - narrow[names[0]]
    assert list(learner.predictions({"size": [0.0, 1.0]})) == names
    with pytest.raises(UsageError, match="quantiles are learned"):
        learner.calibrate()


def test_an_export_of_quantiles_gives_the_same():
    draw = np.random.default_rng(0)
    size = draw.normal(size=400).tolist()
    data = table(
        {"size": size, "price": [2 * each for each in size]}, "price", quantiles=(0.2, 0.8)
    )
    learner = TabularLearner(data, seed=0, plugins=["-progress"])
    learner.fit_one_cycle(1)
    learner.export("spread")
    asked = {"size": 0.3}
    assert load("spread").predict(asked).label == learner.predict(asked).label
