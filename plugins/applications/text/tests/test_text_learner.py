"""A learner of texts: trained, asked, exported, and beside the classical answers."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainbus import UsageError
from trainbus.cli import main
from trainbus_data import DataError
from trainbus_learner import load
from trainbus_text import TextLearner, text_table
from trainbus_text.models import ARCHS

QUIET = ["-progress", "-journal", "-manifest"]
SMALL = {"conv": {"width": 16, "filters": 8}, "lstm": {"width": 16, "hidden": 16},
         "transformer": {"width": 16, "layers": 1}}  # fmt: skip


@pytest.fixture(scope="module")
def learner(rows):
    made = TextLearner(text_table(rows, "text", "about"), seed=0, plugins=QUIET)
    made.fit_one_cycle(3)
    return made


def test_a_bag_learns_which_words_say_it(learner):
    found = learner.validate()
    assert found["accuracy"] > 0.95 and found["f1"] > 0.95
    assert learner.predict("where is my card").label == "bank"
    assert learner.predict("the login again").label == "app"


@pytest.mark.parametrize("arch", ["conv", "lstm", "transformer"])
def test_each_network_learns_and_is_exported_bit_by_bit(rows, arch):
    data = text_table(rows, "text", "about", tokens="words")
    made = TextLearner(data, arch, network=SMALL[arch], seed=0, plugins=QUIET, lr=1e-2)
    made.fit_one_cycle(5)
    assert made.validate()["accuracy"] > 0.8
    made.export("out")
    texts = ["where is my card", "login", ""]
    ours, theirs = made.predictions(texts), load("out").predictions(texts)
    assert all(
        torch.equal(a.probabilities, b.probabilities) for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("arch", list(ARCHS))
def test_padding_changes_nothing(arch):
    from trainbus_text.models import TextModel

    model = TextModel(arch, 20, 3, **SMALL.get(arch, {})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    if arch != "bag":
        model.body.embedding.weight.data[0] = 3.0
    else:
        model.body.vectors.weight.data[0] = 3.0
    tokens, lengths = torch.tensor([[3, 5, 7]]), torch.tensor([3])
    longer = torch.nn.functional.pad(tokens, (0, 4))
    torch.testing.assert_close(model(tokens, lengths), model(longer, lengths))
    assert model(torch.zeros(2, 1).int(), torch.zeros(2).long()).isfinite().all()


def test_numbers_are_told_in_their_units(rows):
    given = [{"text": f"{row['text']} " * row["size"], "size": row["size"] * 100.5} for row in rows]
    made = TextLearner(text_table(given, "text", "size"), seed=0, plugins=QUIET)
    made.fit_one_cycle(6)
    assert made.validate()["rmse"] < 120
    assert 300 < made.predict(given[0]["text"]).label < 900


def test_several_labels_of_a_text(rows):
    given = [{"text": row["text"], "many": f"{row['about']} all"} for row in rows]
    made = TextLearner(text_table(given, "text", "many", delimiter=" "), seed=0, plugins=QUIET)
    made.fit_one_cycle(4)
    assert made.predict("my card").label == ["all", "bank"]
    assert next(made.predictions(["my card"]).rows())["label"] == "all bank"


def test_one_text_is_no_list_of_letters(learner):
    assert len(learner.predictions("my card")) == 1
    with pytest.raises(UsageError, match="predict takes one text"):
        learner.predict(["my card", "my login"])


def test_what_is_no_text_is_said_with_its_place(learner):
    with pytest.raises(UsageError, match="item 1, 3: 3 is a int, and no text"):
        learner.predictions(["my card", 3])
    with pytest.raises(UsageError, match="the row lacks 'text'"):
        learner.predict({"txt": "my card"})


def test_an_answer_says_what_was_odd(learner):
    assert learner.predict("жж").odd == ["it has no token that is known"]
    assert learner.predict(None).odd == ["it has no token that is known"]
    assert learner.predict("my card").odd == []


def test_answers_are_in_the_order_of_the_texts(learner, rows):
    asked = [row["text"] * (1 + place % 3) for place, row in enumerate(rows[:30])]
    together = learner.predictions(asked)
    alone = [learner.predict(text) for text in asked]
    assert [each.label for each in together] == [each.label for each in alone]


def test_the_classical_answers_stand_beside_it(learner):
    found = learner.baselines()
    assert [row.name for row in found] == [
        "constant", "tf-idf", "tf-idf characters", "nb-svm", "this learner",
    ]  # fmt: skip
    assert found["constant"].metrics["accuracy"] == pytest.approx(0.5)
    assert found["tf-idf"].metrics["accuracy"] > 0.9


def test_an_export_predicts_the_same_bits_in_a_fresh_process(learner):
    learner.export("out")
    code = (
        "import sys\nfrom trainbus_learner import load\n"
        "print(load('out').predict('my card, the login').probabilities.tolist())\n"
        "assert not {'pandas', 'sklearn', 'transformers', 'polars'} & set(sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    ours = learner.predict("my card, the login").probabilities.tolist()
    assert said.stdout.strip() == str(ours), said.stderr


def test_the_command_predicts_a_file_and_a_text(learner, rows, capsys):
    learner.export("out")
    with Path("new.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["text", "other"])
        table.writeheader()
        table.writerows({"text": row["text"], "other": 1} for row in rows[:3])
    assert main(["-p", "learner", "predict", "out", "new.csv"]) in (0, None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "label,probability,error" and lines[1].startswith("bank,")
    assert main(["-p", "learner", "predict", "out", "where is my card"]) in (0, None)
    assert capsys.readouterr().out.startswith("where is my card\tbank\t")


def test_weights_of_other_tokens_are_refused(rows):
    one = TextLearner(text_table(rows, "text", "about", tokens="characters"), "conv", plugins=QUIET)
    one.save("w.safetensors")
    other = [{**row, "text": row["text"].upper()} for row in rows]
    data = text_table(other, "text", "about", tokens="characters")
    with pytest.raises(UsageError, match=r"tokens"):
        TextLearner(data, "conv", plugins=QUIET, weights="w.safetensors")


def test_class_weights_and_smoothing_are_losses(rows):
    data = text_table(rows, "text", "about")
    smoothed = TextLearner(data, label_smoothing=0.1, plugins=QUIET, seed=0)
    smoothed.fit_one_cycle(1)
    assert smoothed.validate()["loss"] > 0
    assert "weights" in TextLearner(data, class_weights="balanced", plugins=QUIET).choices["loss"]


def test_workers_and_forks_are_not_warned_about(rows):
    code = (
        "import os\nfrom trainbus_text import text_table\n"
        "rows = [{'text': f'a b {i}', 'y': i % 2} for i in range(60)]\n"
        "data = text_table(rows, 'text', 'y', tokens='bpe:300')\n"
        "list(data.train)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    data.recipe.encode_input('a b')\n    os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0 and "fork" not in said.stderr, said.stderr


def test_names_that_are_none_are_answered(rows):
    data = text_table(rows, "text", "about")
    with pytest.raises(UsageError, match="no such network for texts"):
        TextLearner(data, "bagg")
    with pytest.raises(UsageError, match="give what text_table"):
        TextLearner([1, 2])
    with pytest.raises(UsageError, match="network="):
        TextLearner(data, network={"wide": 3})


def test_one_class_alone_is_refused():
    with pytest.raises(DataError, match="two classes"):
        text_table([{"text": "a", "about": "x"}] * 8, "text", "about")
