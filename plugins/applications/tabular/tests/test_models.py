"""The networks give what the authors' packages give with the same weights."""

import pytest
import torch
from torch import nn

from trainbus import UsageError
from trainbus_tabular.backbones import MiniEnsemble, ResidualBlocks, Transformer
from trainbus_tabular.bins import quantile_bins, target_bins
from trainbus_tabular.embeddings import Categories, Periodic, PiecewiseLinear
from trainbus_tabular.model import ARCHS, TableModel, rebuild

ROWS, NUMBERS, CARDINALITIES, OUTPUTS = 50, 4, (3, 12), 3


@pytest.fixture
def rows():
    """Numbers and codes of some rows; a column of zeros and ones among the numbers."""
    torch.manual_seed(0)
    numbers = torch.randn(ROWS, NUMBERS)
    numbers[:, 3] = (numbers[:, 3] > 0).float()
    codes = torch.stack([torch.randint(size, (ROWS,)) for size in CARDINALITIES], 1)
    return numbers, codes


def copy_in_order(source, target):
    """Give all weights of one module to another that has them in the same order."""
    values = [p.detach().clone() for p in source.parameters()]
    with torch.no_grad():
        for parameter, value in zip(target.parameters(), values, strict=True):
            parameter.copy_(value)


def same(given, wanted):
    torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-6)


# --- as the authors have it ----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The 3-th feature has just two bin edges")
def test_piecewise_linear_embeddings_are_those_of_the_authors(rows):
    authors = pytest.importorskip("rtdl_num_embeddings")
    numbers = rows[0]
    bins = quantile_bins(numbers, 6, 0)
    theirs = authors.PiecewiseLinearEmbeddings(bins, 5, activation=False, version="B")
    with torch.no_grad():
        theirs.linear.weight.normal_()
    ours = PiecewiseLinear([len(edges) - 1 for edges in bins], 5).take(bins)
    copy_in_order(theirs, ours)
    same(ours(3 * numbers), theirs(3 * numbers))


def test_quantiles_are_those_of_the_authors():
    authors = pytest.importorskip("rtdl_num_embeddings")
    numbers = torch.randn(500, 3)
    for ours, theirs in zip(
        quantile_bins(numbers, 12, 0), authors.compute_bins(numbers, n_bins=12), strict=True
    ):
        same(ours, theirs)


def test_periodic_embeddings_are_those_of_the_authors(rows):
    authors = pytest.importorskip("rtdl_num_embeddings")
    theirs = authors.PeriodicEmbeddings(
        NUMBERS, 6, n_frequencies=5, frequency_init_scale=0.3, lite=False
    )
    ours = Periodic(NUMBERS, 6, 5)
    copy_in_order(theirs, ours)
    same(ours(rows[0]), theirs(rows[0]))


def test_tabm_mini_is_that_of_the_authors(rows):
    authors = pytest.importorskip("tabm")
    numbers, codes = rows
    theirs = authors.TabM(
        n_num_features=NUMBERS, cat_cardinalities=list(CARDINALITIES), d_out=OUTPUTS, k=4,
        n_blocks=2, d_block=16, dropout=0.1, arch_type="tabm-mini", start_scaling_init="normal",
    ).eval()  # fmt: skip
    ours = MiniEnsemble([1] * NUMBERS + list(CARDINALITIES), OUTPUTS, 4, 16, 2).eval()
    copy_in_order(theirs.backbone.blocks, ours.body)
    copy_in_order(theirs.output, ours.output)
    ours.scales.data.copy_(theirs.backbone.affine.weight)
    ones = Categories(CARDINALITIES, one_hot=99)
    same(ours(torch.cat([numbers, ones(codes)], 1)), theirs(numbers, codes))


def test_the_resnet_is_that_of_the_authors(rows):
    authors = pytest.importorskip("rtdl_revisiting_models")
    theirs = authors.ResNet(
        d_in=NUMBERS, d_out=OUTPUTS, n_blocks=2, d_block=8, d_hidden_multiplier=2.0,
        dropout1=0.2, dropout2=0.0,
    )  # fmt: skip
    ours = ResidualBlocks(NUMBERS, OUTPUTS, 8, 2, dropout=0.2)
    theirs(rows[0])  # statistics of the norms
    copy_in_order(theirs, ours)
    for given, wanted in zip(ours.buffers(), theirs.buffers(), strict=True):
        given.copy_(wanted)
    same(ours.eval()(rows[0]), theirs.eval()(rows[0]))


