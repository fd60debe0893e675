"""Items that can be searched: ``store`` keeps them, ``intake`` adds them, ``lookup`` finds them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastretrieve._common.needs import wanting
from fastretrieve.gallery.errors import GalleryError

if TYPE_CHECKING:
    from fastretrieve.gallery.gallery import Gallery
    from fastretrieve.gallery.intake.added import Added
    from fastretrieve.gallery.intake.downloads import DownloadLimits
    from fastretrieve.gallery.lookup.cluster_results import Cluster, Clustering
    from fastretrieve.gallery.lookup.heat import Explanation, HeatMap
    from fastretrieve.gallery.lookup.imagining import Imagine
    from fastretrieve.gallery.lookup.matches import Match, Matches
    from fastretrieve.gallery.lookup.translating import Translate
    from fastretrieve.gallery.store.forgetting import Forgotten
    from fastretrieve.gallery.store.items import Item

__all__ = [
    "Added",
    "Cluster",
    "Clustering",
    "DownloadLimits",
    "Explanation",
    "Forgotten",
    "Gallery",
    "GalleryError",
    "HeatMap",
    "Imagine",
    "Item",
    "Match",
    "Matches",
    "Translate",
]

_HOMES = {
    "Added": "intake.added",
    "Cluster": "lookup.cluster_results",
    "Clustering": "lookup.cluster_results",
    "DownloadLimits": "intake.downloads",
    "Explanation": "lookup.heat",
    "Forgotten": "store.forgetting",
    "Gallery": "gallery",
    "HeatMap": "lookup.heat",
    "Imagine": "lookup.imagining",
    "Item": "store.items",
    "Match": "lookup.matches",
    "Matches": "lookup.matches",
    "Translate": "lookup.translating",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        with wanting("networks", "a gallery"):
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
