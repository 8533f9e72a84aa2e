"""The verb `trainbus predict`."""

from __future__ import annotations

import json

import pytest

from trainbus.cli import main


@pytest.fixture
def exported(trained, digits):
    """An exported model, and two pictures."""
    from PIL import Image

    trained.export("out", format="torch.export")
    for number in (0, 1):
        Image.fromarray(digits[0][number, 0].numpy()).save(f"{number}.png")
    return [trained.predict(digits[0][number]) for number in (0, 1)]


def test_a_line_for_each_item(exported, capsys):
    main(["-p", "learner", "predict", "out", "0.png", "1.png"])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [
        ["0.png", exported[0].label],
        ["1.png", exported[1].label],
    ]
    assert float(lines[0][2]) == pytest.approx(exported[0].probability, abs=1e-3)


def test_lines_of_json_with_the_best_labels(exported, capsys, own_directory):
    (own_directory / "trainbus.toml").write_text('plugins = ["learner"]\n')
    main(["predict", "out", "0.png", "--json", "--top", "3"])
    line = json.loads(capsys.readouterr().out)
    assert line["item"] == "0.png" and line["label"] == exported[0].label
    assert line["top"][0]["label"] == exported[0].label and len(line["top"]) == 3


def test_a_picture_that_is_none_is_one_message_and_status_2(exported, capsys, own_directory):
    (own_directory / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit) as error:
        main(["-p", "learner", "predict", "out", "broken.png"])
    assert error.value.code == 2
    assert "broken.png" in capsys.readouterr().err


def test_a_directory_that_is_no_export_is_one_message(own_directory, capsys):
    with pytest.raises(SystemExit) as error:
        main(["-p", "learner", "predict", str(own_directory), "0.png"])
    assert error.value.code == 2 and "no export of a learner" in capsys.readouterr().err
