"""What `trainbus generate` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainbus import UsageError
from trainbus_learner import load
from trainbus_text.generator import LanguagePredictor


def pieces(
    exported: str, prompt: str, length: int, device: str, options: Mapping[str, Any]
) -> Iterator[str]:
    """The prompt, and pieces of what is written on.

    Args:
        exported: the directory of an export.
        prompt: the beginning.
        length: tokens, at most.
        device: as torch names it.
        options: of `LanguagePredictor.stream`.

    Raises:
        UsageError: it is no model of language.
    """
    predictor = load(exported, device=device)
    if not isinstance(predictor, LanguagePredictor):
        raise UsageError(
            f"generate: {exported} is no model of language, but a {type(predictor).__name__}: "
            "trainbus predict asks it"
        )
    written = predictor.stream(prompt, length, **options)
    yield prompt
    yield from written
