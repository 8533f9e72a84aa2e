"""docs/api.md is the whole public API, and nothing else."""

import importlib
import re
from pathlib import Path

import pytest

import trainbus
import trainbus.builtin
import trainbus.events
import trainbus.testing
from trainbus.plugins.discovery import known_distributions

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")


def listed(module):
    section = re.search(rf"^## {re.escape(module)}$(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
    return re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE)


MODULES = (trainbus, trainbus.builtin, trainbus.events, trainbus.testing)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_is_on_the_page_and_the_reverse(module):
    assert sorted(listed(module.__name__)) == sorted(module.__all__)


@pytest.mark.parametrize("name", ["trainbus.errors", "trainbus.batches"])
def test_every_name_on_the_page_exists(name):
    module = importlib.import_module(name)
    assert [each for each in listed(name) if not hasattr(module, each)] == []


@pytest.mark.parametrize("name", sorted(known_distributions()))
def test_what_a_distribution_offers_is_on_the_page(name):
    row = re.search(rf"^- \[`trainbus_{name}`\]\([^)]*\):(.*(?:\n  .*)*)", TEXT, re.MULTILINE)
    assert row, f"trainbus_{name} is not on the page"
    offered = importlib.import_module(f"trainbus_{name}").__all__
    assert sorted(re.findall(r"`(\w+)`", row[1])) == sorted(offered)
