"""Precision for trainbus: bf16, fp16 with a gradient scaler, true 16-bit, fp32, fp64 and fp8."""

from __future__ import annotations

from trainbus_amp.plugin import AMP

__all__ = ["AMP"]
