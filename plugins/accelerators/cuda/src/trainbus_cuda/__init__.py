"""NVIDIA and AMD GPUs for trainbus: fused optimizers, TF32, prefetched batches, CUDA graphs."""

from __future__ import annotations

from trainbus_cuda.plugin import Cuda

__all__ = ["Cuda"]
