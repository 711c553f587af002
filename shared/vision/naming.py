"""Names a defect in words: CLIP features of its crop + the recipe's phrases -> the best phrase and a confidence.

Ours; no paper of this family does it. A crop is compared with the normal object and with the object that has each
defect; what is not sure enough is called "other".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

OTHER = "other"
NORMAL_ROW, PHRASE_ROWS = 0, 2  # of the text features: normal, abnormal, then the phrases
LOGIT_SCALE = 100.0  # factor of the cosines, CLIP's own [V]


@dataclass(frozen=True)
class Name:
    """What a defect is called."""

    text: str  # one of the phrases, or "other"
    confidence: float  # probability of the best phrase, 0..1, also where it was too low to be used


def name_defects(crops: Tensor, texts: Tensor, phrases: Sequence[str], *, floor: float) -> list[Name]:
    """Crop features (N, Ct), texts (2 + P, Ct) of length 1 as `text_features`, P >= 1 phrases -> N names.

    Probabilities are the softmax over the normal object and the phrases, so that even a single phrase can be refused:
    under ``floor`` (0..1), or less likely than the normal object, the name is "other".
    """
    rows = [NORMAL_ROW, *range(PHRASE_ROWS, PHRASE_ROWS + len(phrases))]
    probability = (LOGIT_SCALE * F.normalize(crops.float(), dim=-1) @ texts[rows].T).softmax(dim=-1)
    best, number = probability[:, 1:].max(dim=-1)
    sure = (best >= floor) & (best > probability[:, 0])
    return [
        Name(phrases[place] if known else OTHER, confidence)
        for place, known, confidence in zip(number.tolist(), sure.tolist(), best.tolist(), strict=True)
    ]