def test_ft_transformer_is_that_of_the_authors(rows):
    authors = pytest.importorskip("rtdl_revisiting_models")
    theirs = authors.FTTransformer(
        n_cont_features=NUMBERS, cat_cardinalities=list(CARDINALITIES), d_out=OUTPUTS,
        n_blocks=2, d_block=16, attention_n_heads=4, attention_dropout=0.1, ffn_d_hidden=None,
        ffn_d_hidden_multiplier=4 / 3, ffn_dropout=0.1, residual_dropout=0.0,
    ).eval()  # fmt: skip
    ours = Transformer(NUMBERS, CARDINALITIES, OUTPUTS, 16, 4, 2).eval()
    state = theirs.state_dict()
    parts = {
        "cls_embedding.weight": "row", "cont_embeddings": "numbers",
        "cat_embeddings.bias": "shift", "backbone.output.normalization": "output.0",
        "backbone.output.linear": "output.2", "backbone.": "", "attention.W_q": "attention.query",
        "attention.W_k": "attention.key", "attention.W_v": "attention.value",
        "attention.W_out": "attention.out", "attention_normalization": "before",
        "ffn_normalization": "norm", "ffn.linear1": "wide", "ffn.linear2": "narrow",
    }  # fmt: skip
    named = {"table.weight": torch.cat([
        state.pop(f"cat_embeddings.embeddings.{i}.weight") for i in range(len(CARDINALITIES))
    ])}  # fmt: skip
    for name, value in state.items():
        for theirs_name, ours_name in parts.items():
            name = name.replace(theirs_name, ours_name)
        named[name] = value
    ours.load_state_dict(named)
    same(ours(*rows), theirs(*rows))


# --- by name -------------------------------------------------------------------------------------


def made(arch, rows, **options):
    pieces = [2] * NUMBERS
    return TableModel(NUMBERS, CARDINALITIES, OUTPUTS, "class", arch, pieces=pieces, **options)


@pytest.mark.parametrize("arch", ARCHS)
def test_each_network_gives_an_output_for_each_row_and_learns(arch, rows):
    model = made(arch, rows)
    if isinstance(model.embed, PiecewiseLinear):
        model.embed.take(quantile_bins(rows[0], 2, 0))
    output = model(*rows)
    assert output.shape == ((ROWS, 8, OUTPUTS) if model.gives_members else (ROWS, OUTPUTS))
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.eval()(*rows).shape == (ROWS, OUTPUTS)


@pytest.mark.parametrize("arch", ARCHS)
def test_columns_of_one_kind_are_enough(arch, rows):
    for numbers, sizes in ((NUMBERS, ()), (0, CARDINALITIES)):
        model = TableModel(numbers, sizes, 1, "number", arch, pieces=[2] * numbers).eval()
        assert model(rows[0][:, :numbers], rows[1][:, : len(sizes)]).shape == (ROWS, 1)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_description_makes_the_same_network_again(arch, rows):
    model = made(arch, rows).eval()
    again = rebuild(**model.description)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(*rows), model(*rows))


def test_what_is_no_network_is_refused_with_those_that_are():
    with pytest.raises(UsageError, match="did you mean 'linear'"):
        TableModel(1, (), 1, "number", "liner")
    with pytest.raises(UsageError, match="wide"):
        TableModel(1, (), 1, "number", "realmlp", wide=3)
    with pytest.raises(UsageError, match="no column"):
        TableModel(0, (), 1, "number")


def test_the_prediction_of_members_is_the_mean_of_their_probabilities(rows):
    model = made("tabm", rows).eval()
    inputs = torch.cat([model.embed(rows[0]).flatten(1), model.categories(rows[1])], 1)
    wanted = model.body(inputs).softmax(-1).mean(1)
    same(model(*rows).softmax(-1), wanted)


# --- edges ---------------------------------------------------------------------------------------


def test_a_tree_puts_its_edges_where_the_target_changes():
    column = torch.linspace(0, 1, 1000)
    target = (column > 0.3).long()
    edges = target_bins(column[:, None], target)[0]
    assert len(edges) == 3
    assert edges[1].item() == pytest.approx(0.3, abs=2e-3)


def test_the_trees_are_those_of_scikit_learn():
    tree = pytest.importorskip("sklearn.tree")
    torch.manual_seed(0)
    column = torch.randn(3000)
    target = torch.sin(3 * column) + 0.3 * torch.randn(3000)
    fitted = tree.DecisionTreeRegressor(
        max_leaf_nodes=12, min_samples_leaf=60, min_impurity_decrease=1e-4
    ).fit(column[:, None].numpy(), ((target - target.mean()) / target.std()).numpy())
    wanted = sorted(t for t, f in zip(fitted.tree_.threshold, fitted.tree_.feature) if f == 0)  # noqa: B905
    given = target_bins(column[:, None], target[:, None], 12)[0]
    same(given[1:-1], torch.tensor(wanted, dtype=torch.float32))


def test_values_that_few_rows_have_get_edges_too():
    column = torch.cat([torch.zeros(1000), torch.arange(1.0, 21)])[:, None]  # 1,020 rows
    assert len(quantile_bins(column, 10, 0)[0]) == 2
    assert len(quantile_bins(column, 10, 20)[0]) > 20


@pytest.mark.parametrize("column", [torch.zeros(5), torch.tensor([1.0])])
def test_columns_without_splits_have_one_piece(column):
    target = torch.arange(float(len(column)))[:, None]
    for edges in (quantile_bins(column[:, None])[0], target_bins(column[:, None], target)[0]):
        assert len(edges) == 2
        assert edges[0] < edges[1]


def test_weights_that_stand_for_biases_get_no_decay():
    from trainbus_learner.groups import ParameterGroups

    model = TableModel(2, (), 1, "number", "mlp", pieces=[2, 2])
    halves = ParameterGroups(model).optimizer_groups([1e-3])
    plain = {id(p) for half in halves if "weight_decay" in half for p in half["params"]}
    assert id(model.embed.line.weight) in plain
    assert id(model.embed.linear.weight) not in plain
    assert isinstance(model.body[0], nn.Linear)
