"""Trained models in a folder: clip and umci, each as .safetensors (float16) and its config as .json."""

from __future__ import annotations

from pathlib import Path

import msgspec
from safetensors.torch import load_file, save_file

from shared.vision.bundles import half_precision
from shared.vision.clip import ClipConfig, ClipEncoder
from shared.vision.umci import Umci, UmciConfig


def save_models(folder: Path, encoder: ClipEncoder, umci: Umci) -> None:
    """Write both models and their configs."""
    for name, module, config in (("clip", encoder.clip, encoder.config), ("umci", umci, umci.config)):
        save_file(half_precision(module), folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(config)))


def load_models(folder: Path) -> tuple[ClipEncoder, Umci]:
    """Read what `save_models` wrote, as float32 in evaluation mode."""
    encoder = ClipEncoder(msgspec.json.decode((folder / "clip.json").read_bytes(), type=ClipConfig))
    umci = Umci(msgspec.json.decode((folder / "umci.json").read_bytes(), type=UmciConfig))
    encoder.clip.load_state_dict(load_file(folder / "clip.safetensors"))
    umci.load_state_dict(load_file(folder / "umci.safetensors"))
    return encoder.eval(), umci.eval()
