"""A bundle that learnt nothing: the architecture of a real one with random weights, to show what training is worth."""

from __future__ import annotations

import msgspec
import torch

from shared.vision.bundles import Bundle, read_manifest
from shared.vision.catalogue import bundle_directory
from shared.vision.clip import build_clip
from shared.vision.sam import build_sam
from shared.vision.umci import Umci


def untrained_bundle(name: str, seed: int = 0) -> Bundle:
    """ "mini", another one's name or "path:DIR" -> its parts as they are before training, the same for the same seed.

    Only bundle.json is read. BundleError: there is none.
    """
    manifest = read_manifest(bundle_directory(name))
    bare = msgspec.structs.replace(manifest, name=f"untrained {manifest.name}", files={})  # its texts are its own too
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = build_clip(bare.clip).eval().requires_grad_(False)
        umci = None if bare.umci is None else Umci(bare.umci).eval().requires_grad_(False)
        sam = None if bare.sam is None else build_sam(bare.sam).eval().requires_grad_(False)
    return Bundle(bare, clip=clip, umci=umci, sam=sam)
