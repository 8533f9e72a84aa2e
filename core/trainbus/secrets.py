"""What is a secret, and how it is hidden in values, texts and command lines.

A secret is known by the name that it is given under, by its place in an address or a header, and by
the shape of some services' keys. One that was seen under its name is hidden wherever it appears
again, in a text of somebody else, too.
"""

from __future__ import annotations

import os
import re
from collections import UserList, deque
from collections.abc import ItemsView, Iterable, KeysView, Mapping, Sequence, ValuesView
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import PurePath
from types import SimpleNamespace
from typing import Any

#: What stands for a key, a token or a password in what is shown or written.
HIDDEN = "***"

#: Words that a name ends with.
_LAST = {"key", "token", "pat", "pwd", "pin", "cookie", "signature", "sig", "jwt", "otp"}
#: Words that a name has anywhere.
_ANYWHERE = {
    "password", "passwd", "passphrase", "passcode", "secret", "secrets", "credential",
    "credentials", "bearer", "authorization", "apikey", "authkey", "accesskey", "privatekey",
    "secretkey", "passwords", "passphrases", "passcodes", "apikeys",
}  # fmt: skip
#: Words that a name ends with if it holds several, and what stands before them: `api_keys`.
_SEVERAL = {"keys", "tokens", "cookies", "signatures"}
_OF_SERVICES = {
    "access", "account", "api", "auth", "encryption", "private", "refresh", "secret", "service",
    "session", "signing",
}  # fmt: skip
#: Words behind the word that tells: `api_key_v2`, `token_old`.
_BEHIND = {
    "v", "old", "new", "prod", "production", "dev", "test", "staging", "live", "backup", "primary",
    "secondary", "value", "str", "env",
}  # fmt: skip
#: Endings of words that are written together: `authtoken`, `userpassword`.
_ENDINGS = ("token", "password", "passwd", "secret", "apikey")
#: What stands before `token` and `key` where they are a word of a text, or a column: `pad_token`.
_OF_DATA = {
    "audio", "batch", "bos", "cache", "class", "cls", "column", "data", "dict", "end", "eod", "eom",
    "eos", "eot", "feature", "foreign", "group", "image", "index", "input", "item", "join", "label",
    "loss", "mask", "metric", "middle", "monitor", "newline", "output", "pad", "partition",
    "prefix", "primary", "row", "sample", "sep", "sort", "special", "start", "state", "stop",
    "suffix", "target", "text", "unk", "video",
}  # fmt: skip

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
#: `https://name:password@host`.
#: A password may hold `@` and `/`; what is digits up to a `/` is a port.
_IN_ADDRESS = re.compile(
    r"(\b\w[\w+.-]{0,30}://[^/\s:@]{0,256}:)(?!\d{1,5}(?:[/?#\s]|$))"
    r"[^\s\"'<>]{1,1000}@(?=[\w.\[-]+(?::\d+)?(?:[/?#\s\"'<>,;)]|$))"
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----(?:[^-]|-(?!-)){0,20000}"
    r"(?:-----END [A-Z ]{0,60}-----)?"
)
#: `name=value`, `"name": "value"`, `Name: Bearer value`.
#: A name begins where a word does and has an end: a long text is read once.
_NAMED = re.compile(
    r"""(?<![\w.-])([\w.-]{1,64})(["']?\s{0,2}[=:]\s{0,2}["']?)(?!//)((?:bearer|basic|token|digest|apikey|negotiate|ntlm)\s+)?"""
    r"""((?<=")(?:[^"\\\n]|\\.){1,4096}|(?<=')(?:[^'\\\n]|\\.){1,4096}|[^\s"'&,;{}()\[\]]+)""",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}")
#: Keys of widely used services.
_SHAPES = re.compile(
    r"\b(?:hf_|gh[opsu]_|npm_|github_pat_|glpat-|sk-|xox[abpe]-|AKIA|AIza|eyJ)[\w-]{16,}(?:\.[\w.-]+)?"
)

#: Containers in each other that are looked into: more than a record may have.
_DEPTH = 101
#: What holds several values; of those that are not plain, a list is kept.
_PLAIN = (list, tuple, set, frozenset)
_MANY = (*_PLAIN, deque, UserList, KeysView, ValuesView, ItemsView)

#: Secrets that were seen under their names.
_seen: set[str] = set()


def is_secret(name: object) -> bool:
    """Whether an option of this name holds a key, a token or a password."""
    try:
        words = [word.lower() for word in _WORDS.findall(str(name))]
    except Exception:  # of a key's `__str__`: who writes it refuses it
        return False
    if not words or _ANYWHERE.intersection(words):
        return bool(words)
    while len(words) > 1 and words[-1] in _BEHIND:
        words.pop()
    if len(words) > 1 and words[-1] in ("token", "key") and words[-2] in _OF_DATA:
        return False
    if len(words) > 1 and words[-1] in _SEVERAL:
        return words[-2] in _OF_SERVICES
    return words[-1] in _LAST or words[-1].endswith(_ENDINGS)


def hide_if_secret(name: str) -> str | None:
    """What is shown in place of the value of an option; None for the value itself."""
    return HIDDEN if is_secret(name) else None


