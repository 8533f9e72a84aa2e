"""What a run logs, as W&B takes it."""

from __future__ import annotations

import math
import re
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING, Any

from trainbus import RecordRejected

if TYPE_CHECKING:
    import wandb

    from trainbus import Artifact

#: The longest name of a W&B artifact.
_ARTIFACT_NAME = 128
#: The longest name of media, in bytes: it becomes part of the names of a file and an artifact.
_MEDIA_NAME = 100


def plain(value: Any) -> Any:
    """A parameter: what is no finite number is a text, of which W&B would make nothing."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def media(artifact: Artifact) -> dict[str, Any]:
    """A figure, an image, a text or a table, by the name it has in W&B.

    Raises:
        RecordRejected: W&B cannot show it.
    """
    import wandb
    from PIL import UnidentifiedImageError

    value: Any = artifact.value
    try:
        if artifact.kind == "text":  # Markdown, which W&B renders nowhere in a run
            text = f'<pre style="white-space: pre-wrap">{escape(value)}</pre>'
            value = wandb.Html(text, data_is_not_path=True)
        elif artifact.kind == "table":
            columns = list(dict.fromkeys(key for row in value for key in row))
            rows = [[row.get(key) for key in columns] for row in value]
            value = wandb.Table(columns=columns, data=rows, allow_mixed_types=True)
        else:
            value = wandb.Image(str(value))
    except (TypeError, ValueError, UnidentifiedImageError) as error:
        raise RecordRejected(f"{artifact.kind} {artifact.name!r}: {error}") from error
    return {_shortened(artifact.name, artifact.name, _MEDIA_NAME): value}


def files(artifact: Artifact, run_id: str) -> wandb.Artifact:
    """A file or a model as a W&B artifact of that type.

    The names of W&B's artifacts are shared by all runs of a project: the run's id ends them.
    """
    import wandb

    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", artifact.name)
    name = f"{_shortened(plain, artifact.name, _ARTIFACT_NAME - len(run_id) - 1)}-{run_id}"
    metadata = {"name": artifact.name, "step": artifact.step}
    result = wandb.Artifact(name, artifact.kind, metadata=metadata)
    path = artifact.value
    if path.is_dir():
        for each in sorted(path.rglob("*")):  # `add_dir` prints
            if each.is_file():
                result.add_file(str(each), name=each.relative_to(path).as_posix())
    else:
        result.add_file(str(path))
    return result


def _shortened(text: str, name: str, length: int) -> str:
    """A text made of `name`, in so many bytes; if it is another, with a checksum of the name."""
    if text == name and len(text.encode()) <= length:
        return text
    checksum = sha256(name.encode()).hexdigest()[:8]
    return f"{text.encode()[: length - 9].decode(errors='ignore')}-{checksum}"
