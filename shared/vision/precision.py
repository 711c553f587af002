"""Which precisions a processor computes itself: precision and device -> whether it pays; the others are emulated.

An emulated precision gives the right numbers and is slower than float32: about 10 times on a CPU with AVX2 only.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import structlog
import torch

from shared.settings import Precision

log = structlog.get_logger()
EMULATED = "only emulated by this processor, and slower than float32"

# Any one of these is enough; the names are those of torch.cpu.get_capabilities, x86's before ARM's.
INSTRUCTIONS: Mapping[Precision, frozenset[str]] = MappingProxyType(
    {
        "bf16": frozenset({"avx512_bf16", "amx_bf16", "bf16", "sve_bf16"}),
        "fp16": frozenset({"avx512_fp16", "amx_fp16", "fp16_arith"}),
    }
)


def native(precision: Precision, device: str, capabilities: Mapping[str, Any] | None = None) -> bool:
    """Whether the device ("cpu", "cuda", "cuda:N") has instructions for the precision; float32 always has.

    ``capabilities`` are a CPU's, instruction set -> bool; none: this machine's. A GPU that is not there has no bf16.
    """
    if precision == "float32":
        return True
    if device.startswith("cuda"):
        return precision == "fp16" or (torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0))
    found = torch.cpu.get_capabilities() if capabilities is None else capabilities
    return any(found.get(name) for name in INSTRUCTIONS[precision])


def warn_if_emulated(precision: Precision, device: str) -> None:
    """A line in the log of a process whose pictures take longer than they need."""
    if not native(precision, device):
        log.warning("slow precision", precision=precision, device=device, why=EMULATED, cure="set precision: float32")
