"""anomalib's models for `sightline bench models`: name -> milliseconds of one picture at the model's default size.

anomalib is no part of Sightline: each model is imported when it is built. All weights are random, on which the time
does not depend; nothing is downloaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

import msgspec
import torch
from torch import nn

from shared.errors import SettingsError
from shared.vision.bench import times_ms

PADIM_LAYERS = ["layer1", "layer2", "layer3"]  # anomalib's default, as the backbone
PADIM_STRIDE = 4  # of its first layer, where it keeps one Gaussian a cell


@dataclass(frozen=True)
class Peer:
    """One model, as anomalib builds it by default."""

    input_px: int  # side of its picture
    build: Callable[[int], nn.Module]  # of a side: ModuleNotFoundError without anomalib


class PeerTask(msgspec.Struct, frozen=True):
    """What to measure."""

    name: str
    repeats: int = 3
    seconds: float = 1.0
    device: str = "cpu"


class PeerTiming(msgspec.Struct, frozen=True):
    """What was measured."""

    input_px: int
    times_ms: list[float]
    threads: int


def build_padim(input_px: int) -> nn.Module:
    """PaDiM on ResNet-18 (arXiv 2011.08785), its Gaussians with mean 0 and covariance 1."""
    from anomalib.models.image.padim.torch_model import PadimModel

    model = PadimModel(backbone="resnet18", layers=PADIM_LAYERS, pre_trained=False)
    features, cells = model.n_features, (input_px // PADIM_STRIDE) ** 2
    model.gaussian.mean = torch.zeros(features, cells)
    model.gaussian.inv_covariance = torch.eye(features).repeat(cells, 1, 1)
    return cast(nn.Module, model)


def build_efficient_ad(input_px: int) -> nn.Module:
    """EfficientAD-S (arXiv 2303.14535)."""
    from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel, EfficientAdModelSize

    return cast(nn.Module, EfficientAdModel(model_size=EfficientAdModelSize.S))


def build_winclip(input_px: int) -> nn.Module:
    """WinCLIP (arXiv 2303.14814) without reference pictures, on open_clip's ViT-B-16-plus-240."""
    from anomalib.models.image.winclip import torch_model

    torch_model.PRETRAINED = None  # where its CLIP would be downloaded from
    return cast(nn.Module, torch_model.WinClipModel(class_name="metal part"))


PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "PaDiM": Peer(256, build_padim),
        "EfficientAD-S": Peer(256, build_efficient_ad),
        "WinCLIP": Peer(240, build_winclip),
    }
)


def measure_peer(task: PeerTask) -> PeerTiming:
    """Build the model and time it.

    Raises:
        SettingsError: anomalib, or what it needs, cannot be imported.
    """
    peer = PEERS[task.name]
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings(action="ignore"):  # anomalib's imports warn of their own imports' future
            model = peer.build(peer.input_px)
    except ImportError as error:
        raise SettingsError(f"{task.name}: anomalib cannot be imported here ({error}); install it anew") from error
    return timed(model, peer.input_px, task)


@torch.inference_mode()
def timed(model: nn.Module, input_px: int, task: PeerTask) -> PeerTiming:
    """A model's pass over one picture that is ready on the device, (1, 3, input_px, input_px) float 0..1."""
    model.to(task.device).eval()
    picture = torch.rand(1, 3, input_px, input_px, device=task.device)
    model(picture)
    found_ms = times_ms(lambda: model(picture), task.repeats, task.seconds, task.device)
    return PeerTiming(input_px, found_ms, torch.get_num_threads())
