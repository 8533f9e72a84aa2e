"""Category, Categories, Labels and Number: codes and back, losses, metrics, readings."""

import numpy as np
import pytest
import torch

from trainbus_data import Categories, Category, DataError, Labels, Number, block_from_state


def test_category_learns_its_vocabulary_from_training():
    """Sorted, and back again; the model needs one output for each."""
    block = Category()
    block.setup(["dog", "cat", "dog"])
    assert block.vocab == ["cat", "dog"]
    assert block.outputs == 2
    assert [block.decode(block.encode(word)) for word in ("dog", "cat")] == ["dog", "cat"]


def test_category_takes_numbers_for_names():
    """Where the vocabulary is names, integers are their indices."""
    block = Category(["zero", "one"])
    assert int(block.encode(1)) == int(block.encode("one")) == 1
    assert block.encode_all(torch.tensor([1, 0])).tolist() == [1, 0]


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_category_encodes_all_at_once(kind):
    """Arrays, tensors and lists, of numbers that need not be 0 to C."""
    block = Category()
    block.setup([5, 7, 9])
    assert block.encode_all(kind([9, 5, 7, 7])).tolist() == [2, 0, 1, 1]


def test_category_loss_takes_probabilities():
    """Mixed targets, as of MixUp, are targets too, and the metric reads them."""
    block = Category(["a", "b"])
    output = torch.randn(4, 2)
    hard = torch.tensor([0, 1, 1, 0])
    soft = torch.nn.functional.one_hot(hard, 2).float()
    assert torch.allclose(block.loss()(output, hard), block.loss()(output, soft))
    accuracy = block.metrics()["accuracy"]
    assert accuracy(output, hard) == accuracy(output, soft)


def test_category_reads_predictions():
    """Probabilities that sum to one, then the index of the greatest."""
    block = Category(["a", "b", "c"])
    probabilities = block.activation(torch.tensor([[0.0, 5.0, 1.0]]))
    assert torch.allclose(probabilities.sum(), torch.tensor(1.0))
    assert block.decode(block.read(probabilities)[0]) == "b"


def test_one_class_is_refused():
    """There is nothing to learn."""
    with pytest.raises(DataError, match="all labels of the training part are 'cat'"):
        Category().setup(["cat", "cat"])


def test_unknown_label_has_the_nearest_one():
    """A label that training never saw is named, with what is known."""
    block = Category()
    block.setup(["cat", "dog"])
    problem = block.problem("dgo")
    assert "'dgo' is not among the labels of the training part" in problem
    assert "did you mean 'dog'?" in problem
    assert block.problem(None) == block.problem(float("nan")) == "the label is missing"
    assert block.problem("dog") is None


def test_categories_from_lists_and_texts():
    """Several labels in a list, or in one text with a delimiter; none is an empty one."""
    block = Categories(delimiter=" ")
    block.setup(["cat dog", "", "bird"])
    assert block.vocab == ["bird", "cat", "dog"]
    assert block.encode("dog cat").tolist() == [0, 1, 1]
    assert block.decode(block.encode(["bird", "dog"])) == ["bird", "dog"]
    assert block.encode("").sum() == 0
    assert "missing" in block.problem(None)
    assert "'cow'" in block.problem("cow")


def test_categories_metrics_and_reading():
    """Above the threshold is predicted; F1 counts over all batches."""
    block = Categories(["a", "b"])
    output = torch.tensor([[3.0, -3.0], [3.0, 3.0]])
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    metrics = block.metrics()
    assert metrics["accuracy"](output, target) == 0.75
    f1 = metrics["f1"]
    for row in (0, 1):
        f1.update(output[row : row + 1], target[row : row + 1])
    assert f1.compute() == pytest.approx(0.8)
    assert block.read(block.activation(output)).tolist() == [[1, 0], [1, 1]]
    assert block.loss()(output, target).ndim == 0


def test_number_is_a_column():
    """N x 1 with one output, so that nothing is broadcast against a model's N x 1."""
    block = Number()
    batch = block.batch([block.encode(3.5), block.encode("2"), block.encode(np.float64(1))])
    assert batch.tolist() == [[3.5], [2.0], [1.0]]
    assert block.decode(batch[0]) == 3.5
    output = torch.tensor([4.5, 2.0, 1.0])
    assert block.loss()(output, batch) == pytest.approx(1 / 3)
    assert block.loss()(output[:, None], batch) == pytest.approx(1 / 3)
    assert block.metrics()["mae"](output, batch) == pytest.approx(1 / 3)


def test_number_names_what_is_wrong():
    """Missing, infinite, a word, or of another count."""
    assert Number().problem(None) == "the number is missing"
    assert "not finite" in Number().problem(float("inf"))
    assert "could not convert" in Number().problem("many")
    assert "3 numbers" in Number(2).problem([1, 2, 3])
    assert Number(2).problem((1, 2)) is None


