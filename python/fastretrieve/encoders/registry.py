"""From a name to an encoder: load the class, check it, make or restore an instance.

A name is ``pixels`` (an entry point, see ``discovery.py``), ``distribution:pixels``,
``./my.py:MyEncoder`` (a file), ``module:package.attribute`` (any torch module) or
``clip:/models/my-clip`` (a CLIP model on a disk). Importing this module imports no encoder and no
torch.
"""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from fastretrieve._common import needs
from fastretrieve.encoders import discovery
from fastretrieve.encoders.discovery import Plugin
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import API_VERSION, CAPABILITIES, Encoder
from fastretrieve.encoders.saved import files
from fastretrieve.encoders.saved.opening import naming, printable

MODULE_PREFIX = "module:"
CLIP_PREFIX = "clip:"
_OPTIONS = {MODULE_PREFIX: "target", CLIP_PREFIX: "path"}  # what comes after a prefix
_REMEDY = ". Reinstall or upgrade it"
_OWN = "fastretrieve"
_METHODS = ("preprocess", "encode", "save", "load", "to")


def create_encoder(name: str, /, *, device: str = "cpu", **config: Any) -> Encoder:
    """Make a new encoder: by name, ``distribution:name``, ``./file.py:Class``, ``module:...`` or
    ``clip:...``.

    >>> create_encoder("pixels", image_size=8, channels=1).dim
    64
    """
    if not isinstance(name, str):
        raise TypeError(
            f"an encoder is made by its name, got {type(name).__name__}; "
            f"a class or an instance is used as it is"
        )
    config = {**_after_prefix(name), **config}
    cls = encoder_class(name)
    try:
        inspect.signature(cls).bind(**config)
    except TypeError as error:
        options = [p for p in inspect.signature(cls).parameters if p not in ("args", "kwargs")]
        raise EncoderError(f"encoder {name!r}: {error}; its options are {options}") from error
    encoder = cls(**config)
    check_instance(encoder, name)
    if callable(getattr(encoder, "eval", None)):
        encoder.eval()  # a torch module is born in training mode
    return cast(Encoder, encoder.to(device))


def load_encoder(
    where: str | Path, *, device: str = "cpu", encoder: str | type[Any] | None = None
) -> Encoder:
    """Load a saved encoder from its directory, or make the one of that name with its defaults.

    ``encoder`` says which class reads the directory, where the name in it cannot: two packages
    have the name, or it came from a file (``./my.py:MyEncoder``), ``module:`` or ``clip:``. A
    directory is data, so what it says is looked up among installed plugins and never run.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> create_encoder("pixels", image_size=4).save(folder)
    >>> load_encoder(folder).image_size
    (4, 4)
    """
    is_name = isinstance(where, str) and not _looks_like_path(where)
    if encoder is None and is_name and not files.is_saved_encoder(where):
        return create_encoder(str(where), device=device)
    if not Path(where).is_dir():
        raise EncoderError(
            f"{where} is not a directory; give what encoder.save() or `fastretrieve train` wrote, "
            "or the name of an encoder"
        )
    saved = files.read_encoder(where)
    options = _after_prefix(encoder) if isinstance(encoder, str) else {}
    cls = encoder if isinstance(encoder, type) else _class_for(saved, encoder)
    with naming(saved.directory, cls.__name__):
        loaded = cls.load(where, device=device, **options)
    check_instance(loaded, saved.encoder)
    return cast(Encoder, loaded)


def as_encoder(encoder: Any, *, device: str | None = None) -> Encoder:
    """An encoder from what names one: an instance, a class, a directory, a name, a torch module.

    >>> as_encoder("pixels").name
    'pixels'
    """
    if isinstance(encoder, (str, Path)):
        return load_encoder(encoder, device=device or "cpu")
    if isinstance(encoder, type):
        encoder = encoder()
    if not hasattr(encoder, "encode") and hasattr(encoder, "forward"):
        encoder = _module_encoder()(encoder)
    name = getattr(encoder, "name", None)
    check_instance(encoder, name if isinstance(name, str) else type(encoder).__name__)
    return cast(Encoder, encoder if device is None else encoder.to(device))


def encoder_class(name: str) -> type[Any]:
    """The class behind a name, imported and checked."""
    if name.startswith(MODULE_PREFIX):
        return _module_encoder()
    if name.startswith(CLIP_PREFIX):
        return _imported(discovery.find_plugin(CLIP_PREFIX[:-1]))
    path, _, attribute = name.rpartition(":")
    if path.endswith(".py"):
        from fastretrieve.encoders.one_off import class_from_file

        made = class_from_file(Path(path), attribute)
        if fault := class_fault(made):
            raise EncoderError(f"{path}:{attribute} is not an encoder: {fault}")
        return cast("type[Any]", made)
    return _imported(discovery.find_plugin(name))


def _after_prefix(name: str) -> dict[str, str]:
    """The option that a name gives behind its prefix."""
    for prefix, option in _OPTIONS.items():
        if name.startswith(prefix):
            return {option: name.removeprefix(prefix)}
    return {}


def _module_encoder() -> type[Any]:
    with needs.wanting("networks", "a torch module"):
        from fastretrieve.encoders.models.module import ModuleEncoder
    return ModuleEncoder


def plugin_class(name: str) -> type[Any]:
    """The class behind a name that comes from data: an installed plugin, and nothing else is run.

    The one door for such names. Whatever a directory, a checkpoint or a manifest says, a file or a
    ``module:`` must be named by the caller, in this process, each time.

    >>> plugin_class("./photos.gallery/encoder/x.py:X")
    Traceback (most recent call last):
    fastretrieve.encoders.errors.EncoderError: './photos.gallery/encoder/x.py:X' is no name of an \
installed encoder; what a directory names is never run: a file or a module must be named by the \
caller
    """
    if fault := files.name_fault(name):
        raise EncoderError(fault)
    return _imported(discovery.find_plugin(name))


