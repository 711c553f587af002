"""The machine that a figure was measured on, and how much memory this process took: /proc -> plain values."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def machine(*packages: str) -> dict[str, str]:
    """What figures depend on: processor, cores, load, kernel, Python, versions of those packages that are here."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpus = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return {
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": str(os.cpu_count()),
        "load_1min": f"{os.getloadavg()[0]:.2f}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: found for name in packages if (found := installed_version(name))},
    }


def installed_version(package: str) -> str | None:
    """None when it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def peak_rss_bytes() -> int:
    """The most memory that this process ever held resident."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))  # in kB
