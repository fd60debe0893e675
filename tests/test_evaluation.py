"""The figures of ``evaluate`` are those of an independent implementation; reports show them."""

import json

import numpy as np
import pytest
from PIL import Image

import fastretrieve as fr
from fastretrieve.data import open_dataset
from fastretrieve.encoders import EncoderError, create_encoder
from fastretrieve.encoders.encoding import encode_dataset
from fastretrieve.evaluation import classify, evaluate
from fastretrieve.evaluation.directions import n_directions, warning
from wrong_encoders import RightEncoder

rng = np.random.default_rng(20261121)


def slow_metrics(query, label, rows, row_labels, *, ks):
    """Every metric of one query from its definition, by walking down the ranking."""
    cosine = rows @ query / (np.linalg.norm(rows, axis=1) * np.linalg.norm(query))
    ranked = [row_labels[i] == label for i in sorted(range(len(rows)), key=lambda i: -cosine[i])]
    n_relevant = sum(ranked)
    found, precisions, first, gain = 0, [], None, 0.0
    for rank, is_match in enumerate(ranked, 1):
        if is_match:
            found += 1
            precisions.append((rank, found / rank))
            first = first or rank
            gain += 1 / np.log2(rank + 1)
    best = sum(1 / np.log2(rank + 1) for rank in range(1, n_relevant + 1))
    metrics = {
        "accuracy": float(ranked[0]),
        "mrr": 1 / first,
        "map": sum(p for _, p in precisions) / n_relevant,
        "map@r": sum(p for rank, p in precisions if rank <= n_relevant) / n_relevant,
        "ndcg": gain / best,
    }
    for k in ks:
        ideal = sum(1 / np.log2(rank + 1) for rank in range(1, min(k, n_relevant) + 1))
        near = [1 / np.log2(rank + 1) for rank, match in enumerate(ranked[:k], 1) if match]
        metrics[f"recall@{k}"] = float(any(ranked[:k]))
        metrics[f"precision@{k}"] = sum(ranked[:k]) / k
        metrics[f"coverage@{k}"] = sum(ranked[:k]) / n_relevant
        metrics[f"ndcg@{k}"] = sum(near) / ideal
    return metrics


@pytest.mark.parametrize("ks", [(1, 5, 10), (3,), (200,)])
def test_metrics_equal_the_definitions(ks):
    rows, row_labels = rng.standard_normal((60, 7)).astype(np.float32), rng.integers(0, 4, 60)
    queries, labels = rng.standard_normal((25, 7)).astype(np.float32), rng.integers(0, 4, 25)
    found = evaluate(queries, labels=labels, gallery=(rows, row_labels), k=ks)
    each = [
        slow_metrics(q, y, rows, row_labels, ks=ks) for q, y in zip(queries, labels, strict=True)
    ]
    assert set(found.metrics) == set(each[0])
    for name, value in found.metrics.items():
        assert value == pytest.approx(np.mean([m[name] for m in each]), abs=1e-9), name


def test_metrics_equal_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rows, row_labels = rng.standard_normal((80, 6)).astype(np.float32), rng.integers(0, 3, 80)
    queries, labels = rng.standard_normal((20, 6)).astype(np.float32), rng.integers(0, 3, 20)
    found = evaluate(queries, labels=labels, gallery=(rows, row_labels), k=[5])
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    scores = queries / np.linalg.norm(queries, axis=1, keepdims=True) @ unit.T
    truth = labels[:, None] == row_labels
    average = [metrics.average_precision_score(t, s) for t, s in zip(truth, scores, strict=True)]
    assert found["map"] == pytest.approx(np.mean(average), abs=1e-6)
    assert found["ndcg"] == pytest.approx(metrics.ndcg_score(truth, scores), abs=1e-6)
    assert found["ndcg@5"] == pytest.approx(metrics.ndcg_score(truth, scores, k=5), abs=1e-6)


