"""Tokens that are learned, and back to the text."""

import json

import pytest

from trainbus_data import DataError
from trainbus_text import Bytes, Characters, Subwords
from trainbus_text.tokens import from_state, made

TEXTS = ["The cat sees a fish.", "A dog likes the rain.", "naïve café — 日本 😀"] * 20


@pytest.mark.parametrize("tokens", [Characters(), Bytes(), Subwords("bpe", 400)])
def test_a_text_comes_back_as_it_was(tokens):
    fitted = tokens.fit(TEXTS)
    flat, lengths = fitted.encode_all(TEXTS[:3])
    assert fitted.decode(flat[-lengths[-1] :].tolist()) == TEXTS[2]
    assert flat.min() > 0 and flat.max() < fitted.size


@pytest.mark.parametrize("name", ["words", "bpe:300", "wordpiece:200", "unigram:120"])
def test_a_state_makes_the_same_tokens(name):
    fitted = made(name, "bpe").fit(TEXTS)
    again = from_state(json.loads(json.dumps(fitted.state())), {})
    assert again.encode_all(TEXTS)[0].tolist() == fitted.encode_all(TEXTS)[0].tolist()
    assert again.hash == fitted.hash and again.size == fitted.size


def test_a_state_with_another_hash_is_refused():
    state = {**Characters("abc").state(), "vocab": '"abd"'}
    with pytest.raises(DataError, match="not those that were written with it"):
        from_state(state, {})


def test_characters_that_training_had_not_are_0():
    assert Characters("ab").encode_all(["a€b\U0001f600"])[0].tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize("name", ["bpe", "words", "characters", "bytes"])
def test_half_a_pair_of_surrogates_and_nul_are_taken(name):
    fitted = made(name, "bpe").fit(TEXTS)
    assert fitted.encode_all(["a\ud800b", "\x00"])[1].tolist()[0] >= 1


def test_a_name_that_is_none_is_answered_with_the_nearest():
    with pytest.raises(DataError, match="'bpe'"):
        made("bpee", "bpe")
    with pytest.raises(DataError, match="have no size"):
        made("characters:3", "bpe")


def test_a_file_of_another_kind_is_no_tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(DataError, match="this is no tokenizer"):
        made(tmp_path / "tokenizer.json", "bpe")
    with pytest.raises(DataError, match="cannot be read"):
        made("absent.json", "bpe")


def test_a_tokenizer_of_the_library_is_taken_from_its_file(tmp_path):
    fitted = Subwords("bpe", 300).fit(TEXTS)
    (tmp_path / "tokenizer.json").write_text(fitted.json, "utf-8")
    again = made(tmp_path / "tokenizer.json", "bpe").fit([])
    assert again.encode_all(TEXTS)[0].tolist() == fitted.encode_all(TEXTS)[0].tolist()
