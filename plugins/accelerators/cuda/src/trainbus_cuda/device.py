"""The GPU of NVIDIA (CUDA) or AMD (ROCm, by the same names of torch)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch

from trainbus import Accelerator
from trainbus_cuda.peaks import peak_flops
from trainbus_cuda.prefetch import Ahead, SideStream, may_read_ahead


class CudaDevice(Accelerator):
    """A GPU, with batches that come on a stream of their own.

    Args:
        prefetch: whether they do.
    """

    name = "cuda"
    #: Before what the core makes of it, which has 10.
    priority = 20

    def __init__(self, prefetch: bool = True) -> None:
        super().__init__("cuda")
        self.prefetch = prefetch
        self._side: SideStream | None = None

    def unavailable(self) -> str | None:
        """Why torch cannot use a GPU here: its build, the environment, or the driver."""
        if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
            return f"torch {torch.__version__} is built without CUDA or ROCm; install a build with"
        if torch.cuda.is_available():
            return None
        for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
            if os.environ.get(variable) in ("", "-1"):
                return f"{variable}={os.environ[variable]!r} hides all GPUs"
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except (RuntimeError, AssertionError) as error:
            return str(error).partition(". ")[0].strip().rstrip(".")
        return f"torch {torch.__version__} finds no GPU on this machine"

    # --- batches -------------------------------------------------------------------------------

    def select(self, index: int | None) -> None:
        """Use the GPU of this index, with a stream for its copies."""
        super().select(index)
        self._side = SideStream(self.device) if self.prefetch else None

    def place_batch(self, batch: Any) -> Any:
        """The batch on the GPU; the copy goes on while the GPU computes, and is not waited for."""
        if self._side is None:
            return super().place_batch(batch)
        return self._side.hand_over(self._side.begin(batch))

    def wrap_loader(self, loader: Iterable[Any]) -> Iterable[Any]:
        """The loader, with the next batch on its way, where a resumed run may do so as well."""
        if self._side is None or not may_read_ahead(loader):
            return loader
        return Ahead(loader, self._side)

    # --- what it can ---------------------------------------------------------------------------

    def dtypes(self) -> frozenset[torch.dtype]:
        """The floating-point types that it has hardware for."""
        found = {torch.float32, torch.float64, torch.float16}
        if torch.cuda.is_bf16_supported(including_emulation=False):
            found.add(torch.bfloat16)
        return frozenset(found | _of_eight_bits())

    def peak_flops(self, dtype: torch.dtype) -> float | None:
        """By the vendor's data sheet, dense; float32 in TF32 where that is switched on."""
        return peak_flops(torch.cuda.get_device_name(self.device), dtype, _multiplies_in_tf32())

    def memory_stats(self) -> dict[str, int]:
        """Bytes `allocated`, `reserved` and at `peak`, and those that are `free`, of a `total`."""
        free, total = torch.cuda.mem_get_info(self.device)
        return {**super().memory_stats(), "free": free, "total": total}


def _of_eight_bits() -> set[torch.dtype]:
    """The types of 8 bits that its matrix units know: Ada and Hopper on, CDNA 3 and 4 of AMD."""
    if torch.version.hip:
        arch = torch.cuda.get_device_properties().gcnArchName
        if arch.startswith("gfx94"):
            return {torch.float8_e4m3fnuz, torch.float8_e5m2fnuz}
        return {torch.float8_e4m3fn, torch.float8_e5m2} if arch.startswith("gfx95") else set()
    new = torch.cuda.get_device_capability() >= (8, 9)
    return {torch.float8_e4m3fn, torch.float8_e5m2} if new else set()


def _multiplies_in_tf32() -> bool:
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")
