"""The stack of today: `torch_tpu`, a backend that torch loads by itself (device `tpu`)."""

from __future__ import annotations

import os
import warnings
from importlib.metadata import PackageNotFoundError, version

import torch

from trainbus.devices.accelerator import Accelerator
from trainbus_xla import tpus


class TorchTPU(Accelerator):
    """A TPU that torch reports as its accelerator; what torch does for one is all that it needs."""

    name = "xla"
    priority = 20

    def __init__(self, spmd: bool = False) -> None:
        super().__init__("cpu")  # until it is chosen: without a TPU torch knows no device "tpu"
        self.spmd = spmd

    def unavailable(self) -> str | None:
        """Why there is no TPU for torch."""
        if self.spmd:
            return (
                "spmd=true is an option for torch_xla; torch_tpu, which is installed, shards with "
                "torch.distributed; leave it out"
            )
        found = torch.accelerator.current_accelerator(check_available=True)
        if found is not None and found.type == "tpu":
            return None
        if os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD") == "0":
            return (
                "torch_tpu is installed, but TORCH_DEVICE_BACKEND_AUTOLOAD=0 keeps torch from "
                "loading it; unset it"
            )
        return f"torch_tpu {_version()} is installed, but finds no TPU on this machine"

    def select(self, index: int | None) -> None:
        """Use the TPU of this index."""
        self.device = torch.device("tpu")
        super().select(index)

    def describe(self) -> str:
        """The stack and the device, for the header."""
        return f"torch_tpu {_version()} on {self._kind()}"

    def dtypes(self) -> frozenset[torch.dtype]:
        """All but float16."""
        return tpus.DTYPES

    def compile_backend(self) -> str:
        """That of torch_tpu."""
        return "tpu"

    def peak_flops(self, dtype: torch.dtype) -> float | None:
        """By the name of the TPU."""
        return tpus.peak_flops(self._kind(), dtype)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Also in the words of the TPU's runtime."""
        return super().is_out_of_memory(error) or tpus.is_out_of_memory(error)

    def _kind(self) -> str:
        with warnings.catch_warnings():  # it warns that its name may change
            warnings.simplefilter("ignore")
            return str(torch.get_device_module("tpu").get_device_name())


def _version() -> str:
    try:
        return version("torch_tpu")
    except PackageNotFoundError:  # built from source, without metadata
        return "of unknown version"
