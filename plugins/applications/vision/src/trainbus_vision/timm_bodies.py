"""Bodies of timm, where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from trainbus import UsageError
from trainbus_vision.body import Body
from trainbus_vision.libraries import Backbone, choose, torchvision_names, unknown
from trainbus_vision.normalize import IMAGENET
from trainbus_vision.weights import NoWeights, Weights, unreachable


def timm_backbone(
    arch: str,
    channels: int,
    size: tuple[int, int],
    pretrained: bool | None,
    weights: str | Path | None,
    maps: bool,
) -> Backbone:
    """The body of a network of timm: see `trainbus_vision.backbones.backbone`."""
    name = arch.removeprefix("timm/")
    timm = _timm(arch)
    if not timm.is_model(name):
        raise unknown(arch, [*torchvision_names(), *timm.list_models()])
    config = timm.get_pretrained_cfg(name)
    found, why = choose(pretrained, weights, size, lambda: _find(name, config))
    options: dict[str, Any] = {"in_chans": channels}
    options |= {"features_only": True} if maps else {"num_classes": 0}
    if found is not None:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": found.source}}
    try:
        model: nn.Module = timm.create_model(name, **options)
        if not maps and config is not None and config.pool_size is not None:
            model.reset_classifier(0, "")  # type: ignore[operator]  # it gives its maps
    except (RuntimeError, AttributeError, TypeError) as error:
        problem = f"timm cannot make {name} {'with maps of each size' if maps else ''}: {error}"
        if found is not None:
            problem = f"{found.source} holds weights of another architecture than {arch}: {error}"
        raise UsageError(problem[:600]) from None
    fixed = config is not None and config.fixed_input_size
    side = tuple(config.input_size[1:]) if fixed else None
    body = Body([model], channels, size, side, arch)
    return Backbone(body, found.stats if found else None, why)


def _timm(arch: str) -> Any:
    try:
        import timm
    except ImportError:
        if not arch.startswith("timm/"):
            more = " (in torchvision; timm, which has more, is not installed: pip install timm)"
            raise unknown(arch, torchvision_names(), more) from None
        raise UsageError(f"arch={arch!r} needs timm: pip install timm") from None
    return timm


def _find(name: str, config: Any) -> Weights:
    """The file with timm's default weights of a network, fetched if need be."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    hub, file = getattr(config, "hf_hub_id", None), "model.safetensors"
    if not hub:
        raise NoWeights(f"timm has no pretrained weights of {name}")
    stats = (tuple(config.mean), tuple(config.std)) if config.mean else IMAGENET
    cached = try_to_load_from_cache(hub, file)
    if isinstance(cached, str):
        return Weights({}, cached, stats)
    url = f"https://huggingface.co/{hub}/resolve/main/{file}"
    if problem := unreachable(url):
        raise NoWeights(
            f"pretrained weights of timm's {name} are not in the cache of huggingface_hub, and "
            f"{problem}. Download {url} where there is a network, and give its path: "
            "weights='FILE'. pretrained=False trains from scratch"
        )
    return Weights({}, hf_hub_download(hub, file), stats)