def test_without_a_gallery_no_item_finds_itself():
    vectors, labels = rng.standard_normal((40, 5)).astype(np.float32), rng.integers(0, 3, 40)
    found = evaluate(vectors, labels=labels, k=[4])
    each = [
        slow_metrics(vectors[i], labels[i], np.delete(vectors, i, 0), np.delete(labels, i), ks=[4])
        for i in range(40)
    ]
    for name, value in found.metrics.items():
        assert value == pytest.approx(np.mean([m[name] for m in each]), abs=1e-9), name
    assert (found.neighbours != found.rows[:, None]).all()


def test_copies_do_not_push_an_item_out_of_its_own_ranking():
    """Forty copies tie, so an item is not among its own first four: none may be lost for it."""
    found = evaluate(np.ones((40, 3), np.float32), labels=[0, 1] * 20, k=[3], depth=3)
    assert found.neighbours.shape == (40, 3)
    assert (found.neighbours != found.rows[:, None]).all()


def test_chunks_do_not_change_a_figure(monkeypatch):
    vectors, labels = rng.standard_normal((50, 4)).astype(np.float32), rng.integers(0, 3, 50)
    whole = evaluate(vectors, labels=labels)
    monkeypatch.setattr("fastretrieve.evaluation.ranking._CHUNK", 7)
    assert evaluate(vectors, labels=labels).metrics == whole.metrics


def test_depth_cuts_the_ranking():
    vectors = np.array([[1, 0], [1, 0.2], [0, 1], [0.9, 0.5]], np.float32)
    labels = ["a", "b", "b", "a"]
    cut = evaluate(vectors, labels=labels, depth=1, k=1)
    assert cut.depth == 1
    assert cut["map"] == cut["accuracy"]
    assert evaluate(vectors, labels=labels, k=1)["map"] > cut["map"]
    deep = evaluate(np.eye(6, dtype=np.float32), labels=[0] * 6, depth=1, k=2)
    assert deep.depth == 2  # never less than k
    assert "map@r" not in deep.metrics  # R is 5


def test_queries_without_class_mates_are_counted_not_scored():
    vectors = rng.standard_normal((6, 3)).astype(np.float32)
    found = evaluate(vectors, labels=["a", "a", "b", None, "c", "c"])
    assert (found.n_queries, found.n_unscored) == (4, 2)
    assert set(found.per_class) == {"a", "c"}
    assert "2 queries have no label or no class mate" in str(found)


def test_classes_are_matched_by_name_between_queries_and_gallery():
    rows = np.eye(3, dtype=np.float32)
    found = evaluate(rows[1:], labels=["dog", "cat"], gallery=(rows, ["ant", "dog", "cat"]), k=1)
    assert found["accuracy"] == 1.0


@pytest.fixture
def data():
    """Dark and bright images with a noisy camera: B's pictures have labels at random."""
    draw = np.random.default_rng(3)
    labels = np.arange(80) % 2
    images = np.where(labels == 0, 30, 220)[:, None, None] * np.ones((1, 8, 8))
    images[:, :, ::2] = 128
    cameras = np.where(np.arange(80) < 40, "A", "B")
    shown = np.where(cameras == "A", labels, draw.integers(0, 2, 80))
    images = images + draw.normal(0, 4, images.shape)
    columns = {"camera": cameras, "day": np.arange(80), "note": [None] * 80}
    names = np.array(["dark", "bright"])[shown]
    return open_dataset(np.clip(images, 0, 255).astype(np.uint8), labels=names, columns=columns)


