"""Whether what is run does something outside of one directory: an audit hook that looks at it."""

import os
import resource
import sys
from contextlib import contextmanager

import pytest

_ALWAYS = (
    "ctypes.dlopen", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system",
    "socket.connect", "subprocess.Popen",
)  # fmt: skip
_CHANGES = (
    "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink",
    "os.truncate", "shutil.move", "shutil.rmtree",
)  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _Watch:
    root = None
    seen: list[str] = []
    known: frozenset[str] = frozenset()


def _is_inside(path):
    if not isinstance(path, (str, bytes, os.PathLike)):
        return True  # a handle, which was opened before
    path = os.path.realpath(os.fsdecode(path))
    return path == os.devnull or path.startswith(f"{_Watch.root}{os.sep}")


def _hook(event, arguments):
    if _Watch.root is None:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = any(c in mode for c in "wax+") if isinstance(mode, str) else flags & _WRITES
        if writes and not _is_inside(path):
            _Watch.seen.append(f"open {path} {mode}")
    elif event in _CHANGES and not _is_inside(arguments[0]):
        _Watch.seen.append(f"{event} {arguments[0]}")
    elif event in _ALWAYS:
        _Watch.seen.append(f"{event} {arguments!r:.100}")
    elif event == "import" and arguments[0].partition(".")[0] not in _Watch.known:
        _Watch.seen.append(f"import {arguments[0]}")


sys.addaudithook(_hook)


@pytest.fixture
def watched():
    """`with watched(directory, megabytes)`."""
    return _watched


@contextmanager
def _watched(root, megabytes):
    """Fail when what is done in here has effects outside of a directory, or takes much memory.

    What it needs is to be imported before: a name of a module that a file gives is noticed.
    """
    known = (
        {name.partition(".")[0] for name in sys.modules}
        | set(sys.stdlib_module_names)
        | {"olefile"}
    )
    _Watch.known = frozenset(known - {"antigravity", "this", "idlelib"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _Watch.seen, _Watch.root = [], os.path.realpath(root)
    try:
        yield
    finally:
        _Watch.root = None
    assert not _Watch.seen, _Watch.seen[:5]
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert more < megabytes, f"{more:.0f} MB more"
