"""Build and try a release: every distribution, from source to a demo in a clean environment.

`make release` calls it with build, twine and hatchling at hand. It writes `dist/` and uploads
nothing. Distributions of this project are installed from `dist/` alone; everything else comes from
the index that pip is configured with, in the versions of constraints.txt.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent
DIST = ROOT / "dist"
CLEAN = ROOT / ".venv-clean"
FOLDERS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/*/pyproject.toml"))]


def run(*command: object, cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
    """Run a command, and end the release if it fails."""
    print("$", *command, flush=True)
    if subprocess.run([str(part) for part in command], cwd=cwd, env=env).returncode:
        raise SystemExit(f"release.py: this failed: {' '.join(map(str, command))}")


def build() -> list[Path]:
    """Write an sdist of each distribution, and a wheel that is made of the sdist."""
    shutil.rmtree(DIST, ignore_errors=True)
    for folder in FOLDERS:
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST, folder)
    wheels, archives = sorted(DIST.glob("*.whl")), sorted(DIST.glob("*.tar.gz"))
    if not len(wheels) == len(archives) == len(FOLDERS):
        raise SystemExit(f"release.py: {len(FOLDERS)} distributions, but {len(wheels)} wheels")
    return wheels


def metadata(wheel: Path) -> tuple[str, str, list[Requirement]]:
    """Name, version and requirements of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        fields = Parser().parsestr(archive.read(path).decode())
    return (
        fields["Name"],
        fields["Version"],
        [Requirement(text) for text in fields.get_all("Requires-Dist", [])],
    )


def check(wheels: list[Path]) -> list[str]:
    """Check descriptions and changelog; returns what the wheels need of others, as for pip."""
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(DIST.iterdir()))
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    sections = dict(re.findall(r"^## ([\w-]+)\n(.*?)(?=^## |\Z)", changelog, re.M | re.S))
    needed = set()
    for wheel in wheels:
        name, version, requirements = metadata(wheel)
        if f"\n### {version} " not in sections.get(name, ""):
            raise SystemExit(f"release.py: CHANGELOG.md has no section {version} of {name}")
        extra = {"extra": "demo" if name == "trainbus" else ""}
        for each in requirements:
            if not each.name.startswith("trainbus") and (
                each.marker is None or each.marker.evaluate(extra)
            ):
                extras = f"[{','.join(sorted(each.extras))}]" if each.extras else ""
                needed.add(f"{each.name}{extras}{each.specifier}")
    return sorted(needed)


def compare(wheels: list[Path]) -> None:
    """Every source file that git tracks is in a wheel, and no other."""
    found = {
        name
        for wheel in wheels
        for name in zipfile.ZipFile(wheel).namelist()
        if ".dist-info/" not in name
    }
    listing = subprocess.run(
        ["git", "ls-files"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    source = re.compile(r"^(?:core|plugins/[^/]+/[^/]+/src)/(\S+)", re.MULTILINE)
    tracked = set(source.findall(listing.stdout))
    if found != tracked:
        raise SystemExit(f"release.py: wheels and sources differ: {sorted(found ^ tracked)}")


def install(wheels: list[Path], needed: list[str]) -> None:
    """Install all wheels into an environment that knows no index for them."""
    print(f"Making {CLEAN.name} (torch alone is 5 GB)", flush=True)
    venv.create(CLEAN, clear=True, with_pip=True)
    pip = [CLEAN / "bin" / "pip", "install", "-q", "--disable-pip-version-check"]
    run(*pip, "-c", ROOT / "constraints.txt", *needed)
    names = [metadata(wheel)[0] for wheel in wheels]
    run(*pip, "--no-index", "--find-links", DIST, "trainbus[demo]", *names)
    run(CLEAN / "bin" / "pip", "check")


def demonstrate() -> None:
    """Run the demos from the installed wheels, away from the source tree."""
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as folder:
        for verb in ("plugins", "demo --epochs 5", "demo vision --epochs 1"):
            run(CLEAN / "bin" / "trainbus", *verb.split(), cwd=Path(folder), env=outside)


def main() -> None:
    """Build, check, install, demonstrate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-install", action="store_true", help="build and check only")
    arguments = parser.parse_args()
    wheels = build()
    compare(wheels)
    needed = check(wheels)
    if not arguments.no_install:
        install(wheels, needed)
        demonstrate()
    print(f"{len(wheels)} wheels and {len(wheels)} source archives are in {DIST.name}/")


if __name__ == "__main__":
    main()
