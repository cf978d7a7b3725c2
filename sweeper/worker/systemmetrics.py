"""What the machine is doing, under the names that MLflow gives it."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

_MEGABYTE = 1e6


class SystemMetrics:
    """Samples the machine; rates and traffic are since the sample before.

    Args:
        folder: whose disk is looked at; the nearest folder above it that exists.
        device: ``cpu``, or a CUDA device whose memory is sampled, too.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self._folder = next(path for path in (folder, *folder.parents) if path.is_dir())
        self._device = device
        self._network = psutil.net_io_counters()
        psutil.cpu_percent(interval=None)

    def sample(self) -> dict[str, float]:
        """One value of each, by the name of its MLflow metric."""
        memory = psutil.virtual_memory()
        disk = shutil.disk_usage(self._folder)
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(interval=None),
            "system_memory_usage_megabytes": memory.used / _MEGABYTE,
            "system_memory_usage_percentage": memory.percent,
            "disk_usage_percentage": 100.0 * disk.used / disk.total,
            "disk_usage_megabytes": disk.used / _MEGABYTE,
            "disk_available_megabytes": disk.free / _MEGABYTE,
            **self._traffic(),
            **self._gpu(),
        }
        return {f"system/{name}": float(value) for name, value in values.items()}

    def _traffic(self) -> dict[str, float]:
        before, now = self._network, psutil.net_io_counters()
        self._network = now
        if before is None or now is None:  # a machine without a network
            return {}
        return {
            "network_receive_megabytes": (now.bytes_recv - before.bytes_recv) / _MEGABYTE,
            "network_transmit_megabytes": (now.bytes_sent - before.bytes_sent) / _MEGABYTE,
        }

    def _gpu(self) -> dict[str, float]:
        if not self._device.startswith("cuda"):
            return {}
        import torch

        device = torch.device(self._device)
        free, total = torch.cuda.mem_get_info(device)
        index = device.index or 0
        return {
            f"gpu_{index}_memory_usage_megabytes": (total - free) / _MEGABYTE,
            f"gpu_{index}_memory_usage_percentage": 100.0 * (total - free) / total,
        }
