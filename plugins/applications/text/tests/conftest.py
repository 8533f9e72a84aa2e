"""Each test in an empty directory; small texts that are learned in a second."""

import random

import pytest
import torch

QUIET = ["-progress", "-journal", "-manifest"]


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """Each test works in an empty directory."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def rows():
    """200 rows of a text with 5 words, one of which says what it is about."""
    draw = random.Random(0)
    words = {"bank": ["card", "money", "transfer"], "app": ["screen", "login", "password"]}
    other = ["the", "my", "old", "new", "is", "was", "lost", "again", "today"]
    made = []
    for place in range(200):
        about = ("bank", "app")[place % 2]
        picked = [*draw.choices(other, k=3 + place % 4), draw.choice(words[about])]
        draw.shuffle(picked)
        made.append({"text": f"{' '.join(picked)} {place}", "about": about, "size": len(picked)})
    return made


@pytest.fixture(scope="session")
def story():
    """A text of 12,000 characters in short sentences."""
    draw = random.Random(0)
    parts = [["The cat", "A dog", "My bird"], ["sees", "eats", "likes"], ["a fish.", "the rain."]]
    sentences = [" ".join(draw.choice(part) for part in parts) for _ in range(600)]
    return "\n".join(sentences)
