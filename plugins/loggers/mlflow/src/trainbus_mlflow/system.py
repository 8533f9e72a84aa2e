"""What the machine does while it trains, as MLflow measures it."""

from __future__ import annotations

from time import monotonic
from typing import Any


class SystemMetrics:
    """MLflow's measurements of processor, memory, disk, network and GPUs, without its thread.

    That thread ends for good when the server is away for a while, and tries the server by itself.
    """

    def __init__(self) -> None:
        from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL as INTERVAL
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor]
        self._monitors = [kind() for kind in kinds] + _gpus()
        interval: Any = INTERVAL
        self._interval = interval.get() or 10
        self._next = monotonic()

    def sample(self) -> dict[str, float]:
        """The values by name if it is time for the next ones, and none otherwise."""
        if monotonic() < self._next:
            return {}
        self._next = monotonic() + self._interval
        values: dict[str, float] = {}
        for each in self._monitors:
            each.collect_metrics()
            values |= each.aggregate_metrics()
            each.clear_metrics()
        return values


def _gpus() -> list[Any]:
    """NVIDIA's or AMD's, where their Python package is installed."""
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    for kind in (GPUMonitor, ROCMMonitor):
        try:
            return [kind()]
        except Exception:  # each has its own for "there is none"
            continue
    return []
