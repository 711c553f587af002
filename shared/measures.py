"""Sizes for people: a mask's measures in pixels -> a Defect, in millimetres too when the recipe knows the scale."""

from __future__ import annotations

from typing import Protocol

from shared.messages import Defect


class MeasuredMask(Protocol):
    """What a model says of one mask, in pixels of the inspected picture."""

    @property
    def box_px(self) -> tuple[int, int, int, int]: ...
    @property
    def area_px(self) -> int: ...
    @property
    def length_px(self) -> float: ...
    @property
    def confidence(self) -> float: ...


class Name(Protocol):
    """What a defect is called, and how sure that is, 0..1."""

    @property
    def text(self) -> str: ...
    @property
    def confidence(self) -> float: ...


def measure(mask: MeasuredMask, mm_per_px: float | None, name: Name | None = None) -> Defect:
    """``mm_per_px`` None: no millimetres; ``name`` None: nobody asked for one."""
    return Defect(
        box_px=mask.box_px,
        area_px=mask.area_px,
        length_px=mask.length_px,
        confidence=mask.confidence,
        area_mm2=None if mm_per_px is None else mask.area_px * mm_per_px**2,
        length_mm=None if mm_per_px is None else mask.length_px * mm_per_px,
        name="" if name is None else name.text,
        name_confidence=None if name is None else name.confidence,
    )
