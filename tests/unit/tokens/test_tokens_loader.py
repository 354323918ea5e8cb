"""From a corpus and a step to a batch: what is in it, that it is always the same, and what happens to bad samples."""

from __future__ import annotations

import os
import pickle
import signal
from dataclasses import fields
from multiprocessing import active_children
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from umif.corpus import Corpus, draw_regions
from umif.errors import ConfigError, CorpusError, EmptyError
from umif.imaging import centre_view, decode_jpeg_grey, warp_image, warp_mask
from umif.language import Detail, read_details, write_passage
from umif.rng import keyed_rng
from umif.tokens.batch import Batch, Stream
from umif.tokens.loader import BadSample, DataConfig, StepDataset, batches
from umif.tokens.selection import details_of, labels_of
from umif.tokens.text import TextTokenizer, vocabulary_texts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from umif.imaging.augment import Augmentation
    from umif.tokens.selection import Uncertain

    Make = Callable[..., StepDataset]

ALL = ("report", "caption", "class", "segment")


def same(left: Batch, right: Batch) -> bool:
    """Whether two batches are equal bit for bit."""
    for field in fields(Batch):
        one, other = getattr(left, field.name), getattr(right, field.name)
        if isinstance(one, Stream):
            equal = torch.equal(one.rows_T, other.rows_T) and torch.equal(one.offsets_S1, other.offsets_S1)
        elif isinstance(one, torch.Tensor):
            equal = one.dtype == other.dtype and torch.equal(one, other)
        else:
            equal = one == other
        if not equal:
            return False
    return True


def whole_view(picture: NDArray[np.uint8]) -> Augmentation:
    """The view of a picture that is not augmented, at the tests' size."""
    return centre_view(picture.shape[0], picture.shape[1], 32)


def pairs_of(batch: Batch) -> dict[int, dict[str, Any]]:
    """Slot → everything that the batch holds of the pair there, taken apart token by token."""
    count, patches = len(batch.images_NHW), 16
    masks = 0
    second = len(batch)
    found: dict[int, dict[str, Any]] = {}
    words = 0
    for index, slot in enumerate(batch.slots_B.tolist()):
        length = batch.full.lengths[index] - 1 - patches
        pair: dict[str, Any] = {
            "kind": batch.kinds[index],
            "row": int(batch.pairs_B[index]),
            "ratio": float(batch.ratios_B[index]),
            "image": batch.images_NHW[index].numpy(),
        }
        if pair["kind"] == "segment":
            pair["mask"], masks = batch.masks_MHW3[masks].numpy(), masks + 1
        elif pair["kind"] == "image":
            pair["second"], second = batch.images_NHW[second].numpy(), second + 1
        else:
            pair["text"], words = batch.text_ids_T[words : words + length].numpy(), words + length
        # Bits, whatever rows of the table the tokens have: which of the pair's tokens are in group 1.
        start, end = batch.full.offsets_S1[index] + 1, batch.full.offsets_S1[index + 1]
        ones = set(
            batch.group1.rows_T[batch.group1.offsets_S1[index] + 1 : batch.group1.offsets_S1[index + 1]].tolist()
        )
        pair["bits"] = np.array([row in ones for row in batch.full.rows_T[start:end].tolist()])
        found[slot] = pair
    assert (words, masks, second) == (len(batch.text_ids_T), len(batch.masks_MHW3), count)
    return found


