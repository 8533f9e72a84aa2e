"""Models of language: what they are given, what they cost, what they write."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trainbus import UsageError
from trainbus.cli import main
from trainbus_data import DataError
from trainbus_learner import load
from trainbus_text import GPT, LanguageLearner, TextLearner, kneser_ney, text_file, text_table

QUIET = ["-progress", "-journal", "-manifest"]
SMALL = {"width": 32, "layers": 2, "heads": 2, "buckets": 512, "ngram_width": 16}


@pytest.fixture(scope="module")
def learner(story, tmp_path_factory):
    path = tmp_path_factory.mktemp("story") / "story.txt"
    path.write_text(story)
    data = text_file(path, context=64, batch_size=8)
    made = LanguageLearner(data, network=SMALL, seed=0, plugins=QUIET, lr=1e-2)
    made.fit_one_cycle(3)
    return made


# --- the text ------------------------------------------------------------------------------------


def test_the_last_tenth_validates(story):
    Path("a.txt").write_text(story)
    data = text_file("a.txt", context=32)
    train, valid = data.items("train"), data.items("valid")
    decode = data.recipe.tokens.decode
    assert decode(train.tokens.tolist()) + decode(valid.tokens.tolist()) == story
    assert len(valid) == pytest.approx(len(story) / 10, abs=2)


def test_each_token_of_validation_counts_once_with_half_of_the_context(story):
    Path("a.txt").write_text(story)
    data = text_file("a.txt", context=32, stride=10)
    stream = data.items("valid").tokens
    said = []
    for tokens, wanted in data.valid:
        for row, targets in zip(tokens, wanted, strict=True):
            places = (targets != -100).nonzero().flatten().tolist()
            assert not said or places[0] >= 32 - 10
            said += targets[places].tolist()
            assert row[places[0]] != 0
    assert said == stream[1:].tolist()


def test_an_epoch_has_its_own_windows_and_goes_on_where_it_was_left(story):
    Path("a.txt").write_text(story)
    loader = text_file("a.txt", context=32, batch_size=8).train
    loader.set_epoch(0)
    first = [batch[0].tolist() for batch in loader]
    loader.set_epoch(1)
    second = [batch[0].tolist() for batch in loader]
    assert first != second
    loader.start_at(3)
    assert [batch[0].tolist() for batch in loader] == second[3:]
    tokens, wanted = next(iter(loader))
    assert torch.equal(tokens[:, 1:], wanted[:, :-1])


def test_tokens_are_kept_as_a_file_that_is_mapped(story):
    Path("a.txt").write_text(story)
    one = text_file("a.txt", cache="kept", context=32)
    assert isinstance(one.items("train").tokens, np.memmap)
    files = sorted(Path("kept").iterdir())
    other = text_file("a.txt", cache="kept", context=32)
    assert sorted(Path("kept").iterdir()) == files and len(files) == 2
    plain = text_file("a.txt", context=32)
    assert other.items("train").tokens.tolist() == plain.items("train").tokens.tolist()


def test_a_file_in_blocks_is_the_same_text(story, monkeypatch):
    from trainbus_text import files

    Path("a.txt").write_text(story + "ünï日" * 50, "utf-8")
    whole = text_file("a.txt", context=32).items("valid").tokens.tolist()
    monkeypatch.setattr(files, "BLOCK", 97)
    assert text_file("a.txt", context=32).items("valid").tokens.tolist() == whole


@pytest.mark.parametrize(
    ("raw", "options", "message"),
    [
        (b"", {}, "is empty"),
        (b"caf\xe9 au lait " * 99, {}, r"not UTF-8 at byte 3 \(0xe9\): latin-1"),
        (b"abc " * 10, {}, "a window takes 257: context <= 35"),
        (b"abc " * 999, {"batch_size": 99}, "one batch takes 99 x 256"),
        (b"abc " * 999, {"split": 0}, "split=0"),
        (b"abc " * 999, {"stride": 0}, "stride=0"),
        (b"abc " * 999, {"tokens": "ngrams"}, "have no order"),
        (b"abc " * 999, {"encoding": "utf-88"}, "no such encoding"),
    ],
)
def test_what_cannot_be_learned_from_is_said(raw, options, message):
    Path("a.txt").write_bytes(raw)
    with pytest.raises(DataError, match=message):
        text_file("a.txt", **options)


def test_a_file_that_is_not_there_is_said():
    with pytest.raises(DataError, match="is not there"):
        text_file("absent.txt")
    with pytest.raises(DataError, match="is a folder"):
        text_file(".")


def test_latin_1_is_read_where_that_is_said():
    Path("a.txt").write_bytes(b"caf\xe9 au lait " * 99)
    assert "é" in text_file("a.txt", encoding="latin-1", context=16).recipe.tokens.vocab


# --- what it costs -------------------------------------------------------------------------------


def test_a_model_beats_how_often_characters_occur(learner):
    found = learner.validate()
    assert found["nats"] < 0.5 * learner.baselines(names=["unigram"])["unigram"].metrics["nats"]
    assert found["perplexity"] == pytest.approx(math.exp(found["nats"]), rel=1e-4)
    assert found["bits_per_character"] == pytest.approx(found["nats"] / math.log(2), rel=1e-4)


def test_a_text_costs_what_the_model_says_of_each_token(learner):
    text = "The cat sees a fish."
    (tokens,) = learner.predictor().encode(text)
    with torch.no_grad():
        logs = learner.model.eval()(tokens[None, :-1])[0].log_softmax(-1)
    nats = -logs.gather(1, tokens[1:, None]).mean()
    assert learner.measure(text)["nats"] == pytest.approx(float(nats), rel=1e-5)


def test_measured_text_is_what_validation_says(learner):
    tokens = learner.data.items("valid").tokens.tolist()
    text = learner.tokens.decode(tokens)
    assert learner.measure(text)["nats"] == pytest.approx(learner.validate()["nats"], rel=1e-3)


def test_probabilities_of_kneser_ney_sum_to_one():
    draw = np.random.default_rng(0)
    train = draw.integers(1, 6, 400)
    for order in (1, 2, 3, 5):
        head = draw.integers(1, 6, 6)
        costs = [kneser_ney(train, np.append(head, t), 6, order)[-1] for t in range(6)]
        assert np.exp(-np.array(costs)).sum() == pytest.approx(1)


# --- the model -----------------------------------------------------------------------------------


def test_no_token_sees_what_comes_after_it():
    model = GPT(20, **SMALL, context=16).eval()
    tokens = torch.randint(1, 20, (1, 12))
    other = tokens.clone()
    other[0, 8:] = 3
    torch.testing.assert_close(model(tokens)[:, :8], model(other)[:, :8])


@pytest.mark.parametrize("arch", ["gpt", "lstm"])
def test_the_cache_changes_no_token(story, arch):
    Path("a.txt").write_text(story)
    network = SMALL if arch == "gpt" else {"width": 16, "hidden": 16}
    data = text_file("a.txt", context=48)
    made = LanguageLearner(data, arch, network=network, seed=0, plugins=QUIET)
    for options in ({"temperature": 0}, {"seed": 3}):
        kept = made.generate("The cat", 100, **options)
        assert kept == made.generate("The cat", 100, use_cache=False, **options)


# --- writing on ----------------------------------------------------------------------------------


def test_a_seed_writes_the_same_on_any_batch_size(learner):
    alone = learner.generate("The cat", 40, seed=5)
    together = learner.generate(["The cat", "A dog", "My", "A dog"], 40, seed=5)
    assert together[0] == alone and together[1] != together[3]
    assert learner.generate("The cat", 40, seed=6) != alone


def test_pieces_are_the_text(learner):
    for options in ({"seed": 1}, {"temperature": 0}, {"seed": 2, "stop": "\n"}):
        assert "".join(learner.stream("My bird", 50, **options)) == learner.generate(
            "My bird", 50, **options
        )


def test_it_ends_before_a_stop(learner):
    written = learner.generate("The cat", 200, seed=0, stop=["\n", "zz"])
    assert "\n" not in written and len(written) < 200


def test_pieces_of_bytes_are_whole_characters(story):
    Path("a.txt").write_text(story.replace("a", "ä日"), "utf-8")
    made = LanguageLearner(
        text_file("a.txt", tokens="bytes", context=32), network=SMALL, seed=0, plugins=QUIET
    )
    made.fit_one_cycle(1)
    pieces = list(made.stream("The", 80, seed=0))
    assert "".join(pieces) == made.generate("The", 80, seed=0)


def test_greedy_is_the_first_of_one_and_beams_are_no_worse(learner):
    greedy = learner.generate("The cat", 12, temperature=0)
    assert greedy == learner.generate("The cat", 12, top_k=1, seed=9)
    beams = learner.generate("The cat", 12, beams=4)
    cost = {text: learner.measure("The cat" + text)["nats"] for text in (greedy, beams)}
    assert cost[beams] <= cost[greedy] + 1e-6


@pytest.mark.parametrize(
    "options", [{"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.2}, {"repetition_penalty": 1.5}]
)
def test_what_is_improbable_is_left_out(options):
    from trainbus_text.sampling import Choice

    logits = torch.tensor([9.0, 3.0, 2.0, 1.0, 0.0, -1.0])
    found = Choice(**options).probabilities(logits, torch.tensor([1]))
    plain = Choice().probabilities(logits, torch.tensor([1]))
    assert found[0] == 0 and found.sum() == pytest.approx(1)
    kept = found > 0
    if "repetition_penalty" in options:
        assert found[1] < plain[1]
    else:
        assert 1 <= kept.sum() <= 3 and kept[1]
        assert torch.allclose(found[kept] / found[1], plain[kept] / plain[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "-1 is not a temperature: 0 means greedy"),
        ({"top_k": 0}, "top_k=0"), ({"top_p": 0}, "top_p=0"), ({"min_p": 1}, "min_p=1"),
        ({"length": 0}, "length=0"), ({"beams": 0}, "beams=0"),
        ({"prompt": "€"}, "'€' is not among the [0-9]+ characters of training"),
        ({"prompt": 3}, None),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_said(learner, options, message):
    given = {"prompt": "The", "length": 5, **options}
    with pytest.raises((UsageError, TypeError), match=message):
        learner.generate(**given)


def test_beyond_the_context_is_said(learner, caplog):
    learner.source.recipe.noted = False
    learner.generate("The cat", 80, seed=0)
    learner.generate("The cat", 80, seed=0)
    assert caplog.text.count("exceed") == 1
    assert "exceed the context of 64: older tokens are dropped" in caplog.text


def test_an_export_writes_the_same_in_a_fresh_process(learner):
    learner.export("out")
    code = (
        "import sys\nfrom trainbus_learner import load\n"
        "print(load('out').generate('The cat', 40, seed=4))\n"
        "assert not {'pandas', 'sklearn', 'transformers', 'polars'} & set(sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.stdout == learner.generate("The cat", 40, seed=4) + "\n", said.stderr


def test_the_command_writes_on(learner, capsys):
    learner.export("out")
    assert main(["-p", "text", "generate", "out", "The cat", "--length", "20", "--seed", "1"]) in (
        0, None,
    )  # fmt: skip
    written = capsys.readouterr().out
    assert written == "The cat" + learner.generate("The cat", 20, temperature=0.8, seed=1) + "\n"


def test_a_language_begins_a_classifier_in_two_lines(story, rows):
    Path("a.txt").write_text(story)
    data = text_file("a.txt", tokens="words:100", context=16)
    network = {"width": 16, "hidden": 24}
    language = LanguageLearner(data, "lstm", network=network, seed=0, plugins=QUIET)
    language.save("language.safetensors")
    texts = text_table(rows, "text", "about", tokens=language.tokens)
    made = TextLearner(
        texts, "lstm", network=network, weights="language.safetensors", plugins=QUIET
    )
    assert torch.equal(made.model.body.embedding.weight, language.model.body.embedding.weight)
    assert len(made.groups) == 4


def test_a_classifier_is_no_model_of_language(rows, capsys):
    made = TextLearner(text_table(rows, "text", "about"), plugins=QUIET)
    made.export("out")
    with pytest.raises(SystemExit):
        main(["-p", "text", "generate", "out", "a"])
    assert "is no model of language" in "".join(capsys.readouterr())
    assert load("out").predict("a").label in ("app", "bank")
