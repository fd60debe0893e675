"""What the routes answer: the models that /openapi.json describes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from fastretrieve.server.filters import Kind


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


class Shown(BaseModel):
    """An item of the gallery."""

    id: int
    name: str
    label: str | None
    caption: str | None
    width: int | None
    height: int | None
    metadata: dict[str, Any]
    picture: str = Field(description="Where its picture is, relative to the page.")
    score: float | None = None
    found_by: int | None = Field(
        default=None, description="Its picture: 0 the query, i the i-th imagined one."
    )
    found_in: Literal["vectors", "words", "both"] | None = Field(
        default=None, description="What found it: its vector, words written about it, or both."
    )


class Page(BaseModel):
    """A page of items, the best first."""

    matches: list[Shown]
    offset: int
    more: bool = Field(description="Whether there is a next page.")
    imagined: list[str] = Field(
        default=[], description="The pictures that were searched with, too: JPEG in base64."
    )
    translated: str | None = Field(
        default=None, description="The translated query, if there is one: a JPEG in base64."
    )
    timing: dict[str, float] = Field(default={}, description="Milliseconds by stage.")
    cluster: int | None = Field(default=None, description="The only one that was searched.")


class ShownCluster(BaseModel):
    """A cluster of the gallery."""

    number: int
    name: str
    size: int
    share: float | None = Field(
        description="Of the members whose label is the name; null if no label names it."
    )
    picture: str = Field(description="Of the member nearest to the centre.")


class ClusterPage(BaseModel):
    """A page of clusters in order of their numbers."""

    clusters: list[ShownCluster]
    offset: int
    more: bool = Field(description="Whether there is a next page.")


class Heat(BaseModel):
    """Where one of two pictures matches the other."""

    heat: list[list[float]] = Field(
        description="Shares of the positions, in rows from the top left; they sum to 1, or 0."
    )
    parts: list[list[float]] = Field(description="What each position adds to the score.")
    constant: float = Field(description="With the parts it sums to the score.")


class Explained(BaseModel):
    """Why an item matches a query."""

    score: float
    metric: str
    method: Literal["parts", "occlusion"] = Field(
        description="By exact parts of the vectors, or by covering positions."
    )
    query: Heat
    item: Heat


class Facts(BaseModel):
    """What the gallery is."""

    name: str
    items: int
    encoder: str
    dim: int
    metric: str
    modality: str
    labels: dict[str, int]
    clusters: int = Field(description="How many clusters it keeps.")
    columns: list[str]
    kinds: dict[str, Kind] = Field(
        description="What the columns hold with which items can be filtered."
    )
    imagines: int = Field(description="How many pictures a search can imagine; 0: none.")
    upload_bytes: int = Field(description="The largest upload.")
    words: bool = Field(description="Whether the encoder knows words, so that text can ask.")
    finds: bool = Field(description="Whether the words written about the items are indexed.")
    translates: bool = Field(description="Whether an upload can be translated.")
