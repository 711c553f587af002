from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch
from structlog.testing import capture_logs

from shared.settings import Precision
from shared.vision.precision import native, warn_if_emulated

AVX2 = {"avx2": True, "avx512_f": False, "avx512_bf16": False, "avx512_fp16": False, "amx_tile": False}
CASCADE_LAKE = AVX2 | {"avx512_f": True, "avx512_vnni": True}
ZEN_4 = CASCADE_LAKE | {"avx512_bf16": True}
SAPPHIRE_RAPIDS = ZEN_4 | {"avx512_fp16": True, "amx_tile": True, "amx_bf16": True}
NEOVERSE_N1 = {"neon": True, "fp16_arith": True, "bf16": False, "sve_max_length": 0}
NEOVERSE_V1 = NEOVERSE_N1 | {"bf16": True, "sve_bf16": True, "sve_max_length": 256}


@pytest.mark.parametrize(
    ("capabilities", "bf16", "fp16"),
    [
        pytest.param(AVX2, False, False, id="x86 with AVX2 only"),
        pytest.param(CASCADE_LAKE, False, False, id="AVX-512 without half precisions"),
        pytest.param(ZEN_4, True, False, id="AVX-512 with bf16"),
        pytest.param(SAPPHIRE_RAPIDS, True, True, id="AMX"),
        pytest.param(NEOVERSE_N1, False, True, id="ARM with fp16"),
        pytest.param(NEOVERSE_V1, True, True, id="ARM with both"),
        pytest.param({}, False, False, id="unknown processor"),
    ],
)
def test_native_is_what_the_processor_has_instructions_for(capabilities, bf16: bool, fp16: bool) -> None:
    precisions: tuple[Precision, ...] = "float32", "bf16", "fp16"
    assert [native(one, "cpu", capabilities) for one in precisions] == [True, bf16, fp16]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernel's names are x86's")
@pytest.mark.parametrize(("precision", "flags"), [("bf16", {"avx512_bf16", "amx_bf16"}), ("fp16", {"avx512_fp16"})])
def test_native_agrees_with_the_kernel_about_this_machine(precision: Precision, flags: set[str]) -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    known = next(line for line in lines if line.startswith("flags")).split()
    assert native(precision, "cpu") == bool(flags & set(known))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_native_is_no_bf16_on_a_gpu_that_is_not_there() -> None:
    assert native("fp16", "cuda") and not native("bf16", "cuda:0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_warn_if_emulated_says_what_to_set_and_is_silent_where_all_is_well() -> None:
    with capture_logs() as logs:
        warn_if_emulated("float32", "cpu")
        warn_if_emulated("fp16", "cuda")
        assert not logs
        warn_if_emulated("bf16", "cuda:0")
    assert [(line["log_level"], line["precision"]) for line in logs] == [("warning", "bf16")]
    assert "float32" in logs[0]["cure"]
