"""Choose how images may be changed without changing their meaning.

Mirroring is the dangerous change: a mirrored face is a face, a mirrored letter is no letter. So
images are mirrored only if their mirror images lie about as close to the data as they do
themselves. And a crop or a turn of hue may go so far that another image is nearer: views that an
encoder makes itself are weakened until that is rare.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from fastretrieve.data.modalities import kind_of
from fastretrieve.encoders.base import seeded
from fastretrieve.encoders.blocks.views import MILD, Views
from fastretrieve.encoders.protocol import Trainable
from fastretrieve.training.options import Augment

MIRROR_TOLERANCE = 1.1  # how much farther away mirror images may be, as a ratio of distances
_SAMPLE = 512  # images, of which every second one is a query
_SIDE = 16  # at this size the comparison sees shapes, not noise
_FEWEST = 32  # images, for a comparison that is not luck
_MOST_NEARER = 0.1  # the share of other images that may lie nearer to an image than its view does
_CROP_STEP, _MILDEST_CROP = 0.1, 0.85


def choose_views(encoder: Trainable, sample: Any, augment: Augment) -> Views | None:
    """The changes for this encoder and these data, or None for none.

    An encoder that makes views of its own is told about mirroring here.
    """
    is_picture = kind_of(encoder.modality).is_picture
    if not is_picture or not isinstance(sample, torch.Tensor) or sample.ndim != 4:
        return None
    chosen = augment if isinstance(augment, Views) else None
    mirrored = chosen.flip if chosen else bool(augment) and mirrors_are_at_home(sample)
    own = getattr(encoder, "views", None)
    if isinstance(own, Views):
        encoder.views = bearable(own._replace(flip=mirrored), sample)  # type: ignore[attr-defined]
    if chosen is not None:
        return chosen
    if augment is False or (augment == "auto" and not getattr(encoder, "augmentable", True)):
        return None
    return MILD._replace(flip=mirrored)


@torch.no_grad()
def mirrors_are_at_home(images: torch.Tensor) -> bool:
    """Whether mirror images look like the data [n, channels, h, w].

    >>> halves = torch.zeros(40, 1, 8, 8)
    >>> halves[:, :, :, :4] = torch.rand(40, 1, 8, 4)
    >>> mirrors_are_at_home(halves), mirrors_are_at_home(torch.cat([halves, halves.flip(3)]))
    (False, True)
    """
    sample = images[:: max(len(images) // _SAMPLE, 1)][:_SAMPLE].float()
    if len(sample) < _FEWEST:
        return False
    small = _small(sample)
    gallery, asking = small[0::2].flatten(1), small[1::2]
    as_they_are = torch.cdist(asking.flatten(1), gallery).min(1).values.mean()
    mirrored = torch.cdist(asking.flip(3).flatten(1), gallery).min(1).values.mean()
    return bool(mirrored <= MIRROR_TOLERANCE * as_they_are)


@torch.no_grad()
def bearable(views: Views, images: torch.Tensor) -> Views:
    """The views with crops and turns of hue so weak that an image stays nearer to itself than to
    most others. A digit that loses half is another digit; half a shoe is a shoe.

    >>> plain = torch.linspace(0, 1, 40).view(40, 1, 1, 1).expand(40, 1, 8, 8)
    >>> bearable(Views(crop=0.5), plain)
    Views(crop=0.5, shift=0.0, flip=False, colour=0.0, hue=0.0, grey=0.0)
    """
    sample = images[:: max(len(images) // _SAMPLE, 1)][:_SAMPLE].float()
    if len(sample) < _FEWEST:
        return views
    crop, hue = views.crop, views.hue
    while 0 < crop < _MILDEST_CROP and _nearer(Views(crop=crop), sample) > _MOST_NEARER:
        crop = min(round(crop + _CROP_STEP, 3), _MILDEST_CROP)
    while hue >= 0.1 and _nearer(Views(hue=hue), sample) > _MOST_NEARER:
        hue = round(hue / 2, 3)
    return views._replace(crop=crop, hue=hue)


def _nearer(views: Views, images: torch.Tensor) -> float:
    """The share of other images that lie nearer to the view of an image, as small pictures."""
    with seeded(0):
        changed = views(images)
    distances = torch.cdist(_small(changed).flatten(1), _small(images).flatten(1))
    return float((distances < distances.diag()[:, None]).float().mean())


def _small(images: torch.Tensor) -> torch.Tensor:
    return F.adaptive_avg_pool2d(images, (min(_SIDE, images.shape[2]), min(_SIDE, images.shape[3])))
