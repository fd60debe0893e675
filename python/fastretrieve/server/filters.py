"""The columns that the page may see, and the conditions on them.

One list of columns decides what is shown, what can be asked for, and what errors name: a column
that is hidden but can be compared is not hidden.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic import ValidationError as Invalid

from fastretrieve.gallery import Cluster, Gallery, Item
from fastretrieve.gallery.lookup.conditions import Filter, Operator
from fastretrieve.gallery.store.items import quoted
from fastretrieve.server.limits import Refused

Kind = Literal["text", "number", "mixed"]
One = StrictBool | StrictInt | StrictFloat | StrictStr

# Of the fixed columns. The rest tells where files lie, what they hold, and what was removed.
SHOWN = ("label", "caption", "width", "height", "id")
MAX_FILTERS = 20
MAX_LISTED = 1000  # values of "in"
MAX_TEXT = 1000
_MAX_JSON = 100_000
_FIXED_KINDS: dict[str, Kind] = {
    "label": "text",
    "caption": "text",
    "width": "number",
    "height": "number",
    "id": "number",
}
_SAMPLE = 1000  # items that tell what a column holds
_LARGEST = 2**63 - 1  # what SQLite takes for a whole number


class Condition(BaseModel):
    """One condition on a column; several are joined by and."""

    model_config = ConfigDict(extra="forbid")

    column: StrictStr
    operator: Operator
    value: One | list[One] | None = None


def shown(item: Item) -> dict[str, Any]:
    """The public facts of an item: never its place on the machine."""
    fixed = {name: getattr(item, name) for name in SHOWN}
    more = {"name": item.name, "metadata": item.metadata}
    return {**plain({**fixed, **more}), "picture": f"api/items/{item.id}/picture"}


def shown_cluster(cluster: Cluster) -> dict[str, Any]:
    """The public facts of a cluster."""
    about = {name: getattr(cluster, name) for name in ("number", "name", "size", "share")}
    return {**plain(about), "picture": f"api/items/{cluster.item.id}/picture"}


def plain(value: Any) -> Any:
    r"""As JSON can hold it: infinity, bytes and lone surrogates become text.

    >>> plain({"a": [float("inf"), b"x", "\ud800"]})
    {'a': ['inf', "b'x'", '?']}
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {plain(str(name)): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def parsed(text: str) -> list[Condition]:
    """Conditions from JSON; anything else is refused with a sentence."""
    try:
        if len(text) > _MAX_JSON:
            raise ValueError(f"it has {len(text)} characters, at most {_MAX_JSON} go")
        listed = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(listed, list):
            raise ValueError(f"it is {type(listed).__name__}")
        if len(listed) > MAX_FILTERS:
            raise Refused(422, f"at most {MAX_FILTERS} filters, got {len(listed)}")
        return [Condition.model_validate(each) for each in listed]
    except Invalid as error:
        reason = sentence(error.errors(include_url=False, include_input=False))
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise Refused(422, f"filters is a JSON list of conditions: {reason}")


def sentence(errors: Sequence[Any]) -> str:
    """The fault that pydantic found, without the value: that may be anything."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("query", "body", "path"))
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return str(plain(f"{where[:200]}{': ' if where else ''}{first['msg'][:500]}{more}"))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


class FilterColumns:
    """The columns of one gallery that the page may know, and what they hold."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._lock = threading.Lock()
        self._known: tuple[Any, dict[str, Kind]] = (None, {})

    def kinds(self) -> dict[str, Kind]:
        """By name: text, number, or mixed. The first items tell; before a text is refused, all are
        asked.
        """
        metadata = self._gallery.columns
        key = (tuple(metadata), len(self._gallery))
        with self._lock:
            if self._known[0] == key:
                return self._known[1]
        kinds = {**_FIXED_KINDS, **self._sampled(metadata)}
        with self._lock:
            self._known = (key, kinds)
        return kinds

    def filters(self, conditions: Sequence[Condition]) -> list[Filter]:
        """As the gallery takes them."""
        kinds = self.kinds() if conditions else {}
        exact = {name.lower(): name for name in kinds}
        filters = []
        for one in conditions:
            name = exact.get(one.column.lower())
            if name is None:
                raise Refused(
                    422,
                    f"there is no column {one.column[:100]!r}; columns: {', '.join(kinds)}",
                )
            filters.append(Filter(name, one.operator, self._value(one, name, kinds[name])))
        return filters

    def _value(self, one: Condition, name: str, kind: Kind) -> Any:
        """The value as its column holds it."""
        value, operator = one.value, one.operator
        if operator in ("is empty", "is not empty"):
            if value is not None:
                raise Refused(422, f"{operator!r} takes no value")
            return None
        if operator == "in":
            if not isinstance(value, list) or len(value) > MAX_LISTED:
                raise Refused(422, f"'in' takes a list of at most {MAX_LISTED} values")
            return [self._as_held(each, name, kind) for each in value]
        if value is None or isinstance(value, list):
            raise Refused(422, f"{operator!r} takes one value; 'in' takes a list")
        if operator == "contains":
            return self._as_held(str(value), name, "text")
        return self._as_held(value, name, kind)

    def _as_held(self, value: Any, name: str, kind: Kind) -> Any:
        if isinstance(value, str):
            _refuse_text(value)
            if kind != "number":
                return value
            number = _number(value)
            if number is not None:
                return number
            if name not in _FIXED_KINDS and self._holds_text(name):
                return value
            raise Refused(422, f"{name} holds numbers; {value[:100]!r} is none")
        if isinstance(value, float) and not math.isfinite(value):
            raise Refused(422, "a number is finite")
        if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
            value = float(value) if abs(value) < 10**300 else math.copysign(1e300, value)
        return str(value) if kind == "text" else value

    def _sampled(self, metadata: Sequence[str]) -> dict[str, Kind]:
        if not metadata:
            return {}
        items = self._gallery.items(limit=_SAMPLE)
        return {name: _kind([item.metadata.get(name) for item in items]) for name in metadata}

    def _holds_text(self, name: str) -> bool:
        return len(self._gallery.items(f"typeof({quoted(name)}) = 'text'", limit=1)) > 0


def _kind(values: Sequence[Any]) -> Kind:
    types = {type(value) for value in values if value is not None}
    if types and types <= {int, float}:
        return "number"
    return "text" if types == {str} else "mixed"


def _number(text: str) -> int | float | None:
    """The number that a text is, as a person writes it."""
    try:
        return (
            int(text) if text.strip().lstrip("+-").isdecimal() and len(text) < 19 else _real(text)
        )
    except ValueError:
        return None


def _real(text: str) -> float | None:
    number = float(text)  # takes "1_000", "nan" and "infinity", too
    return number if math.isfinite(number) and "_" not in text else None


def _refuse_text(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise Refused(422, f"a text to compare with has at most {MAX_TEXT} characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused(422, "a text to compare with holds a lone surrogate") from None


# --- how they are described -----------------------------------------------------------------------


def described(kinds: dict[str, Kind]) -> dict[str, Any]:
    """The JSON schema of a list of conditions on these columns."""
    texts = [name for name, kind in kinds.items() if kind != "number"]
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    text = {"type": "string", "maxLength": MAX_TEXT}
    scalar = {"anyOf": [text, {"type": "number"}, {"type": "boolean"}]}
    number = {"anyOf": [{"type": "number"}, {"type": "boolean"}]}
    compared = [name for name in get_args(Operator) if name in ("=", "!=", "<", "<=", ">", ">=")]
    choices = [
        _described([*kinds], ["contains"], scalar),
        _described([*kinds], ["is empty", "is not empty"], {"type": "null"}, optional=True),
    ]
    for names, kind in ((texts, scalar), (numbers, number)):
        if names:
            listed = {"type": "array", "items": kind, "maxItems": MAX_LISTED}
            choices += [_described(names, compared, kind), _described(names, ["in"], listed)]
    return {"type": "array", "maxItems": MAX_FILTERS, "items": {"anyOf": choices}}


def _described(
    names: list[str], operators: list[str], value: dict[str, Any], *, optional: bool = False
) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "column": {"enum": names},
            "operator": {"enum": operators},
            "value": value,
        },
        "required": ["column", "operator", *([] if optional else ["value"])],
        "additionalProperties": False,
    }