def test_a_bias_shows_by_column(data):
    encoder = create_encoder("pixels", image_size=8, channels=1)
    found = evaluate(encoder, data, by=["camera", "day", "note"], metric="l2")
    assert found.by["camera"]["A"]["accuracy"] > found.by["camera"]["B"]["accuracy"]
    assert [group["n_queries"] for group in found.by["day"].values()] == [20.0] * 4
    assert list(found.by["note"]) == ["(none)"]
    mean = np.mean([found.by["camera"][name]["map"] for name in "AB"])
    assert mean == pytest.approx(found["map"])
    assert json.loads(json.dumps(found.to_dict()))["n_queries"] == 80
    shown = str(found)
    for name in "AB":
        assert f"{name}: accuracy {found.by['camera'][name]['accuracy']:.4f}" in shown
    assert "(40 queries)" in shown


def test_report_is_a_page_or_a_picture(data, tmp_path):
    found = evaluate("pixels", data, by="camera")
    found.report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "By camera" in page
    assert page.count("data:image/png;base64,") == 2
    assert f"{found['map']:.4f}" in page
    found.report(tmp_path / "report.png", n_rows=3, k=4)
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.width == 5 * (96 + 8) + 24
    with pytest.raises(ValueError, match=r"\.html or \.png"):
        found.report(tmp_path / "report.pdf")


def test_report_escapes_names(tmp_path):
    found = evaluate(np.eye(4, dtype=np.float32), labels=["<script>", "<script>", "b", "b"])
    found.report(tmp_path / "report.html")
    assert "<script>" not in (tmp_path / "report.html").read_text("utf-8")
    with pytest.raises(ValueError, match="no pictures"):
        found.report(tmp_path / "report.png")


def test_unreadable_images_are_listed(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("L", (8, 8), 40 * i + 100 * (name == "b")).save(tmp_path / name / f"{i}.png")
    (tmp_path / "a" / "broken.png").write_bytes(b"\x89PNG nonsense")
    found = evaluate("pixels", tmp_path)
    assert found.n_queries == 6
    assert "broken.png" in found.skipped[0].key


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluate(np.eye(3)), "no query has a label"),
        (lambda: evaluate(np.eye(3), labels=[0, 1]), "2 labels for 3 items"),
        (lambda: evaluate(np.eye(3), labels=np.eye(3)), "labels must be a list of 3 names or num"),
        (lambda: evaluate(np.eye(3), labels=1.5), "labels must be a list of .*, got 1.5"),
        (lambda: evaluate(np.eye(3), labels="abc"), "labels must be a list of .*, got 'abc'"),
        (lambda: evaluate([[1], [2, 3]], labels=[0, 1]), "vectors must be rows of equal length"),
        (lambda: evaluate(np.eye(3), labels=[0, 0, 0], k=0), "at least 1"),
        (lambda: evaluate(np.eye(3), labels=[0, 0, 0], gallery=np.eye(3)), r"\(vectors, labels\)"),
        (lambda: evaluate(np.eye(3), labels=[0, 0, 0], by="x"), "needs a data set"),
        (lambda: evaluate(np.zeros(3), labels=[0, 0, 0]), r"\[n, dim\]"),
        (lambda: classify(np.eye(3), (np.eye(3), [None] * 3)), "nothing to vote with"),
        (lambda: classify(np.eye(3), (np.eye(3), [0] * 3), weights="x"), "'uniform' or 'rank'"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_untrained_encoder_is_refused():
    encoder = create_encoder("pixels", image_size=8, dim=4)
    with pytest.raises(EncoderError, match="not trained"):
        evaluate(encoder, (np.zeros((4, 8, 8), np.uint8), [0, 0, 1, 1]))


def test_classify_votes_and_breaks_ties_by_the_nearest():
    rows = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], np.float32)
    found = classify([[1, 0.05], [0.2, 1]], (rows, ["x", "y", "y", "x"]), k=2, weights="uniform")
    assert found.names == ["x", "x"]
    assert found.shares.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    ranked = classify([[1, 0.05]], (rows, ["x", "y", "y", "x"]), k=2)
    assert ranked.shares[0].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_a_balanced_vote_hears_rare_classes():
    rows = np.array([[1, 0.1], [1, -0.1], [1, 0.2], [1, 0.05], [0, 1]], np.float32)
    labels = ["often", "often", "often", "rare", "other"]
    assert classify([[1, 0]], (rows, labels), k=4).names == ["often"]
    found = classify([[1, 0]], (rows, labels), k=4, balanced=True)
    votes = {"rare": 1.0, "often": (1 / 2 + 1 / 3 + 1 / 4) / 3}
    assert found.names == ["rare"]
    shares = dict(zip(found.classes, found.shares[0], strict=True))
    assert shares["rare"] == pytest.approx(votes["rare"] / sum(votes.values()))
    assert shares["other"] == 0