def _imported(plugin: Plugin) -> type[Any]:
    if plugin.status == "broken":
        raise _broken(plugin, plugin.reason)
    module, _, attribute = plugin.target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except needs.MissingPackage:  # it says what to install
        raise
    except (Exception, SystemExit) as error:  # a foreign module may raise anything
        raise _broken(plugin, f"{type(error).__name__}: {error}") from error
    if fault := class_fault(found):
        raise _broken(plugin, fault)
    return cast("type[Any]", found)


def class_fault(cls: Any) -> str:
    """Why a class is no encoder; "" if it is one."""
    if not isinstance(cls, type):
        return f"{cls!r} is not a class"
    if missing := [name for name in _METHODS if not callable(getattr(cls, name, None))]:
        return f"class {cls.__name__} has no {', '.join(missing)}"
    version = getattr(cls, "api_version", API_VERSION)
    if isinstance(version, property) or version == API_VERSION:
        return ""
    return discovery.version_fault(version)


def check_instance(encoder: Any, name: str) -> None:
    """Refuse an instance whose attributes break the protocol, and list all faults.

    ``fastretrieve.testing.check_encoder`` checks the meaning too.
    """
    faults = instance_faults(encoder)
    plain = name.rpartition(":")[2]
    is_named = not (_after_prefix(name) or ".py:" in name)
    if is_named and getattr(encoder, "name", plain) not in (plain, name):
        faults.append(f"its name is {encoder.name!r} but its entry point's is {plain!r}")
    if faults:
        raise EncoderError(f"encoder {name!r} breaks the protocol: " + "; ".join(faults))


def instance_faults(encoder: Any) -> list[str]:
    """Every way in which the attributes of an encoder differ from the protocol."""
    faults = [class_fault(type(encoder))]
    missing = [
        name
        for name in ("name", "dim", "modality", "api_version", "capabilities")
        if getattr(encoder, name, None) is None
    ]
    if missing:
        return [*filter(None, faults), f"it has no {', '.join(missing)}"]
    if encoder.api_version != API_VERSION:
        faults.append(discovery.version_fault(encoder.api_version))
    if not isinstance(encoder.name, str) or not encoder.name:
        faults.append(f"name is a non-empty string, got {encoder.name!r}")
    if not isinstance(encoder.dim, int) or encoder.dim < 1:
        faults.append(f"dim is a positive int, got {encoder.dim!r}")
    if fault := _modality_fault(encoder.modality):
        faults.append(fault)
    if unknown := sorted(set(encoder.capabilities) - set(CAPABILITIES)):
        faults.append(f"capabilities {unknown} are unknown; known are {sorted(CAPABILITIES)}")
    for capability in sorted(set(encoder.capabilities) & set(CAPABILITIES)):
        lacking = [name for name in CAPABILITIES[capability] if not hasattr(encoder, name)]
        if lacking:
            faults.append(f"it declares {capability!r} but has no {', '.join(lacking)}")
    return [fault for fault in dict.fromkeys(faults) if fault]


def _modality_fault(modality: Any) -> str:
    from fastretrieve.data.modalities import KINDS

    known = sorted(KINDS)
    return "" if modality in known else f"modality is one of {known}, got {modality!r}"


def check_plugins(*, timeout: float = 120.0) -> list[Plugin]:
    """``list_encoders`` after importing each one, every plugin in a process of its own.

    So a plugin that crashes, exits or hangs harms no other.
    """
    return [
        plugin if plugin.status != "available" else _try_import(plugin, timeout)
        for plugin in discovery.list_encoders()
    ]


def _try_import(plugin: Plugin, timeout: float) -> Plugin:
    code = (
        "import sys; from fastretrieve.encoders import registry; registry.plugin_class(sys.argv[1])"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, plugin.full_name],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return plugin._replace(status="broken", reason=f"importing it took over {timeout:g} s")
    if done.returncode == 0:
        return plugin
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    cause = last.partition("cannot be used: ")[2] or last
    return plugin._replace(status="broken", reason=cause.partition(_REMEDY)[0])


def _broken(plugin: Plugin, cause: str) -> EncoderError:
    if missing := re.search(r"imports '(\w+)', which|No module named '(\w+)", cause):
        absent = ModuleNotFoundError(cause, name=missing[1] or missing[2])
        if told := needs.sentence(absent, what=f"encoder {plugin.name!r}"):
            return EncoderError(told)
    # Not our own: an index may hold another package named fastretrieve.
    how = "" if plugin.distribution == _OWN else f" (pip install -U {plugin.distribution})"
    return EncoderError(
        f"encoder {plugin.name!r} of {plugin.distribution} {plugin.version} cannot be used: "
        f"{cause}{_REMEDY}{how}, or hide it with {discovery.DISABLE}={plugin.full_name}"
    )


def _class_for(saved: files.SavedEncoder, encoder: str | None) -> type[Any]:
    if encoder is not None:
        return encoder_class(encoder)
    if saved.encoder == "module":
        return encoder_class(MODULE_PREFIX)
    try:
        return plugin_class(saved.encoder)
    except EncoderError as error:
        name = printable(saved.encoder[:120])
        source = f" of {printable(saved.provider)}" if saved.provider else ""
        raise EncoderError(
            f"{saved.directory} was saved by encoder {name!r}{source}: {error}. "
            "load_encoder(directory, encoder=...) takes any other name, file or class"
        ) from error


def _looks_like_path(where: str) -> bool:
    return where.endswith(("/", "\\")) or (
        ("/" in where or where.startswith(".")) and ".py:" not in where and not _after_prefix(where)
    )
