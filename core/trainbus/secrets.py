"""What is a secret, and how it is hidden in values, texts and command lines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_SECRET = re.compile(
    r"(?:^|[\W_])(?:(?:api|access|auth|private|secret)?[-_]?key|token|pass(?:word|wd)|secret|"
    r"credentials?)(?:$|[\W_])",
    re.IGNORECASE,
)

#: The password in an address: `https://name:password@host`.
_PASSWORD = re.compile(r"(\w://[^/\s:@]*:)[^/\s@]+@")

#: What stands for a key, a token or a password in what is shown or written.
HIDDEN = "***"


def hide_if_secret(name: str) -> str | None:
    """What is shown in place of the value of an option; None for the value itself."""
    return HIDDEN if is_secret(name) else None


def is_secret(name: str) -> bool:
    """Whether an option of this name holds a key, a token or a password."""
    return _SECRET.search(str(name)) is not None  # the keys of an option may be numbers


def hide_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, and those in tables among them, with keys, tokens and passwords replaced."""
    return {
        name: HIDDEN if is_secret(str(name)) and value is not None else _hidden_inside(value)
        for name, value in options.items()
    }


def _hidden_inside(value: Any) -> Any:
    if isinstance(value, str):
        return _PASSWORD.sub(rf"\1{HIDDEN}@", value)
    if isinstance(value, dict):
        return hide_secrets(value)
    if isinstance(value, list):
        return [_hidden_inside(item) for item in value]
    return value


def without_secrets(text: str, values: Mapping[str, Any]) -> str:
    """A text without the keys, tokens and passwords that are among the values."""
    for name, value in values.items():
        if is_secret(name) and value:
            text = text.replace(str(value), HIDDEN)
    return text


def hide_secrets_of(arguments: Sequence[str]) -> list[str]:
    """A command line with the values of keys, tokens and passwords replaced."""
    hidden: list[str] = []
    before = ""
    for argument in arguments:
        name, is_set, _ = argument.partition("=")
        if is_set and is_secret(name):
            argument = f"{name}={HIDDEN}"
        elif before.startswith("-") and "=" not in before and is_secret(before):
            argument = HIDDEN
        hidden.append(_PASSWORD.sub(rf"\1{HIDDEN}@", argument))
        before = argument
    return hidden
