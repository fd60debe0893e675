"""What a user with mypy --strict writes: `make lint` checks the types, test_typing.py runs it.

``assert_type`` fails on ``Any``, so each line says that a public name is seen with its own type.
Arrays are the exception: they come back as the kind that was given, which is typed as ``Any``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import fastretrieve as fr


def search(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    index = fr.Index(vectors.shape[1], metric="l2", dtype="float16")
    assert_type(index.add(vectors), NDArray[np.int64])
    hits = index.search(vectors[:2], k=3, score_dtype="float64")
    assert_type(hits, fr.Hits)
    assert_type(fr.topk(vectors, vectors, 2, metric="ip"), fr.Hits)
    assert_type(index.search_ids([0], k=2, where=index.ids > 1), fr.Hits)
    assert_type(index.range_search(vectors, radius=1.0), fr.InRange)
    assert_type(index.pairs(radius=0.5), fr.Pairs)
    assert_type(index.knn_graph(k=2).ids, NDArray[np.int64])
    assert_type(index.optimize(), fr.Optimized)
    assert_type(index.stats(), dict[str, float])
    assert_type(index.metric, str)
    assert_type(len(index), int)
    assert_type(hits.metric, str)
    scores, found = hits
    assert len(scores) == len(found) == len(hits)
    searchable: fr.Searchable = index
    assert_type(searchable.search(vectors[:2], 3, where=index.ids), fr.Hits)
    assert_type(searchable.range_search(vectors, 1.0), fr.InRange)
    assert_type(fr.merge([hits, hits], k=3, metric=searchable.metric), fr.Hits)
    ids: NDArray[np.int64] = hits.ids
    return ids


def transform(vectors: NDArray[np.float32]) -> fr.Clusters:
    units: NDArray[np.float32] = fr.normalize(vectors, mean=vectors[0])
    joined: NDArray[np.float32] = fr.fuse([units, vectors], weights=[1, 2])
    scores: NDArray[np.float32] = fr.scores(joined, joined, metric="ip")
    assert scores.shape == (len(vectors), len(vectors))
    clusters = fr.kmeans(joined, 2, seed=1)
    assert_type(clusters, fr.Clusters)
    assert_type(clusters.inertia, float)
    return clusters


def files(vectors: NDArray[np.float32], folder: Path) -> fr.Index:
    fr.write_vectors(folder / "rows.fvecs", vectors)
    assert_type(fr.read_vectors(folder / "rows.fvecs"), NDArray[Any])
    index = fr.Index(vectors.shape[1])
    index.save(folder / "rows.index")
    try:
        return fr.Index.load(folder / "rows.index", mmap=True)
    except fr.StorageError as error:
        raise SystemExit(str(error)) from error


def images(pictures: NDArray[np.uint8], labels: list[str], folder: Path) -> list[Path]:
    data = fr.open_dataset((pictures, labels))
    assert_type(data, fr.Dataset)
    encoder = fr.create_encoder("autoencoder", dim=4, width=4, image_size=8, channels=1)
    result = fr.train(encoder, data, epochs=1, validation=False, progress=False, workers=0)
    assert_type(result, fr.TrainingResult)
    assert_type(result.n_items, int)
    found = fr.evaluate(encoder, data, k=1, workers=0)
    assert_type(found, fr.Evaluation)
    assert_type(found["accuracy"], float)
    votes = fr.classify(pictures[:1], data, encoder=encoder, k=1)
    assert_type(votes, fr.Classification)
    gallery = fr.Gallery.create(folder / "pictures.gallery", encoder=encoder)
    assert_type(gallery, fr.Gallery)
    gallery.add(list(pictures), labels=labels, progress=False)
    matches = gallery.search(pictures[0], k=2, where="label = 'dark'")
    assert_type(matches, fr.Matches)
    assert_type(matches.scores, list[float])
    assert_type(gallery.knows_words, bool)
    if gallery.knows_words:
        assert_type(gallery.search(text="a dark one", k=2), fr.Matches)
        assert_type(gallery.explain(item=1, text="a dark one"), fr.Explanation)
    return matches.paths


def machine() -> str:
    assert_type(fr.num_threads(), int)
    available = [backend for backend in fr.backends() if backend.available]
    assert_type(available, list[fr.BackendInfo])
    return f"{fr.__version__} {available[0].name}"


def main(folder: Path) -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((20, 4), dtype=np.float32)
    print(
        search(vectors)[:, 0], len(set(transform(vectors).assignments)), len(files(vectors, folder))
    )
    pictures = random.integers(0, 255, (12, 8, 8)).astype(np.uint8)
    print(len(images(pictures, ["dark", "bright"] * 6, folder)), machine())


if __name__ == "__main__":
    import sys

    main(Path(sys.argv[1]))
