"""Bodies of transformers from a folder: small ones of chance, written here."""

import json
import logging

import pytest
import torch

transformers = pytest.importorskip("transformers")

from trainbus import UsageError  # noqa: E402
from trainbus_learner import load  # noqa: E402
from trainbus_text import TextLearner, text_table  # noqa: E402

QUIET = ["-progress", "-journal", "-manifest"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def folder(rows, tmp_path):
    """A folder with a BERT of chance, and a tokenizer of these texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made.train_from_iterator(
        [row["text"] for row in rows],
        trainers.WordPieceTrainer(vocab_size=90, special_tokens=special),
    )
    made.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_truncation(4)
    config = transformers.BertConfig(**SMALL, intermediate_size=64, vocab_size=90)
    torch.manual_seed(0)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "body")
    made.save(str(tmp_path / "body" / "tokenizer.json"))
    return tmp_path / "body"


@pytest.mark.parametrize("network", [{}, {"lora": 4}])
def test_a_body_is_trained_with_a_new_head_and_exported(rows, folder, network, caplog):
    with caplog.at_level(logging.WARNING, "trainbus"):
        made = TextLearner(
            text_table(rows, "text", "about"), folder, network=network, plugins=QUIET, seed=0,
            lr=2e-2 if network else 1e-3,
        )  # fmt: skip
    assert "has a BertForMaskedLM: its body is used, the head is new (2 outputs)" in caplog.text
    made.fit_one_cycle(12 if network else 6)
    assert made.validate()["accuracy"] > 0.8
    made.export("out")
    ours, theirs = (each.predict("where is my card") for each in (made, load("out")))
    assert torch.equal(ours.probabilities, theirs.probabilities)


def test_adapters_leave_the_body_as_it_was(rows, folder):
    made = TextLearner(
        text_table(rows, "text", "about"), folder, network={"lora": 2}, plugins=QUIET, seed=0
    )
    before = {n: p.clone() for n, p in made.model.body.named_parameters() if not p.requires_grad}
    made.fit_one_cycle(1)
    assert all(
        torch.equal(before[n], p) for n, p in made.model.body.named_parameters() if n in before
    )
    trained = [n for n, p in made.model.body.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 2 * 2 and all(n.endswith(("up", "down")) for n in trained)


def test_texts_are_framed_and_not_cut_by_the_tokenizer(rows, folder):
    made = TextLearner(text_table(rows, "text", "about"), folder, plugins=QUIET)
    tokens, length = made.source.recipe.encode_input("my card is lost again today")
    assert tokens[0] == 2 and tokens[-1] == 3 and length > 4


def test_it_gives_what_the_library_gives(rows, folder):
    made = TextLearner(text_table(rows, "text", "about"), folder, plugins=QUIET)
    tokens = torch.tensor([[2, 7, 9, 3]])
    body = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        ours = made.model.eval().body(input_ids=tokens).last_hidden_state
        torch.testing.assert_close(ours, body(input_ids=tokens).last_hidden_state)


def test_weights_of_torch_are_read_as_tensors_alone(rows, folder):
    body = transformers.BertModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(body.state_dict(), folder / "pytorch_model.bin")
    made = TextLearner(text_table(rows, "text", "about"), folder, plugins=QUIET)
    wanted = body.embeddings.word_embeddings.weight
    assert torch.equal(made.model.body.embeddings.word_embeddings.weight.cpu(), wanted)


class Bomb:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return (exec, ("open('exploded', 'w').close()",))


def test_a_pickle_with_code_is_refused(rows, folder, tmp_path):
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Bomb()}, folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match="cannot be read by transformers"):
        TextLearner(text_table(rows, "text", "about"), folder, plugins=QUIET)
    assert not (tmp_path / "exploded").exists()


def test_a_folder_with_code_of_its_own_is_refused(rows, folder):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="names code of its own"):
        TextLearner(text_table(rows, "text", "about"), folder, plugins=QUIET)


def test_what_a_folder_lacks_is_said(rows, folder):
    data = text_table(rows, "text", "about")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"has no tokenizer\.json"):
        TextLearner(data, folder, plugins=QUIET)
    (folder / "config.json").unlink()
    with pytest.raises(UsageError, match="is no folder of transformers"):
        TextLearner(data, folder, plugins=QUIET)


def test_a_name_without_a_network_is_said(rows, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match="no/such-body' is no folder"):
        TextLearner(text_table(rows, "text", "about"), "no/such-body", plugins=QUIET)
