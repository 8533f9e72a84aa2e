"""The projects in docs/examples are installed with pip, and run."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
DISTRIBUTIONS = sorted(path.parent.name for path in EXAMPLES.glob("*/pyproject.toml"))


def do(*command, cwd, site=None):
    environment = dict(os.environ)
    if site:
        paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_project_installs_and_passes_its_own_tests(name, tmp_path):
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    do(
        "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-build-isolation",
        "--no-deps", "--no-index", "--target", site, EXAMPLES / name, cwd=work,
    )  # fmt: skip
    plugins = tomllib.loads((EXAMPLES / name / "pyproject.toml").read_text("utf-8"))
    (plugin,) = plugins["project"]["entry-points"]["trainbus.plugins"]
    assert plugin in do("-m", "trainbus", "plugins", cwd=work, site=site)
    # A copy: pytest would take the options of this repository, and write beside the sources.
    tests = work / "tests"
    tests.mkdir()
    for path in (EXAMPLES / name / "tests").glob("*.py"):
        (tests / path.name).write_text(path.read_text("utf-8"), "utf-8")
    do("-m", "pytest", "-q", "-p", "no:cacheprovider", tests, cwd=work, site=site)


def test_the_loop_runs_and_ends_when_it_is_good(tmp_path):
    printed = do(EXAMPLES / "own-loop" / "train.py", cwd=tmp_path)
    end = re.search(r"^stopped after (\d+) steps: (\S+)$", printed, re.MULTILINE)
    assert end, printed
    assert (tmp_path / end[2] / "checkpoints" / "best").exists()


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: path.name)
def test_an_example_stays_below_80_lines(path):
    assert len(path.read_text("utf-8").splitlines()) < 80


def test_every_example_has_a_readme_that_the_first_page_links():
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    linked = re.findall(r"\]\(([\w-]+)/README\.md\)", (EXAMPLES / "README.md").read_text("utf-8"))
    assert sorted(linked) == sorted(folders)
    assert all((EXAMPLES / name / "README.md").is_file() for name in folders)
