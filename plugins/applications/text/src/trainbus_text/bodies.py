"""Bodies of the library `transformers`, from a folder: weights and configuration, and no code."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainbus import UsageError
from trainbus_text.models import Fingerprint, Head, present

logger = logging.getLogger("trainbus")
#: Layers that get an adapter where nothing is said: those that make queries and values.
_ADAPTED = ("query", "value", "q_proj", "v_proj", "q_lin", "v_lin", "c_attn", "qkv_proj", "Wqkv")


def is_body(arch: Any) -> bool:
    """Whether it is the path of a folder, or the name of a body on a hub."""
    return isinstance(arch, Path) or (
        isinstance(arch, str) and ("/" in arch or Path(arch).is_dir() or "-" in arch)
    )


def folder_of(arch: str | Path) -> Path:
    """The folder of a body: the path that was given, or a name in the local cache or on the hub.

    Raises:
        UsageError: it is neither, has no tokenizer.json, or names code of its own.
    """
    folder = Path(arch)
    if not folder.is_dir():
        folder = _from_hub(str(arch))
    config = _config(folder)
    if "auto_map" in config:
        raise UsageError(
            f"{folder}: its config.json names code of its own (auto_map), and nothing of a folder "
            "is executed: give a folder whose model is one of transformers"
        )
    if not (folder / "tokenizer.json").is_file():
        raise UsageError(
            f"{folder} has no tokenizer.json: write one with AutoTokenizer.from_pretrained(...)"
            ".save_pretrained(folder), or copy that of its model"
        )
    return folder


def _config(folder: Path) -> dict[str, Any]:
    try:
        found: Any = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} is no folder of transformers: config.json: {error}") from None
    if not isinstance(found, dict) or "model_type" not in found:
        raise UsageError(f"{folder} is no folder of transformers: config.json has no model_type")
    return found


def _from_hub(name: str) -> Path:
    _library()
    try:
        from huggingface_hub import snapshot_download

        patterns = ["*.json", "*.safetensors", "pytorch_model*.bin"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # without a network each version of the hub raises its own
        raise UsageError(
            f"{name!r} is no folder, not in the local cache, and cannot be fetched: give a folder "
            f"({type(error).__name__})"
        ) from None


def _library() -> Any:
    try:
        import transformers  # type: ignore[import-not-found]
    except ImportError:
        raise UsageError(
            "a body of transformers needs that library: pip install 'trainbus-text[transformers]'"
        ) from None
    return transformers


def read_body(folder: Path, outputs: int) -> tuple[nn.Module, dict[str, Any]]:
    """The pretrained body of a folder, and its configuration as JSON values.

    Weights of `pytorch_model.bin` are read as tensors alone (`weights_only`).

    Raises:
        UsageError: it cannot be read.
    """
    transformers = _library()
    try:
        body = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32
        )
    except Exception as error:  # the library raises many kinds
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(f"{folder} cannot be read by transformers: {first:.300}") from error
    config = _config(folder)
    named = config.get("architectures") or []
    if named and named[0] != type(body).__name__:
        logger.warning(
            "%s has a %s: its body is used, the head is new (%d outputs)",
            folder.name, named[0], outputs,
        )  # fmt: skip
    return body, body.config.to_dict()


class BodyModel(nn.Module):
    """A body of transformers, the mean and the maximum of its vectors, and a head of ours.

    Args:
        config: of the body, JSON values.
        outputs: how many numbers are given for a text.
        tokens, size: the hash of the tokens, and how many there are.
        lora: the rank of adapters (Hu et al., 2021) of the body, which is not trained then; 0 for
            none.
        lora_layers: what the names of adapted layers end with.
        body: with weights; by default one of chance.
    """

    def __init__(
        self, config: Mapping[str, Any], outputs: int, tokens: str = "", size: int = 0,
        lora: int = 0, lora_layers: Sequence[str] = _ADAPTED, dropout: float = 0.1,
        body: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        #: JSON values that make an equal one.
        self.description = {
            "config": dict(config), "outputs": outputs, "tokens": tokens, "size": size,
            "lora": lora, "lora_layers": list(lora_layers), "dropout": dropout,
        }  # fmt: skip
        self.body: Any = body if body is not None else _of_chance(config)
        if lora:
            adapt(self.body, lora, lora_layers)
        self.head = Head(int(self.body.config.hidden_size), outputs, dropout=dropout)
        self.fingerprint = Fingerprint(tokens, size)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """N x outputs of (N x T tokens, N lengths)."""
        there = present(tokens, lengths)
        # A text without tokens looks at its padding: nothing would be 0 / 0.
        seen = there | (lengths == 0)[:, None]
        made = self.body(input_ids=tokens.long(), attention_mask=seen.long())
        answered: Tensor = self.head((made.last_hidden_state, there))
        return answered

    def groups(self) -> list[list[nn.Module]]:
        """The body without its layers, each of its layers, and the head."""
        layers = _layers(self.body)
        inside = {id(p) for layer in layers for p in layer.parameters()}
        rest: list[Any] = [p for p in self.body.parameters() if id(p) not in inside]
        return [each for each in (rest, *([layer] for layer in layers), [self.head]) if each]


def _of_chance(config: Mapping[str, Any]) -> nn.Module:
    transformers = _library()
    given = {key: value for key, value in config.items() if key != "auto_map"}
    made = transformers.AutoConfig.for_model(given.pop("model_type"), **given)
    body: nn.Module = transformers.AutoModel.from_config(made, trust_remote_code=False)
    return body.float()


def _layers(body: nn.Module) -> Sequence[nn.Module]:
    """Its layers: the longest list of modules in it."""
    lists = [list(each) for each in body.modules() if isinstance(each, nn.ModuleList)]
    return max(lists, key=len, default=[])


class Adapted(nn.Module):
    """A linear layer that stays as it is, and a product of two thin ones that is learned.

    Args:
        layer: that is adapted.
        rank: of the product.
    """

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(torch.empty(rank, layer.in_features))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.scale = 2.0

    def forward(self, given: Tensor) -> Tensor:
        """What the layer gives, and the product times 2 (alpha = 2 rank)."""
        made: Tensor = self.layer(given)
        return made + (given @ self.down.T @ self.up.T) * self.scale


def adapt(body: nn.Module, rank: int, names: Sequence[str]) -> None:
    """Freeze a body, and give its layers of these names adapters, in place.

    Raises:
        UsageError: no layer has such a name.
    """
    body.requires_grad_(False)
    found = [
        name for name, module in body.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in names
    ]  # fmt: skip
    if not found:
        linear = {n.rpartition(".")[2] for n, m in body.named_modules() if isinstance(m, nn.Linear)}
        raise UsageError(
            f"lora_layers={list(names)!r:.80}: no linear layer of the body is called so; there are "
            f"{', '.join(sorted(linear))}"
        )
    for name in found:
        above, _, last = name.rpartition(".")
        parent = body.get_submodule(above)
        setattr(parent, last, Adapted(parent.get_submodule(last), rank))  # type: ignore[arg-type]


def rebuild(**description: Any) -> nn.Module:
    """The network that a description tells of, with weights of chance."""
    return BodyModel(**description)
