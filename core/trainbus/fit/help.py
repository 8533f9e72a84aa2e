"""What `trainbus fit --help` lists: all that a file can say, read without importing torch."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from trainbus.errors import TrainbusError
from trainbus.fit.config import Config
from trainbus.fit.instantiate import TRAINER, Factory, targets
from trainbus.fit.signatures import EMPTY, Signature, Unread, inspected
from trainbus.fit.static import Sources
from trainbus.plugins import discovery

WIDTH = 80

FILE = """\
The file:
  plugins = ["progress", "checkpoint"]    names, "./file.py", "-name" for off
  pythonpath = ["src"]                    where your modules are, from this file
                                          (by default beside it, and where you
                                          are)

  [task]                                  what is trained
  class = "digits:Digits"                 "package.module:Class", or
  hidden = 64                             "./file.py:Class" beside this file

  [data]                                  what it is trained on
  train = {class = "digits:loader", split = "train"}
  valid = {class = "digits:loader", split = "valid"}

  [trainer]                               for how long, and how
  epochs = 3

  [options.checkpoint]                    options of a plugin
  monitor = "valid/loss"

  A table with `class` is called with its other keys, one with `partial`
  becomes a function of what is left to give. Both may stand anywhere, in
  lists too. [data] may have a `class` of its own, which makes (train, valid).
"""


def text(config: str | None, settings: Sequence[str]) -> str:
    """The sections; with a file, those of its task and data come first."""
    formatter = click.HelpFormatter(width=WIDTH)
    parts = []
    if config is not None:
        parts.append(_called(Config(Path(config), settings)))
    else:
        parts.append(FILE)
    signature = Sources().read(TRAINER)
    assert signature is not None
    _section(formatter, "[trainer]", signature, skip=("plugins",))
    for name, found in discovery.Installed().plugins.items():
        try:
            _section(formatter, f"[options.{name}]", _of_plugin(found))
        except TrainbusError as error:
            with formatter.section(f"[options.{name}]"):
                formatter.write_text(f"cannot be read: {error}")
    return "\n".join([*parts, formatter.getvalue().rstrip()])


def _of_plugin(found: discovery.Found) -> Signature | None:
    try:
        signature = Sources().read(found.target)
    except TrainbusError:
        signature = None
    return signature if signature is not None else inspected(found.load())


def _called(config: Config) -> str:
    """The arguments of each class and function that the file names."""
    formatter = click.HelpFormatter(width=WIDTH)
    calls = Factory(config.path, config.search)
    called = {key: config.tables[key] for key in ("task", "data") if key in config.tables}
    seen = set()
    for key, target in (each for k, v in called.items() for each in targets(k, v)):
        title = f"[{key}] {target}"
        try:
            signature = calls.read(key, target)
            if signature is None:
                with config.importable():
                    signature = calls.imported(key, target)
        except TrainbusError as error:
            with formatter.section(title):
                formatter.write_text(f"cannot be read: {error}")
            continue
        if target in seen:
            with formatter.section(title):
                formatter.write_text("as above")
        else:
            _section(formatter, title, signature)
        seen.add(target)
    return formatter.getvalue()


def _section(
    formatter: click.HelpFormatter,
    title: str,
    signature: Signature | None,
    skip: Sequence[str] = (),
) -> None:
    with formatter.section(title):
        if signature is None:
            formatter.write_text("has no signature that can be read")
            return
        if signature.summary:
            formatter.write_text(_one_line(signature.summary))
            formatter.write_paragraph()
        rows = [
            (_head(signature, name), _one_line(signature.docs.get(name, "")))
            for name in signature.parameters
            if name not in skip
        ]
        if rows:
            formatter.write_dl(rows, col_max=27)
        else:
            formatter.write_text("no options")


def _head(signature: Signature, name: str) -> str:
    """`epochs: int`, `mode: "min" | "max" = "min"`, `size: int, needed`."""
    parameter = signature.parameters[name]
    kind = re.sub(r" \| None$|^None \| |^Optional\[(.*)\]$", r"\1", signature.types.get(name, ""))
    kind = kind.replace("'", '"')
    kind = re.sub(r"Literal\[(.*?)\]", lambda m: m[1].replace(", ", " | "), kind)
    head = f"{name}: {kind}" if kind else name
    if parameter.kind is parameter.VAR_KEYWORD:
        return f"...{f': {kind}' if kind else ''}"
    if name in signature.required:
        return f"{head}  (needed)"
    if parameter.default in (None, EMPTY):
        return head
    return f"{head} = {_toml(parameter.default)}"


def _toml(value: Any) -> str:
    if isinstance(value, Unread):
        return str(value)
    try:
        return json.dumps(list(value) if isinstance(value, tuple) else value)
    except TypeError:
        return repr(value)


def _one_line(said: str) -> str:
    return said.replace("``", "`").strip()
