"""How fast common GPUs multiply matrices, by their vendors' data sheets.

Dense rates, without structured sparsity, at boost clock; of matrix (tensor) cores where there are
such for a type. For GeForce cards those with sums in float32, from the architecture white papers.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch


class Peak(NamedTuple):
    """TFLOP/s by type; None where the data sheet has none."""

    half: float | None
    tf32: float | None
    fp32: float
    fp64: float | None
    #: float16 only: the GPU has no hardware for bfloat16.
    only_fp16: bool = False


#: By the words of `torch.cuda.get_device_name`; the longest match counts.
PEAKS = {
    # NVIDIA, data centre
    "B200": Peak(2250, 1125, 75, 37),
    "GH200": Peak(989, 494, 67, 67),
    "H200": Peak(989, 494, 67, 67),
    "H200 NVL": Peak(835, 417, 60, 60),
    "H100": Peak(989, 494, 67, 67),
    "H100 NVL": Peak(835, 417, 60, 60),
    "H100 PCIe": Peak(756, 378, 51, 51),
    "A100": Peak(312, 156, 19.5, 19.5),
    "A30": Peak(165, 82, 10.3, 10.3),
    "A40": Peak(149.7, 74.8, 37.4, None),
    "A10": Peak(125, 62.5, 31.2, None),
    "L40S": Peak(362, 183, 91.6, None),
    "L40": Peak(181, 90.5, 90.5, None),
    "L4": Peak(121, 60, 30.3, None),
    "V100 SXM2": Peak(125, None, 15.7, 7.8, only_fp16=True),
    "V100 PCIE": Peak(112, None, 14, 7, only_fp16=True),
    "T4": Peak(65, None, 8.1, None, only_fp16=True),
    # NVIDIA, workstation and desktop
    "RTX 6000 Ada": Peak(364, 182, 91.1, None),
    "RTX A6000": Peak(154.8, 77.4, 38.7, None),
    "RTX 5090": Peak(209.5, 104.8, 104.8, None),
    "RTX 4090": Peak(165.2, 82.6, 82.6, None),
    "RTX 3090": Peak(71, 35.6, 35.6, None),
    # AMD; fp32 and fp64 are the matrix rates
    "MI325X": Peak(1307.4, 653.7, 163.4, 163.4),
    "MI300X": Peak(1307.4, 653.7, 163.4, 163.4),
    "MI250X": Peak(383, None, 95.7, 95.7),  # both dies; torch shows each as a device of its own
    "MI210": Peak(181, None, 45.3, 45.3),
}
#: Dies of one card that are devices of their own.
_DIES = {"MI250X": 2}
#: Words of slower relatives, or of a part of a GPU.
_OTHERS = {"laptop", "max", "mobile", "mig", "d", "ti"}


def peak_flops(device_name: str, dtype: torch.dtype, tf32: bool) -> float | None:
    """FLOP/s of a GPU, or None for one, or a type, that is not in the table.

    Args:
        device_name: as torch has it, "NVIDIA A100-SXM4-40GB" for example.
        dtype: the type that matrices are multiplied in.
        tf32: whether those of float32 are multiplied in TF32.
    """
    words = _words(device_name)
    if _OTHERS & set(words):
        return None
    matches = [name for name in PEAKS if _holds(words, _words(name))]
    if not matches:
        return None
    name = max(matches, key=len)
    rate = _rate(PEAKS[name], dtype, tf32)
    return None if rate is None else rate * 1e12 / _DIES.get(name, 1)


def _rate(peak: Peak, dtype: torch.dtype, tf32: bool) -> float | None:
    if dtype == torch.bfloat16:
        return None if peak.only_fp16 else peak.half
    if dtype == torch.float16:
        return peak.half
    if dtype == torch.float64:
        return peak.fp64
    if dtype == torch.float32:
        return peak.tf32 if tf32 and peak.tf32 is not None else peak.fp32
    return None


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def _holds(words: list[str], part: list[str]) -> bool:
    size = len(part)
    return any(words[i : i + size] == part for i in range(len(words) - size + 1))