def test_classify_images_leaves_unlabelled_items_out(data):
    encoder = create_encoder("pixels", image_size=8, channels=1)
    gallery = data.subset(np.arange(40))
    gallery.labels[1] = -1
    found = classify(data.subset([41, 42]), gallery, encoder=encoder, k=3, metric="l2")
    assert found.head is None
    assert 1 not in found.neighbours
    assert found.shares.sum(axis=1).tolist() == [1.0, 1.0]


def test_classify_asks_the_head_of_the_encoder(data):
    encoder = RightEncoder()
    encoder.set_classes(["bright", "dark"])
    encoder.is_trained = True
    found = classify(data.subset([0, 1, 2]), data, encoder=encoder, k=3)
    assert found.head_classes == ("bright", "dark")
    wanted = encoder.probabilities(encoder.preprocess([data[0], data[1], data[2]]))
    np.testing.assert_allclose(found.head, wanted.numpy(), atol=1e-6)


def test_a_long_run_shows_its_progress(data, capsys):
    encode_dataset(create_encoder("pixels"), data, batch_size=20, progress=True)
    assert "encoding" in capsys.readouterr().err
    encode_dataset(create_encoder("pixels"), data, batch_size=20)
    assert capsys.readouterr().err == ""  # not a terminal


def test_evaluate_takes_torch_vectors():
    torch = pytest.importorskip("torch")
    vectors = torch.eye(4)[[0, 0, 1, 1]]
    assert evaluate(vectors, labels=[0, 0, 1, 1], k=1)["accuracy"] == 1.0
    assert isinstance(fr.topk(vectors, vectors, k=1).ids, torch.Tensor)


def test_the_worst_class_stands_beside_the_mean() -> None:
    angles = np.r_[np.full(20, 0.0), np.full(10, 1.5), np.full(2, 0.7)]
    labels = ["head"] * 20 + ["tail"] * 9 + ["head"] + ["rare", "alone"]
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    vectors += np.random.default_rng(0).normal(0, 0.01, vectors.shape).astype(np.float32)
    few = evaluate(vectors, labels=labels, depth=5, k=1)
    assert few.worst_class() is None  # nine queries say little
    labels[29] = "tail"
    labels[3] = "tail"
    found = evaluate(vectors, labels=labels, depth=5, k=1)
    name, value = found.worst_class() or ("", 1.0)
    assert (name, value) == ("tail", found.per_class["tail"]["accuracy"])
    assert value < found["accuracy"]
    assert f"worst class   {value:.4f} (accuracy of tail)" in str(found)
    assert found.to_dict()["worst_class"] == ("tail", value)


def test_directions_are_those_that_hold_the_variance():
    rng = np.random.default_rng(3)
    turned = np.linalg.qr(rng.standard_normal((64, 64)))[0]
    rows = (rng.standard_normal((3000, 6)) @ turned[:6]).astype(np.float32)
    assert n_directions(rows) == 6
    assert n_directions(rows + 0.001 * rng.standard_normal(rows.shape)) == 6
    assert 55 < n_directions(rng.standard_normal((3000, 64))) <= 64
    assert n_directions(np.ones((5, 3))) == n_directions(np.zeros((1, 3))) == 0
    assert "6 of 64" in str(warning(6, 64))
    assert warning(9, 64) is None
    assert warning(0, 64) is None