def test_labels_are_padded():
    """As many as there are boxes; -1 follows where others have more."""
    block = Labels()
    block.setup([["car", "bus"], ["bus"]])
    batch = block.batch([block.encode(["car", "bus"]), block.encode(["bus"])])
    assert batch.tolist() == [[1, 0], [0, -1]]
    assert block.decode(batch[1]) == ["bus"]


def test_wrong_number_of_outputs_is_named():
    """The check that a learner makes: what the model gives, and what is needed."""
    block = Category(["ants", "bees"])
    with pytest.raises(DataError, match=r"gives 3 outputs .* 2 outputs, one for each of 'ants'"):
        block.check_output(torch.zeros(4, 3))
    block.check_output(torch.zeros(4, 2))
    Number().check_output(torch.zeros(4))


@pytest.mark.parametrize(
    "block",
    [
        Category(["a", "b"]), Categories([1, 2], delimiter=";", threshold=0.3), Number(3),
        Labels(["x", "y"]),
    ],
)  # fmt: skip
def test_state_makes_an_equal_block(block):
    """What a fresh process needs is in the state."""
    assert block_from_state(block.state()).state() == block.state()


def test_unknown_block_in_a_state():
    """A state never makes Python import what it names; your own classes are given."""
    with pytest.raises(DataError, match="did you mean 'Number'"):
        block_from_state({"block": "Nummber"})

    class Own(Number):
        pass

    assert type(block_from_state(Own().state(), [Own])) is Own


@pytest.mark.parametrize("star", [3, 3.0, "3", np.int64(3), np.float32(3), np.str_("3")])
@pytest.mark.parametrize("vocab", [["1", "2", "3"], [1, 2, 3], [1.0, 2.0, 3.0]])
def test_a_number_is_the_label_that_is_written_so(star, vocab):
    """Whatever type it has: it is no index where the vocabulary holds numbers."""
    block = Category(vocab)
    assert int(block.encode(star)) == 2
    assert "0 is not among" in block.problem(0)
    assert block.encode_all([star, star]).tolist() == [2, 2]


def test_bool_labels_are_words():
    """From a table they may be texts."""
    block = Category()
    block.setup([True, False, np.True_])
    assert block.vocab == [False, True]
    assert int(block.encode("True")) == int(block.encode(np.True_)) == 1
    assert Category(["a", "b"]).problem(True) is not None


def test_labels_that_are_one_but_for_spaces_are_refused():
    """They would be two classes; those that differ in capitals are, which is said."""
    with pytest.raises(DataError, match="'cat' and 'cat ' are two labels that differ in spaces"):
        Category().setup(["cat", "dog", "cat "])
    with pytest.raises(DataError, match="1 and '1' are two labels"):
        Category([1, "1"])


def test_labels_that_differ_in_capitals_are_said(caplog):
    """Letters may be such classes, "Cat" and "cat" rather not."""
    block = Category()
    block.setup(["Cat", "cat", "dog"])
    assert block.vocab == ["Cat", "cat", "dog"]
    assert "'Cat' and 'cat' are two classes, which differ in capitals alone" in caplog.text


def test_fractions_are_no_classes():
    """A column of measurements; whole numbers that came as floats are classes."""
    with pytest.raises(DataError, match=r"numbers with fractions, 1\.5 for example: Number\(\)"):
        Category().setup([1.0, 1.5, 3.0])
    block = Category()
    block.setup([1.0, 2.0, float("nan")])
    assert block.vocab == [1, 2]


def test_labels_in_a_column_of_one_are_labels():
    """N x 1 as N."""
    block = Category()
    column = np.array([[3], [5], [3]])
    block.setup(column)
    assert block.vocab == [3, 5]
    assert block.encode_all(column).tolist() == [0, 1, 0]


def test_what_the_loss_ignores_is_no_class():
    """-100 would be one of its own."""
    with pytest.raises(DataError, match="-100 is a label, which the loss takes for none"):
        Category().setup([0, 1, -100])


def test_several_labels_where_one_is_expected():
    """Refused with the block that takes them."""
    assert "for several of an item: Categories()" in Category(["a", "b"]).problem(["a", "b"])


def test_a_table_of_zeros_and_ones_says_how_many_labels():
    """As many as columns; other numbers and another width are refused."""
    block = Categories()
    hot = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    block.setup(hot)
    assert block.vocab == [0, 1, 2]
    assert torch.equal(block.encode_all(hot), hot)
    for wrong in (hot * 3, hot * float("nan"), hot[:, :2]):
        with pytest.raises(DataError, match=r"zeros and ones|2 columns for 3 labels"):
            block.encode_all(wrong)


def test_a_missing_label_among_several_is_named():
    """It is no word of the vocabulary."""
    block = Labels()
    block.setup([["car", None], ["bus"]])
    assert block.vocab == ["bus", "car"]
    assert block.problem(["car", None]) == "the label is missing"


def test_numbers_in_texts_and_missing_ones():
    """Arrays of texts are read one by one, and the item is named."""
    assert Number().encode_all(np.array(["1.5", "2"])).tolist() == [[1.5], [2.0]]
    with pytest.raises(DataError, match=r"item 1: .*could not convert"):
        Number().encode_all(["1.5", "NA"])
