"""The card's examples run as they stand."""

import re
from pathlib import Path

from PIL import Image

CARD = Path(__file__).parents[1] / "README.md"
HEADINGS = ["Install", "Switch on", "Options", "Events used", "What it costs", "Limits"]


def test_the_examples_run(write_idx):
    write_idx(Path("data"))
    Image.new("L", (28, 28)).save("seven.png")
    names = {}
    for code in re.findall(r"^```python\n(.*?)^```$", CARD.read_text("utf-8"), re.DOTALL | re.M):
        exec(code, names)
    assert names["learner"].data is names["data"]


def test_the_card_has_the_headings_of_all_cards():
    assert re.findall(r"^## (.*)$", CARD.read_text("utf-8"), re.M) == HEADINGS
