"""Text features are computed once: object and defects in words -> the prompt ensemble's features, kept on disk.

A large text tower needs half a minute for one ensemble on a CPU; every process of a line needs the same.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import platformdirs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared.vision.prompts import STATES, TEMPLATES, EncodeText, text_features

FEATURES = "features"  # the tensor's name in the file


def default_folder() -> Path:
    """Where texts are kept: the user's cache folder; it may be deleted at any time."""
    return platformdirs.user_cache_path("sightline") / "texts"


class TextCache:
    """The prompt ensembles of one model, keyed by model, templates, states, object and phrases."""

    def __init__(self, encode_text: EncodeText, model: str | None, folder: Path | None = None) -> None:
        """``model`` is the checksum of its weights; None: nothing is known of them, so nothing is kept on disk."""
        self._encode_text, self._model = encode_text, model
        self._folder = folder or default_folder()
        self._known: dict[tuple[str, tuple[str, ...]], Tensor] = {}

    def features(self, object_name: str, phrases: Sequence[str] = ()) -> Tensor:
        """(2 + P, Ct) float32 as `text_features`, on the CPU or the encoder's device."""
        key = object_name, tuple(phrases)
        if key not in self._known:
            self._known[key] = self._read_or_encode(*key)
        return self._known[key]

    def _read_or_encode(self, object_name: str, phrases: tuple[str, ...]) -> Tensor:
        if self._model is None:
            return text_features(self._encode_text, object_name, phrases)
        path = self._folder / f"{self._digest(object_name, phrases)}.safetensors"
        found = _read(path, rows=len(STATES) + len(phrases))
        if found is None:
            found = text_features(self._encode_text, object_name, phrases).float()
            _write(path, found)
        return found

    def _digest(self, object_name: str, phrases: tuple[str, ...]) -> str:
        return hashlib.sha256(msgspec.json.encode([self._model, TEMPLATES, STATES, object_name, phrases])).hexdigest()


def _read(path: Path, rows: int) -> Tensor | None:
    """What was kept, or None: not yet, damaged, or not to be read; then it is computed again."""
    try:
        found = load_file(path)[FEATURES]
    except (OSError, SafetensorError, KeyError):
        return None
    return found if len(found) == rows and torch.isfinite(found).all() else None


def _write(path: Path, features: Tensor) -> None:
    """Whole or not at all; a cache that cannot be written costs time at the next start and nothing else."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({FEATURES: features.cpu().contiguous()}, partial)
        partial.replace(path)
    except (OSError, SafetensorError):
        with suppress(OSError):
            partial.unlink()
