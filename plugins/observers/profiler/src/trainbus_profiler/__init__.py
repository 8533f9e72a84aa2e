"""Where the time of a trainbus run goes, a trace, memory, throughput, and what to mend first."""

from __future__ import annotations

from trainbus_profiler.plugin import Profiler

__all__ = ["Profiler"]
