"""Write tiny ONNX models byte by byte: two halves of a CLIP model, without the package onnx."""

import json
from pathlib import Path

import numpy as np

FLOAT, INT64 = 1, 7
SIDE, LENGTH, DIM = 8, 6, 4
VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "dark": 2, "bright": 3, "a": 4}


def _varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _field(number, value):
    """One field of a protobuf message: a whole number, or bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _tensor(name, array):
    dims = b"".join(_field(1, n) for n in array.shape)
    return dims + _field(2, FLOAT) + _field(8, name) + _field(9, array.tobytes())


def _value(name, kind, shape):
    dims = b"".join(_field(1, _field(2, n) if isinstance(n, str) else _field(1, n)) for n in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, dims)))


def _whole_numbers(name, values):
    """An attribute of a node; one number where it is no list."""
    if isinstance(values, int):
        return _field(1, name) + _field(3, values) + _field(20, 2)
    return _field(1, name) + b"".join(_field(8, v) for v in values) + _field(20, 7)


def _node(op, inputs, output, **attributes):
    out = b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(4, op)
    return out + b"".join(_field(5, _whole_numbers(*each)) for each in attributes.items())


def model(nodes, weights, given, made):
    """A model of nodes; ``given`` and ``made`` are (name, type, shape)."""
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "tiny")
    graph += b"".join(_field(5, _tensor(*each)) for each in weights.items())
    graph += _field(11, _value(*given)) + _field(12, _value(*made))
    return _field(1, 7) + _field(8, _field(2, 11)) + _field(7, graph)


def write_clip(folder, *, seed=0, **settings):
    """A CLIP model that sees how bright a picture is, and knows the words dark and bright."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=DIM).astype(np.float32)
    seen = np.outer(np.ones(3 * SIDE * SIDE), axis).astype(np.float32)
    known = 0.01 * rng.normal(size=(len(VOCABULARY), DIM)).astype(np.float32)
    known[VOCABULARY["dark"]], known[VOCABULARY["bright"]] = -axis, axis
    nodes = [_node("Flatten", ["pixels"], "flat", axis=1), _node("MatMul", ["flat", "w"], "out")]
    visual = model(
        nodes,
        {"w": seen},
        ("pixels", FLOAT, ["n", 3, SIDE, SIDE]),
        ("out", FLOAT, ["n", DIM]),
    )
    nodes = [
        _node("Gather", ["e", "tokens"], "rows", axis=0),
        _node("ReduceMean", ["rows"], "out", axes=[1], keepdims=0),
    ]
    textual = model(
        nodes, {"e": known}, ("tokens", INT64, ["n", LENGTH]), ("out", FLOAT, ["n", DIM])
    )
    (folder / "visual.onnx").write_bytes(visual)
    (folder / "textual.onnx").write_bytes(textual)
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": "[UNK]"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    if settings:
        (folder / "clip.json").write_text(json.dumps(settings))
    return folder
