"""What `TextData.summary` says: sizes, tokens, lengths by class, what is cut and unknown."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Classes whose lengths are listed, at most.
_CLASSES = 20


def summary_of(data: Any) -> str:
    """Lines of text; the texts are encoded for it."""
    stores = {stage: data.items(stage) for stage in data.parts}
    counts = ", ".join(f"{stage} {len(store):,}" for stage, store in stores.items())
    train = stores["train"]
    lengths = train.parts[0].numpy()
    tokens = data.recipe.tokens
    middle, high, most = np.percentile(lengths, [50, 99, 100]).astype(int)
    lines = [
        f"texts     {counts}: {data.plan.split}",
        f"column    {', '.join(data.plan.names)}",
        f"target    {_target(data)}",
        f"tokens    {tokens!r}, learned from the training part",
        f"lengths   {middle} in the middle, {high} at 99%, {most} at most",
        f"batches   {data.batch_size}, {data.train.padded_part():.1%} of them padding",
    ]
    lines += [f"unknown   {_unknown(store, stage)}" for stage, store in stores.items()]
    lines += _by_class(data, train, lengths)
    lines += [f"note      {note}" for note in data.notes]
    return "\n".join(lines)


def _target(data: Any) -> str:
    target = data.target
    vocab = getattr(target, "vocab", None)
    if vocab is None:
        return f"{target.kind}, {target.outputs} of them"
    some = ", ".join(map(repr, vocab[:6])) + (", ..." if len(vocab) > 6 else "")
    return f"{target.kind}, {len(vocab)} of them: {some}"


def _unknown(store: Any, stage: str) -> str:
    """Of texts without a known token, and of tokens that are unknown where there is a number."""
    empty = int((store.parts[0] == 0).sum())
    tokens = store.flat.numpy()
    unknown = int((tokens == 0).sum())
    share = unknown / max(1, len(tokens))
    return f"{stage}: {share:.2%} of the tokens, and all of {empty:,} texts"


def _by_class(data: Any, train: Any, lengths: Any) -> list[str]:
    if data.target.kind != "category":
        return []
    codes = train.parts[1].numpy()
    lines = []
    for code, word in list(enumerate(data.target.vocab))[:_CLASSES]:
        own = lengths[codes == code]
        lines.append(f"  {word!s:<30.30}  {len(own):,} texts of {own.mean():.0f} tokens")
    return lines
