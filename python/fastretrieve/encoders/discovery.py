"""Which encoders are installed: read from entry points, without importing any of them.

A plugin is looked at, not run: its module is located, and its source is parsed for the class, the
``api_version`` and the top-level imports. That finds most broken plugins for free; what only shows
when the code runs is found by ``registry.check_plugins`` or when the encoder is asked for.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import machinery, metadata
from pathlib import Path
from typing import Literal, NamedTuple

from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import API_VERSION

GROUP = "fastretrieve.encoders"
ALLOW = "FASTRETRIEVE_ENCODERS"
DISABLE = "FASTRETRIEVE_DISABLE_ENCODERS"

Status = Literal["available", "broken", "disabled", "ambiguous"]


class Plugin(NamedTuple):
    """One encoder that some installed distribution offers."""

    name: str
    distribution: str
    version: str
    target: str  # "package.module:Class"
    status: Status = "available"
    reason: str = ""  # why it is not available

    @property
    def full_name(self) -> str:
        return f"{self.distribution}:{self.name}"


def list_encoders() -> list[Plugin]:
    """Every installed encoder with its state, in order of name. Imports none of them.

    >>> "pixels" in [plugin.name for plugin in list_encoders() if plugin.status == "available"]
    True
    """
    plugins = [_judge(plugin) for plugin in _entry_points()]
    usable = [plugin.name for plugin in plugins if plugin.status != "disabled"]
    for i, plugin in enumerate(plugins):
        if plugin.status != "disabled" and usable.count(plugin.name) > 1:
            others = [p.distribution for p in plugins if p.name == plugin.name and p != plugin]
            reason = f"{', '.join(others)} has one of this name too; ask for {plugin.full_name!r}"
            status: Status = "broken" if plugin.status == "broken" else "ambiguous"
            plugins[i] = plugin._replace(status=status, reason=plugin.reason or reason)
    return sorted(plugins)


def find_plugin(name: str) -> Plugin:
    """The plugin called ``name`` or ``distribution:name``; an ``EncoderError`` tells why not."""
    plugins = list_encoders()
    matches = [plugin for plugin in plugins if _matches(plugin, name)]
    enabled = [plugin for plugin in matches if plugin.status != "disabled"]
    if len(enabled) > 1:
        both = " and ".join(f"{p.distribution} {p.version}" for p in enabled)
        raise EncoderError(
            f"two packages provide encoder {name!r}: {both}; ask for one of them as "
            + " or ".join(repr(p.full_name) for p in enabled)
        )
    if enabled:
        return enabled[0]
    if matches:
        raise EncoderError(f"encoder {name!r} is disabled: {matches[0].reason}")
    known = sorted({plugin.name for plugin in plugins if plugin.status == "available"})
    raise EncoderError(
        f"no encoder is called {name!r}; installed are {', '.join(known) or 'none'}. Install the "
        "package that has it, or give a saved encoder's directory or a file as './my.py:MyEncoder'"
    )


def provider(name: str) -> Plugin | None:
    """The one enabled plugin of this name, or None where there is none or more than one."""
    matches = [p for p in _entry_points() if _matches(p, name)]
    return matches[0] if len(matches) == 1 else None


def _entry_points() -> Iterator[Plugin]:
    for entry in metadata.entry_points(group=GROUP):
        yield Plugin(
            name=entry.name,
            distribution=_normal(_described(entry, "Name")),
            version=_described(entry, "Version"),
            target=entry.value.split("[")[0].strip(),
        )


def _described(entry: metadata.EntryPoint, name: str) -> str:
    """A field of the distribution's metadata; one that is half installed has none."""
    try:
        fields = entry.dist.metadata if entry.dist else None
    except (OSError, ValueError):  # a file that cannot be read, or is not UTF-8
        fields = None
    return fields[name] if fields is not None and name in fields else "unknown"


def _normal(distribution: str) -> str:
    """A distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _matches(plugin: Plugin, pattern: str) -> bool:
    distribution, colon, name = pattern.rpartition(":")
    if colon and _normal(distribution) != plugin.distribution:
        return False
    return name in ("*", plugin.name) if colon else name == plugin.name


def _listed(variable: str) -> list[str]:
    return [part.strip() for part in os.environ.get(variable, "").split(",") if part.strip()]


def _judge(plugin: Plugin) -> Plugin:
    """The plugin with its state, as far as it shows without running its code."""
    allowed, disabled = _listed(ALLOW), _listed(DISABLE)
    if allowed and not any(_matches(plugin, pattern) for pattern in allowed):
        return plugin._replace(status="disabled", reason=f"{ALLOW} does not list it")
    if any(_matches(plugin, pattern) for pattern in disabled):
        return plugin._replace(status="disabled", reason=f"{DISABLE} lists it")
    if reason := _visible_fault(plugin.target):
        return plugin._replace(status="broken", reason=reason)
    return plugin


def _visible_fault(target: str) -> str:
    """What is wrong with ``package.module:Class``, seen without importing it; "" if nothing is."""
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        return f"the entry point {target!r} is not of the form 'package.module:Class'"
    spec = _locate(module)
    if spec is None:
        return f"module {module!r} is not installed"
    if spec.origin is None or not spec.origin.endswith(".py"):
        return ""  # compiled or frozen: only running it can tell
    try:
        tree = ast.parse(Path(spec.origin).read_bytes(), spec.origin)
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
        return f"{spec.origin} does not parse: {error}"
    return _missing_import(tree) or _wrong_version(tree, attribute)


def _locate(module: str) -> machinery.ModuleSpec | None:
    """Find a module without importing its parents, as ``importlib.util.find_spec`` would."""
    path: Sequence[str] | None = None
    spec: machinery.ModuleSpec | None = None
    parts = module.split(".")
    for i in range(len(parts)):
        full = ".".join(parts[: i + 1])
        spec = _find(full, path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
        if path is None and i + 1 < len(parts):
            return None
    return spec


def _find(name: str, path: Sequence[str] | None) -> machinery.ModuleSpec | None:
    for finder in sys.meta_path:  # editable installs bring finders of their own
        find = getattr(finder, "find_spec", None)
        try:
            spec: machinery.ModuleSpec | None = find(name, path) if find else None
        except (ImportError, AttributeError, ValueError):
            continue
        if spec is not None:
            return spec
    return None


def _missing_import(tree: ast.Module) -> str:
    """The first unconditional top-level import of a package that is not there."""
    for node in tree.body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            if _locate(top) is None:
                return f"it imports {top!r}, which is not installed"
    return ""


def _wrong_version(tree: ast.Module, attribute: str) -> str:
    """An ``api_version`` that the class states as a number and that is not ours."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == attribute:
            for line in node.body:
                value = _assigned(line, "api_version")
                if isinstance(value, ast.Constant) and value.value != API_VERSION:
                    return version_fault(value.value)
    return ""


def _assigned(node: ast.stmt, name: str) -> ast.expr | None:
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    for target in targets:
        if isinstance(target, ast.Name) and target.id == name:
            return node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
    return None


def version_fault(found: object) -> str:
    """The sentence for an encoder of another API version."""
    newer = isinstance(found, int) and found > API_VERSION
    remedy = "upgrade fastretrieve" if newer else "upgrade the plugin"
    return f"it speaks api_version {found}, this fastretrieve speaks {API_VERSION}; {remedy}"
