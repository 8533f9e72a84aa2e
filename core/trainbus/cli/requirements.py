"""What is on, as a file that pip reads, and as one that CI compares with."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

from trainbus.errors import PluginError
from trainbus.plugins import loading


def lines() -> list[str]:
    """`NAME==VERSION  # files sha256:...`, a line for each distribution with an active plugin.

    The hash is that of the list of installed files with their checksums (`RECORD`): pip keeps no
    checksum of the wheel itself. Plugins that are files or classes of a project have none.
    """
    return [f"{name}=={version}  # files {digest}" for name, version, digest in _installed()]


def compared(path: Path) -> str:
    """A sentence that what is on is what the file says.

    Raises:
        PluginError: it is not; what differs, a line each.
    """
    here = {line.partition("==")[0]: line for line in lines()}
    there = {
        line.partition("==")[0].strip(): line.strip()
        for line in path.read_text("utf-8").splitlines()
        if "==" in line and not line.lstrip().startswith("#")
    }
    problems = [f"{name} is on, and not in the file" for name in here if name not in there]
    problems += [f"{name} is in the file, and not on" for name in there if name not in here]
    for name in here.keys() & there.keys():
        wanted, _, digest = there[name].partition("#")
        found, _, own = here[name].partition("#")
        if wanted.strip() != found.strip():
            problems.append(f"{wanted.strip()} is in the file, and {found.strip()} is on")
        elif digest.strip() and digest.strip() != own.strip():
            problems.append(f"{name}: the installed files are others than those of the file")
    if problems:
        raise PluginError("\n  ".join([f"{path} is not what is on here:", *sorted(problems)]))
    return f"what is on is what {path} says: {len(here)} distributions"


def _installed() -> list[tuple[str, str, str]]:
    names = {each.distribution for each in loading.load() if each.distribution}
    found = []
    for name in sorted(names | {"trainbus"}):
        files = metadata.distribution(name)
        record = files.read_text("RECORD") or ""
        digest = hashlib.sha256("\n".join(sorted(record.splitlines())).encode()).hexdigest()
        found.append((name, files.version, f"sha256:{digest}"))
    return found