def assert_equal_pairs(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert np.array_equal(value, right[name]), name


# ---------------------------------------------------------------------------------------------- what is in it
def test_the_split_decides_which_pairs_there_are(make_dataset: Make, corpus: Corpus) -> None:
    table = corpus.pairs_table(["kind", "split"]).to_pylist()
    for split in ("train", "test"):
        counts = make_dataset(split=split).counts
        assert counts == {
            kind: number
            for kind in ALL
            if (number := sum(row["kind"] == kind and row["split"] == split for row in table))
        }


def test_kinds_and_datasets_narrow_the_choice(make_dataset: Make) -> None:
    assert set(make_dataset(kinds=["report", "segment"]).counts) == {"report", "segment"}
    assert set(make_dataset(datasets=["toy-pairs"]).counts) == set(ALL)
    with pytest.raises(ConfigError, match="toy-pears"):
        make_dataset(datasets=["toy-pears"])


def test_nothing_to_learn_from_is_a_typed_error(make_dataset: Make) -> None:
    with pytest.raises(EmptyError, match=r"no segment pair of the val split.*pairs of all splits: .* report"):
        make_dataset(split="val", kinds=["segment"])


def test_pairs_with_uncertain_labels_only_are_left_out_and_counted(make_dataset: Make, corpus: Corpus) -> None:
    worded, left_out = make_dataset(), make_dataset(uncertain="left_out")
    pairs = corpus.take_pairs(worded.rows("class"))
    sure = [any(f["state"] in ("present", "absent") for f in pair["findings"]) for pair in pairs]
    assert 0 < sum(sure) < len(sure)
    assert left_out.rows("class").tolist() == [r for r, keep in zip(worded.rows("class"), sure, strict=True) if keep]
    assert worded.left_out == {}
    assert left_out.left_out == {"no label that can be worded": len(sure) - sum(sure)}


def test_degrees_and_places_of_labels_are_worded_when_asked_for() -> None:
    findings: list[dict[str, str | None]] = [
        {"raw": "Costophrenic Angle/right/blunted/mild", "finding": "costophrenic_angle_blunting", "state": "present"},
        {"raw": "Edema", "finding": "edema", "state": "present"},
        {"raw": "Toyosis/left", "finding": None, "state": "present"},
    ]
    assert details_of(findings) == {"costophrenic_angle_blunting": Detail("mild", ("right",))}
    text = write_passage(labels_of(findings), np.random.default_rng(0), details=details_of(findings))
    assert read_details(text)["costophrenic_angle_blunting"][1] == Detail("mild", ("right",))
    assert DataConfig().details == "left_out"


def test_spellings_that_disagree_are_asked_of_the_passage_writer(
    make_dataset: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    from umif.corpus.schema import PAIRS

    # Both are the vocabulary's pleural effusion, and a lung is no finding.
    labels: list[list[tuple[str, str | None, str]]] = [
        [("Effusion", "pleural_effusion", "absent"), ("Pleural Effusion", "pleural_effusion", "uncertain")],
        [("Effusion", "pleural_effusion", "absent"), ("Edema", "edema", "uncertain")],
        [("___", None, "present")],
        [("Toyosis", None, "absent")],
    ]
    rows = [[dict(zip(("raw", "finding", "state"), label, strict=True)) for label in pair] for pair in labels]
    same = {name: [value] * len(rows) for name, value in (("kind", "class"), ("split", "train"), ("dataset", "d"))}
    batch = pa.record_batch({**same, "findings": pa.array(rows, PAIRS.field("findings").type)})
    monkeypatch.setattr(Corpus, "pair_batches", lambda *_: iter([batch[:3], batch[3:]]))
    modes: tuple[Uncertain, ...] = ("worded", "left_out")
    for uncertain in modes:
        kept = make_dataset(kinds=["class"], uncertain=uncertain).rows("class").tolist()
        said = []
        for row, pair in enumerate(labels):
            stated = [(finding or raw, state) for raw, finding, state in pair]
            if write_passage(stated, np.random.default_rng(0), uncertain=uncertain):
                said.append(row)
        assert kept == said
        assert 2 not in kept


def test_slots_hold_the_sampled_pairs(make_dataset: Make) -> None:
    dataset = make_dataset()
    for step in (0, 7):
        batch, bad = dataset[step]
        drawn = dataset.sampler.draw(step)
        assert bad == []
        assert batch.step == step
        assert batch.slots_B.tolist() == list(range(24))
        assert batch.kinds == tuple(kind for kind, _ in drawn)
        assert batch.pairs_B.tolist() == [dataset.rows(kind)[index] for kind, index in drawn]


def test_pairs_are_what_the_corpus_holds(make_dataset: Make, corpus: Corpus, tokenizer: TextTokenizer) -> None:
    dataset = make_dataset(seed=5, plain=True, size_exponent=0.0)
    seen = set()
    for step in range(4):
        batch, _ = dataset[step]
        for slot, found in pairs_of(batch).items():
            (pair,) = corpus.take_pairs([found["row"]])
            assert pair["kind"] == found["kind"]
            picture = decode_jpeg_grey(corpus.take_jpegs([pair["image_row"]])[0])
            view = whole_view(picture)
            assert np.array_equal(found["image"], warp_image(picture, view))
            if found["kind"] == "segment":
                assert np.array_equal(
                    found["mask"], warp_mask(draw_regions(pair["regions"], picture.shape[0], picture.shape[1]), view)
                )
                assert found["mask"].any()
            else:
                text = pair["text"]
                if found["kind"] == "class":
                    labels = [(f["finding"] or f["raw"], f["state"]) for f in pair["findings"]]
                    text = write_passage(labels, keyed_rng(5, "template", step, slot))
                assert found["text"].tolist() == tokenizer.encode(text).tolist()
            seen.add(found["kind"])
    assert seen == set(ALL)


def test_texts_are_cut_to_the_config_s_length(make_dataset: Make) -> None:
    batch, _ = make_dataset(kinds=["report"], max_text_tokens=3)[0]
    assert batch.full.lengths == [1 + 16 + 3] * 24


def test_a_mask_moves_with_its_image(make_dataset: Make) -> None:
    from umif.imaging import AugmentConfig

    augment = AugmentConfig(brightness=0.0, contrast=0.0, rotation_degrees=20, horizontal_flip=True)
    dataset = make_dataset(kinds=["segment"], augment=augment, image_size=64)
    overlaps = []
    for step in range(3):
        batch, _ = dataset[step]
        for image, mask in zip(batch.images_NHW.numpy(), batch.masks_MHW3.numpy(), strict=True):
            # The disc is the only bright thing in the picture, and its region the only thing in the mask.
            bright, marked = image > 130, mask.any(axis=2)
            if bright.sum() > 100:
                overlaps.append((bright & marked).sum() / (bright | marked).sum())
    assert len(overlaps) > 50
    # A pixel's rim of a disc of radius 14 or more at 64 pixels; a mask that stayed behind overlaps by half at most.
    assert min(overlaps) > 0.8


@pytest.mark.parametrize("views", ["exposures", "separate"])
def test_group_0_sees_another_exposure_or_another_crop(make_dataset: Make, views: str) -> None:
    shared, _ = make_dataset(kinds=["class"], p_separate=0.0)[2]
    batch, _ = make_dataset(kinds=["class"], p_separate=0.0, views=views)[2]
    count = len(batch)
    assert torch.equal(batch.images_NHW[:count], shared.images_NHW)
    assert torch.equal(batch.text_ids_T, shared.text_ids_T)
    assert batch.images_NHW.shape == (2 * count, 32, 32)
    image_rows = torch.arange(2, 2 + count * 16)
    assert not torch.isin(batch.group0.rows_T, image_rows).any(), "group 0 reads a picture of group 1"
    assert not torch.isin(torch.cat([batch.group1.rows_T, batch.full.rows_T]), image_rows + count * 16).any()
    same_edges = []
    for one, other in zip(batch.images_NHW[:count].float(), batch.images_NHW[count:].float(), strict=True):
        assert not torch.equal(one, other)
        # Another brightness and contrast leaves edges where they are; another crop does not.
        steps = [torch.sign((view[:, 1:] - view[:, :-1]).round()) for view in (one, other)]
        same_edges.append(float((steps[0] == steps[1]).float().mean()))
    assert (min(same_edges) > 0.8) == (views == "exposures")


def test_a_mask_of_group_0_moves_with_the_image_of_group_0(make_dataset: Make) -> None:
    from umif.imaging import AugmentConfig

    augment = AugmentConfig(brightness=0.0, contrast=0.0, rotation_degrees=20)
    batch, _ = make_dataset(kinds=["segment"], augment=augment, image_size=64, views="separate")[0]
    images = {"group 1": batch.images_NHW[: len(batch)], "group 0": batch.images_NHW[len(batch) :]}
    masks = {"group 1": batch.masks_MHW3[0::2], "group 0": batch.masks_MHW3[1::2]}
    for group, pictures in images.items():
        for image, mask in zip(pictures.numpy(), masks[group].numpy(), strict=True):
            bright, marked = image > 130, mask.any(axis=2)
            if bright.sum() > 100:
                # The tolerance of the disc's rim, as above.
                assert (bright & marked).sum() / (bright | marked).sum() > 0.8, group


def test_ratios_and_bits_are_the_keyed_draws_of_each_slot(make_dataset: Make) -> None:
    from umif.tokens import draw_groups, draw_ratio

    batch, _ = make_dataset(seed=3, p_separate=0.5)[6]
    pairs = pairs_of(batch)
    for slot, pair in pairs.items():
        ratio = draw_ratio(0.5, keyed_rng(3, "ratio", 6, slot))
        assert pair["ratio"] == np.float32(ratio)
        count = len(pair["bits"]) - 16
        assert np.array_equal(pair["bits"], draw_groups(16, count, ratio, keyed_rng(3, "groups", 6, slot)))
    assert 0 < sum(pair["ratio"] == 1.0 for pair in pairs.values()) < len(pairs)


def test_image_pairs_are_two_views_of_one_picture(make_dataset: Make, corpus: Corpus) -> None:
    dataset = make_dataset(image_pairs=True, size_exponent=0.0, p_separate=1.0)
    assert dataset.counts["image"] == len(corpus.image_rows("train"))
    step = next(step for step in range(50) if "image" in dataset.sampler.kinds(step))
    batch, _ = dataset[step]
    images = {slot: pair for slot, pair in pairs_of(batch).items() if pair["kind"] == "image"}
    assert images
    names = dict(zip(batch.slots_B.tolist(), dataset.pair_names(batch), strict=True))
    for slot, pair in images.items():
        row = -1 - pair["row"]
        assert names[slot] == corpus.images_table(["image"]).column("image")[row].as_py() + "#image"
        assert not np.array_equal(pair["image"], pair["second"])
        assert pair["second"].max() > 0
    plain, _ = make_dataset(image_pairs=True, size_exponent=0.0, plain=True)[step]
    for slot, pair in pairs_of(plain).items():
        if pair["kind"] == "image":
            assert np.array_equal(pair["image"], pair["second"])
            picture = decode_jpeg_grey(corpus.take_jpegs([-1 - images[slot]["row"]])[0])
            assert np.array_equal(pair["image"], warp_image(picture, whole_view(picture)))


def test_pairs_have_their_corpus_names(make_dataset: Make, corpus: Corpus) -> None:
    dataset = make_dataset()
    batch, _ = dataset[2]
    expected = [corpus.take_pairs([row])[0]["pair"] for row in batch.pairs_B.tolist()]
    assert dataset.pair_names(batch) == expected


# ----------------------------------------------------------------------------------------- always the same
def test_a_step_is_the_same_every_time_and_in_every_order(make_dataset: Make) -> None:
    first, second = make_dataset(image_pairs=True), pickle.loads(pickle.dumps(make_dataset(image_pairs=True)))
    expected = {step: first[step][0] for step in (0, 1, 2, 900)}
    for step in (900, 1, 0, 2):
        assert same(second[step][0], expected[step])
    assert not same(make_dataset(image_pairs=True, seed=1)[0][0], expected[0])


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_workers_make_the_same_batches_bit_for_bit(make_dataset: Make, workers: int | None) -> None:
    dataset = make_dataset(image_pairs=True)
    expected = list(batches(dataset, 3, 10, workers=0))
    found = list(batches(dataset, 3, 10, workers=workers))
    assert [step for step, _, _ in found] == [step for step, _, _ in expected] == list(range(3, 10))
    assert all(same(one[1], other[1]) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("world_size", [2, 4, 5])
def test_processes_together_see_what_one_sees(make_dataset: Make, world_size: int) -> None:
    for step in (0, 5):
        whole = pairs_of(make_dataset(image_pairs=True)[step][0])
        together: dict[int, dict[str, Any]] = {}
        for rank in range(world_size):
            part = pairs_of(make_dataset(image_pairs=True, rank=rank, world_size=world_size)[step][0])
            assert all(slot % world_size == rank for slot in part)
            together |= part
        assert together.keys() == whole.keys()
        for slot, pair in whole.items():
            assert_equal_pairs(together[slot], pair)


def test_killed_workers_lose_and_repeat_no_step(make_dataset: Make) -> None:
    dataset = make_dataset()
    expected = list(batches(dataset, 0, 12))
    found = []
    for step, batch, _ in batches(dataset, 0, 12, workers=2):
        found.append((step, batch))
        if step in (0, 5, 6):
            victims = [process for process in active_children() if process.name.startswith("umif-loader")]
            assert victims
            os.kill(victims[step % len(victims)].pid or 0, signal.SIGKILL)
    assert [step for step, _ in found] == list(range(12))
    assert all(same(batch, other[1]) for (_, batch), other in zip(found, expected, strict=True))


def test_no_steps_are_no_batches(make_dataset: Make) -> None:
    assert list(batches(make_dataset(), 4, 4)) == []
    assert list(batches(make_dataset(), 4, 4, workers=2)) == []
    with pytest.raises(ConfigError, match="workers = -1"):
        next(batches(make_dataset(), 0, 1, workers=-1))


# ------------------------------------------------------------------------------------------- bad samples
@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Image rows whose pictures come back cut in half."""
    rows: set[int] = set()
    original = Corpus.take_jpegs

    def cut(self: Corpus, image_rows: list[int]) -> list[bytes]:
        jpegs = original(self, image_rows)
        return [j[: len(j) // 2] if int(row) in rows else j for row, j in zip(image_rows, jpegs, strict=True)]

    monkeypatch.setattr(Corpus, "take_jpegs", cut)
    return rows


def test_a_bad_picture_is_dropped_by_id_and_changes_nothing_else(
    make_dataset: Make, corpus: Corpus, damaged: set[int]
) -> None:
    dataset = make_dataset(image_pairs=True)
    whole = pairs_of(dataset[4][0])
    image_row = {
        slot: -1 - pair["row"] if pair["kind"] == "image" else corpus.take_pairs([pair["row"]])[0]["image_row"]
        for slot, pair in whole.items()
    }
    damaged.update({image_row[3], image_row[11]})
    lost = {slot for slot, row in image_row.items() if row in damaged}
    batch, bad = dataset[4]
    left = pairs_of(batch)
    assert left.keys() == whole.keys() - lost
    for slot, pair in left.items():
        assert_equal_pairs(pair, whole[slot])
    assert {sample.slot for sample in bad} == lost
    for sample in bad:
        assert sample.row == whole[sample.slot]["row"]
        assert sample.stage == "decode"
        assert sample.error
        assert set(sample.to_json()) == {"pair", "row", "slot", "hash", "stage", "error"}
        if sample.row >= 0:
            (pair,) = corpus.take_pairs([sample.row])
            assert (sample.pair, sample.hash) == (pair["pair"], pair["hash"])


def test_a_bad_image_pair_is_named_by_its_image(make_dataset: Make, corpus: Corpus, damaged: set[int]) -> None:
    dataset = make_dataset(image_pairs=True, size_exponent=0.0)
    step = next(step for step in range(50) if "image" in dataset.sampler.kinds(step))
    slot, row = next(
        (slot, pair["row"]) for slot, pair in pairs_of(dataset[step][0]).items() if pair["kind"] == "image"
    )
    damaged.add(-1 - row)
    sample = next(sample for sample in dataset[step][1] if sample.slot == slot)
    known = corpus.images_table(["image", "sha256"]).to_pylist()[-1 - row]
    assert (sample.pair, sample.hash, sample.row) == (f"{known['image']}#image", known["sha256"], row)


@pytest.mark.parametrize(
    ("kind", "column", "value", "stage", "error"),
    [
        ("segment", "regions", {"shape": "ellipse", "box": [0.1, float("nan"), 0.2, 0.2]}, "regions", "not finite"),
        ("segment", "regions", {"shape": "polygon", "points": [0.1, 0.2, float("inf"), 0.4]}, "regions", "not finite"),
        ("segment", "regions", {"shape": "mask", "mask": b"no picture"}, "regions", "cannot be decoded"),
        ("segment", "regions", {"shape": "cube"}, "regions", "no geometry"),
        ("class", "findings", {"raw": "Edema", "finding": "edema", "state": "maybe"}, "text", "no label state"),
        ("class", "findings", {"raw": "Edema", "finding": "edema", "state": "not_mentioned"}, "text", "say nothing"),
    ],
)
def test_bad_supervision_is_dropped_at_its_stage(
    make_dataset: Make,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    column: str,
    value: dict[str, Any],
    stage: str,
    error: str,
) -> None:
    dataset = make_dataset(kinds=[kind])
    whole = pairs_of(dataset[0][0])
    row = whole[7]["row"]
    original = Corpus.take_pairs

    def spoiled(self: Corpus, rows: list[int], columns: list[str] | None = None) -> list[dict[str, Any]]:
        pairs = original(self, rows, columns)
        return [{**p, column: [value]} if r == row else p for r, p in zip(rows, pairs, strict=True)]

    monkeypatch.setattr(Corpus, "take_pairs", spoiled)
    batch, bad = dataset[0]
    assert {sample.row for sample in bad} == {row}
    assert all(sample.stage == stage and error in sample.error for sample in bad)
    left = pairs_of(batch)
    assert left.keys() == {slot for slot, pair in whole.items() if pair["row"] != row}
    for slot, pair in left.items():
        assert_equal_pairs(pair, whole[slot])


def test_a_batch_that_loses_everything_is_a_typed_error(make_dataset: Make, damaged: set[int]) -> None:
    damaged.update(range(100))
    with pytest.raises(CorpusError, match="none of the 24 samples of step 2 can be used; the first: toy-pairs/"):
        make_dataset()[2]


def test_faults_of_the_code_are_not_taken_for_bad_samples(make_dataset: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> None:
        raise TypeError("a programmer's mistake")

    monkeypatch.setattr(TextTokenizer, "encode", faulty)
    with pytest.raises(TypeError, match="programmer"):
        make_dataset(kinds=["report"])[0]


# ------------------------------------------------------------------------------------------------- settings
def test_every_setting_says_what_it_means() -> None:
    for name, field in DataConfig.model_fields.items():
        assert field.description, name
        assert "C" in field.description or "P:" in field.description, name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 30}, "do not tile 30"),
        ({"world_size": 25}, "process 0 of 25 gets none"),
        ({"rank": 2, "world_size": 2}, "process 2 of 2"),
    ],
)
def test_settings_that_make_no_batch_are_refused(make_dataset: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_dataset(**changes)


def test_a_vocabulary_of_a_corpus_knows_its_texts_and_the_labels_words(corpus: Corpus) -> None:
    texts = list(vocabulary_texts(corpus))
    assert texts == list(vocabulary_texts(corpus))
    assert set(corpus.texts("train")) <= set(texts)
    held_out = set(corpus.texts("test"))
    assert held_out
    assert not held_out & set(texts)
    tokenizer = TextTokenizer.train(texts, vocab_size=3000)
    for passage in ("pneumothorax", "cardiomegaly", "consolidation", "toyosis"):
        assert tokenizer.pieces(passage) == [passage]


def test_bad_samples_are_plain_json(tmp_path: Path) -> None:
    import json

    sample = BadSample(pair="a/b#class", row=3, slot=1, hash="00", stage="decode", error="cut off")
    assert json.loads(json.dumps(sample.to_json())) == sample.to_json()
