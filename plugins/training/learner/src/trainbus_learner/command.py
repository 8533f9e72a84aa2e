"""What `trainbus predict` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from trainbus_learner.loading import load
from trainbus_learner.predictor import Prediction


def lines(
    exported: str,
    items: Sequence[str],
    as_json: bool,
    top: int | None,
    batch_size: int,
    device: str,
) -> Iterator[str]:
    """A line for each item: the item, its label and the probability, with tabs between them.

    Args:
        exported: the directory of an export.
        items: files, or what else the model's input is read from.
        as_json: lines of JSON instead.
        top: how many labels for each item, the most probable first.
        batch_size: items that the model is asked about together.
        device: as torch names it.
    """
    predictor = load(exported, device=device)
    predictions = predictor.predictions(items, batch_size=min(batch_size, len(items)))
    for item, prediction in zip(items, predictions, strict=True):
        if as_json:
            yield json.dumps(_as_json(item, prediction, top), ensure_ascii=False)
        elif top and (best := prediction.top(top)):
            shown = "\t".join(f"{label}\t{probability:.4f}" for label, probability in best)
            yield f"{item}\t{shown}"
        else:
            sure = "" if prediction.probability is None else f"\t{prediction.probability:.4f}"
            yield f"{item}\t{_text(prediction.label)}{sure}"


def _as_json(item: str, prediction: Prediction, top: int | None) -> dict[str, Any]:
    label = prediction.label
    line = {
        "item": item,
        "label": label.tolist() if hasattr(label, "tolist") else label,
        "probability": prediction.probability,
    }
    if top:
        line["top"] = [{"label": word, "probability": p} for word, p in prediction.top(top)]
    return line


def _text(label: Any) -> str:
    if isinstance(label, list):
        return ", ".join(map(str, label))
    return f"{label:.6g}" if isinstance(label, float) else str(label)