def remember(value: Any) -> None:
    """Hide a secret wherever it appears from now on; a short one, or a word, could mean itself."""
    if hasattr(type(value), "get_secret_value"):
        value = value.get_secret_value()
    if isinstance(value, str) and _is_telling(value):
        _seen.add(value)


def _is_telling(value: str) -> bool:
    """Whether it can be nothing but a secret: no word, number or name of a column."""
    return len(value) >= 8 and not any(map(str.isspace, value)) and any(map(str.isdigit, value))


def hide_secrets(options: Mapping[Any, Any]) -> dict[Any, Any]:
    """The options, and those in tables among them, with keys, tokens and passwords replaced."""
    return _hidden_of(options, _of_environment(), ())


def _hidden_of(
    options: Mapping[Any, Any], known: frozenset[str], around: tuple[int, ...]
) -> dict[Any, Any]:
    hidden: dict[Any, Any] = {}
    for name, value in options.items():
        key = _without(name, known) if isinstance(name, str) else name
        if is_secret(name) and not isinstance(value, (bool, int, float, type(None))):
            _remember_all(value, around)
            hidden[key] = HIDDEN
        else:
            hidden[key] = _hidden(value, known, (*around, id(options)))
    return hidden


def _remember_all(value: Any, around: tuple[int, ...]) -> None:
    """Remember a secret, and the texts inside of what is one."""
    if id(value) in around or len(around) > _DEPTH:
        return
    inside: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inside = value.values()
    elif isinstance(value, _MANY):
        inside = value
    else:
        remember(value)
    for each in inside:
        _remember_all(each, (*around, id(value)))


def hide(value: Any) -> Any:
    """A value, and what is inside of it, with keys, tokens and passwords replaced.

    What is nested deeper than any parameter, or holds itself, is left as it is for its reader.
    """
    return _hidden(value, _of_environment(), ())


def _hidden(value: Any, known: frozenset[str], around: tuple[int, ...]) -> Any:
    """The same; `known` are the secrets of the environment, which is looked through once."""
    if isinstance(value, str):
        return _without(value, known)
    if id(value) in around or len(around) > _DEPTH:
        return value
    if isinstance(value, Mapping):
        return _hidden_of(value, known, around)
    if (named := _named(value)) is not None:
        return _hidden_of(named, known, around)
    if isinstance(value, _MANY):
        around = (*around, id(value))
        inside = [_hidden(each, known, around) for each in value]
        return type(value)(inside) if type(value) in _PLAIN else inside
    if isinstance(value, (bytes, bytearray)):
        text = value.decode("latin-1")
        return HIDDEN if _without(text, known) != text else value
    if isinstance(value, (PurePath, BaseException)):  # which are written as texts
        text = str(value)
        return without if (without := _without(text, known)) != text else value
    if hasattr(type(value), "get_secret_value"):
        remember(value)
        return HIDDEN
    return value


def _named(value: Any) -> dict[str, Any] | None:
    """What a record of any kind holds, by its names: `Namespace`, a dataclass, a named tuple."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name, None) for each in fields(value)}
    if isinstance(value, SimpleNamespace) or type(value).__name__ == "Namespace":
        return dict(vars(value))
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return dict(value._asdict())
    return None


def without_secrets(text: str, values: Mapping[str, Any]) -> str:
    """A text without the keys, tokens and passwords that are among the values."""
    for name, value in values.items():
        if is_secret(name) and value:
            text = text.replace(str(value), HIDDEN)
    return _without(text, _of_environment())


def hide_secrets_of(arguments: Sequence[str]) -> list[str]:
    """A command line with the values of keys, tokens and passwords replaced."""
    hidden: list[str] = []
    before, known = "", _of_environment()
    for argument in arguments:
        name, is_set, value = argument.partition("=")
        if is_set and is_secret(name) and "://" not in name:
            remember(value)
            argument = f"{name}={HIDDEN}"
        elif before.startswith("-") and "=" not in before and is_secret(before):
            remember(argument)
            argument = HIDDEN
        hidden.append(_without(argument, known))
        before = argument
    return hidden


def _without(text: str, known: frozenset[str]) -> str:
    for secret in sorted(_seen | known, key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    text = _PRIVATE_KEY.sub(HIDDEN, text)
    text = _IN_ADDRESS.sub(rf"\1{HIDDEN}@", text)
    text = _NAMED.sub(_hide_named, text)
    return _SHAPES.sub(HIDDEN, _SCHEME.sub(rf"\1 {HIDDEN}", text))


def _hide_named(found: re.Match[str]) -> str:
    name, sign, scheme, _ = found.groups()
    # In prose: `unexpected token: else`.
    is_prose = sign.strip() == ":" and name.lower() in ("token", "key", "signature")
    if is_prose or not is_secret(name):
        return found[0]
    return f"{name}{sign}{scheme or ''}{HIDDEN}"


def _of_environment() -> frozenset[str]:
    """The values of environment variables that are secrets by their names."""
    return frozenset(
        value for name, value in os.environ.items() if _is_secret(name) and _is_telling(value)
    )


_is_secret = lru_cache(1000)(is_secret)
