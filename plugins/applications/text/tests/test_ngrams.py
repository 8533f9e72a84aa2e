"""N-grams by their hash: the same as counted by hand, whatever the signs are."""

import re

import pytest
import torch

from trainbus_data import DataError
from trainbus_text import NGrams


def by_hand(text, words, characters):
    """The n-grams of a text, as texts."""
    found = re.findall(r"\w+|[^\w\s]", text.lower())
    made = {
        ("w", *found[i : i + n]) for n in range(1, words + 1) for i in range(len(found) - n + 1)
    }
    for word in found:
        whole = f" {word} "
        for n in range(characters[0], characters[1] + 1):
            made |= {("c", whole[i : i + n]) for i in range(len(whole) - n + 1)}
    return made


@pytest.mark.parametrize("text", ["A card, a CARD!", "ein über-Öl", "x", "a b a b a", "日本 go"])
def test_a_text_has_as_many_n_grams_as_counted_by_hand(text):
    made = NGrams(2, (2, 3)).fit([text])
    flat, lengths = made.encode_all([text])
    assert lengths.tolist() == [len(by_hand(text, 2, (2, 3)))] == [len(set(flat.tolist()))]


def test_numbers_of_words_come_before_those_of_characters():
    made = NGrams(1, (3, 3)).fit(["one two"])
    assert made.split == 2 and made.size == 1 + 2 + 6


def test_what_training_had_not_is_left_out():
    made = NGrams(1, None).fit(["card money"])
    assert made.encode_all(["card screen", "screen", ""])[1].tolist() == [1, 0, 0]


def test_texts_do_not_touch_each_other():
    made = NGrams(2, None).fit(["a b", "c d"])
    assert made.size == 1 + 6


@pytest.mark.parametrize(
    "text",
    [
        "\ud800 half",
        "nul\x00 here",
        "\u202e\u05e9\u05dc\u05d5\u05dd",
        "e\u0301t\u0301e",
        "😀😀",
        "\t\n ",
    ],
)
def test_any_text_is_encoded(text):
    made = NGrams().fit([text, "plain"])
    assert made.encode_all([text])[1][0] == (0 if not text.strip() else made.encode_all([text])[1])


def test_only_frequent_ones_are_kept_where_that_is_asked():
    assert NGrams(1, None, at_least=2).fit(["a b", "a c", "a a"]).size == 2


def test_a_state_makes_the_same_numbers():
    made = NGrams().fit(["the card", "the money"])
    again = NGrams.from_state(made.state(), made.tensors())
    one, other = (each.encode_all(["my card is the money"]) for each in (made, again))
    assert one[0].tolist() == other[0].tolist() and made.hash == again.hash
    assert torch.equal(torch.from_numpy(made.weights()), torch.from_numpy(again.weights()))


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(DataError, match="nothing to count"):
        NGrams(0, None)
    with pytest.raises(DataError, match="give \\(from, to\\)"):
        NGrams(1, (3, 2))
