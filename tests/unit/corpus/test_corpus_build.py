"""Preparing a corpus: everything is kept or accounted for, in any folder, by any number of workers."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from toy_dataset import OtherToyReader, ToyReader, picture, write_png, write_rows, write_toy

from umif.config import REGISTRY
from umif.corpus import Corpus, Manifest, PrepareConfig, build, prepare
from umif.corpus.schema import IMAGES, PAIR_KINDS, PAIRS
from umif.corpus.workers import build_shards
from umif.errors import ConfigError, CorpusError, EmptyError, LayoutError, ReaderContractError, RegistryError
from umif.imaging import decode_jpeg_grey

if TYPE_CHECKING:
    from umif.corpus.shards import Shard

CONFIG = PrepareConfig(shorter_side=32)


@pytest.fixture(autouse=True)
def _toy_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    REGISTRY.names("reader")  # loads UmiF's own first
    monkeypatch.setitem(REGISTRY._entries["reader"], "toy", ToyReader)
    monkeypatch.setitem(REGISTRY._entries["reader"], "toy2", OtherToyReader)


def _prepare(out: Path, *roots: Path, config: PrepareConfig = CONFIG, **options: Any) -> Manifest:
    sources = [(name, root) for name, root in zip(("toy", "toy2"), roots, strict=False)]
    return prepare(out, sources, config, **{"workers": 1, "progress": False, **options})


def _ledger(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]


def test_every_image_and_every_supervision_is_there(tmp_path: Path) -> None:
    write_toy(tmp_path / "raw", 12)
    manifest = _prepare(tmp_path / "corpus", tmp_path / "raw")
    assert manifest.images == 12
    # Labels of case 3 mod 4 are not mentioned, but cardiomegaly is stated in all.
    assert manifest.pairs == {"report": 6, "caption": 0, "class": 4, "segment": 3}
    assert manifest.unmapped == {"Toyosis": 7}
    assert (manifest.quarantined, manifest.dropped_regions, manifest.duplicates) == (0, 0, 0)
    assert sum(manifest.splits.values()) == 12
    reader = manifest.readers[0]
    assert (reader.name, reader.seen, reader.yielded, reader.images) == ("toy", 12, 12, 12)
    assert not (tmp_path / "corpus" / ".build").exists()


def test_rows_say_what_the_dataset_said(tmp_path: Path) -> None:
    rows = write_toy(tmp_path / "raw", 12)
    _prepare(tmp_path / "corpus", tmp_path / "raw")
    corpus = Corpus.open(tmp_path / "corpus")
    images = corpus.images_table().to_pylist()
    assert [image["image"] for image in images] == [f"toy/{row['image']}" for row in rows]
    for index, (image, row) in enumerate(zip(images, rows, strict=True)):
        raw = (tmp_path / "raw" / "images" / row["image"]).read_bytes()
        assert image["sha256"] == hashlib.sha256(raw).hexdigest()
        assert image["patient"] == f"toy/{row['patient']}"
        assert image["source"] == f"images/{row['image']}"
        assert (image["original_height"], image["original_width"]) == (40 + index, 60 + index)
        assert image["height"] == 32
        assert {f["raw"]: f["state"] for f in image["findings"]} == row.get("findings", {})
    found = {f["raw"]: f["finding"] for image in images for f in image["findings"]}
    assert found == {"Pneumonia": "pneumonia", "Cardiomegaly": "cardiomegaly", "Toyosis": None}


def test_pictures_look_like_the_originals(tmp_path: Path) -> None:
    write_toy(tmp_path / "raw", 3)
    config = PrepareConfig(shorter_side=4096, jpeg_quality=100)
    _prepare(tmp_path / "corpus", tmp_path / "raw", config=config)
    jpegs = Corpus.open(tmp_path / "corpus").take_jpegs([0, 1, 2])
    for index, jpeg in enumerate(jpegs):
        original = picture(index, 40 + index, 60 + index).astype(int)
        # JPEG at quality 100 rounds its coefficients: within two grey values almost everywhere.
        assert np.abs(decode_jpeg_grey(jpeg).astype(int) - original).max() <= 3


def test_pairs_point_at_their_image_and_follow_its_split(tmp_path: Path) -> None:
    write_toy(tmp_path / "raw", 12)
    _prepare(tmp_path / "corpus", tmp_path / "raw")
    corpus = Corpus.open(tmp_path / "corpus")
    images = corpus.images_table().to_pylist()
    pairs = corpus.take_pairs(range(sum(corpus.manifest.pairs.values())))
    assert len({pair["pair"] for pair in pairs}) == len(pairs)
    for pair in pairs:
        image = images[pair["image_row"]]
        for column in ("image", "dataset", "patient", "split", "study", "view", "findings"):
            assert pair[column] == image[column]
        assert (pair["text"] is not None) == (pair["kind"] == "report")
        assert bool(pair["regions"]) == (pair["kind"] == "segment")
        assert pair["source"].startswith("records.json:")
    segment = next(pair for pair in pairs if pair["kind"] == "segment")
    assert [region["shape"] for region in segment["regions"]] == ["box", "mask", "polygon"]
    assert segment["regions"][0]["box"] == pytest.approx([5 / 60, 6 / 40, 20 / 60, 10 / 40])


def test_several_texts_of_an_image_are_several_pairs(tmp_path: Path) -> None:
    rows = write_toy(tmp_path / "raw", 1)
    rows[0] |= {
        "texts": [
            ["report", "Eins.", "report"],
            ["caption", "Bild.", "caption"],
            ["report", "Two.", "llm"],
            ["report", " ", "notes"],
        ],
        "findings": {"Pneumonia": "not_mentioned"},
        "regions": [],
    }
    write_rows(tmp_path / "raw", rows)
    _prepare(tmp_path / "corpus", tmp_path / "raw")
    pairs = Corpus.open(tmp_path / "corpus").take_pairs([0, 1, 2])
    assert [pair["pair"].split("#")[1] for pair in pairs] == ["report", "caption", "report2"]
    assert [pair["text_source"] for pair in pairs] == ["report", "caption", "llm"]


def test_two_workers_one_worker_and_another_folder_give_one_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "SHARD_RECORDS", 3)
    write_toy(tmp_path / "raw", 10)
    write_toy(tmp_path / "more", 5, seed=1)
    shutil.copytree(tmp_path / "raw", tmp_path / "elsewhere" / "deep" / "raw")  # other path, other file times
    first = _prepare(tmp_path / "one", tmp_path / "raw", tmp_path / "more")
    second = _prepare(tmp_path / "two", tmp_path / "elsewhere" / "deep" / "raw", tmp_path / "more", workers=2)
    assert first.fingerprint == second.fingerprint
    sources = [("toy2", tmp_path / "more"), ("toy", tmp_path / "raw")]
    assert prepare(tmp_path / "three", sources, CONFIG, workers=1, progress=False).fingerprint == first.fingerprint


def test_shard_size_does_not_reach_the_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy(tmp_path / "raw", 7)
    first = _prepare(tmp_path / "one", tmp_path / "raw").fingerprint
    monkeypatch.setattr(build, "SHARD_RECORDS", 2)
    assert _prepare(tmp_path / "two", tmp_path / "raw").fingerprint == first


@pytest.mark.parametrize("what", ["pixel", "text", "region", "label", "patient", "seed", "size"])
def test_whatever_training_sees_reaches_the_fingerprint(tmp_path: Path, what: str) -> None:
    rows = write_toy(tmp_path / "raw", 6)
    before = _prepare(tmp_path / "before", tmp_path / "raw").fingerprint
    config = CONFIG
    if what == "pixel":
        pixels = picture(5, 45, 65)
        pixels[20:30, 20:30] = 255 - pixels[20:30, 20:30]
        write_png(tmp_path / "raw" / "images" / "005.png", pixels)
    elif what == "text":
        rows[0]["texts"][0][1] += " Stable."
    elif what == "region":
        rows[4]["regions"][0]["box"][2] += 1
    elif what == "label":
        rows[3]["findings"]["Cardiomegaly"] = "uncertain"
    elif what == "patient":
        rows[1]["patient"] = "p9"
    elif what == "seed":
        config = PrepareConfig(shorter_side=32, split_seed=3)
    else:
        config = PrepareConfig(shorter_side=33)
    write_rows(tmp_path / "raw", rows)
    assert _prepare(tmp_path / "after", tmp_path / "raw", config=config).fingerprint != before


def test_preparing_again_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy(tmp_path / "raw", 6)
    first = _prepare(tmp_path / "corpus", tmp_path / "raw")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "corpus").rglob("*")}
    monkeypatch.setattr(build, "_build_shards", None)  # would fail if anything were built
    assert _prepare(tmp_path / "corpus", tmp_path / "raw") == first
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "corpus").rglob("*")} == before


def test_other_inputs_never_replace_a_corpus_unless_told(tmp_path: Path) -> None:
    write_toy(tmp_path / "raw", 6)
    first = _prepare(tmp_path / "corpus", tmp_path / "raw")
    write_toy(tmp_path / "more", 4, seed=1)
    with pytest.raises(CorpusError, match="other inputs"):
        _prepare(tmp_path / "corpus", tmp_path / "raw", tmp_path / "more")
    assert Corpus.open(tmp_path / "corpus").fingerprint == first.fingerprint
    replaced = _prepare(tmp_path / "corpus", tmp_path / "raw", tmp_path / "more", overwrite=True)
    assert replaced.images == 10
    assert Corpus.open(tmp_path / "corpus").fingerprint == replaced.fingerprint
    fresh = _prepare(tmp_path / "fresh", tmp_path / "raw", tmp_path / "more")
    assert fresh.fingerprint == replaced.fingerprint


def test_foreign_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    write_toy(tmp_path / "raw", 2)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "notes.txt").write_text("mine")
    _prepare(tmp_path / "corpus", tmp_path / "raw")
    write_toy(tmp_path / "raw", 3)
    _prepare(tmp_path / "corpus", tmp_path / "raw", overwrite=True)
    assert (tmp_path / "corpus" / "notes.txt").read_text() == "mine"


def test_one_file_of_two_patients_in_two_datasets_lies_in_one_split(tmp_path: Path) -> None:
    write_toy(tmp_path / "raw", 8)
    rows = write_toy(tmp_path / "more", 8, seed=1)
    rows[3]["split"] = "test"
    write_rows(tmp_path / "more", rows)
    shutil.copy(tmp_path / "raw" / "images" / "006.png", tmp_path / "more" / "images" / "003.png")
    manifest = _prepare(tmp_path / "corpus", tmp_path / "raw", tmp_path / "more")
    assert manifest.duplicates == 1
    images = {row["image"]: row for row in Corpus.open(tmp_path / "corpus").images_table().to_pylist()}
    assert images["toy/006.png"]["sha256"] == images["toy2/003.png"]["sha256"]
    # Patient toy/p3 (006, 007) and patient toy2/p1 (002, 003) are joined by the file, and an official test image.
    for name in ("toy/006.png", "toy/007.png", "toy2/002.png", "toy2/003.png"):
        assert images[name]["split"] == "test"
    assert images["toy2/003.png"]["official_split"] == "test"


def test_official_splits_can_be_left_aside(tmp_path: Path) -> None:
    rows = write_toy(tmp_path / "raw", 40)
    write_rows(tmp_path / "raw", [row | {"split": "test"} for row in rows])
    sources = [("toy", tmp_path / "raw")]
    kept = prepare(tmp_path / "kept", sources, workers=1, progress=False)
    assert kept.splits["test"] == 40
    config = PrepareConfig(splits="patients")
    placed = prepare(tmp_path / "placed", sources, config, workers=1, progress=False)
    assert min(placed.splits.values()) > 0
    assert placed.fingerprint != kept.fingerprint
    with pytest.raises(CorpusError, match="other inputs"):
        prepare(tmp_path / "kept", sources, config, workers=1, progress=False)
    table = Corpus.open(tmp_path / "placed").images_table(["official_split"])
    assert set(table.column("official_split").to_pylist()) == {"test"}


def test_patients_of_two_datasets_meet_only_in_a_shared_namespace(tmp_path: Path) -> None:
    write_toy(tmp_path / "raw", 2)
    rows = write_toy(tmp_path / "more", 3, seed=1)
    rows[0] |= {"patient": "p0", "patient_namespace": "toy"}
    rows[1] |= {"patient": "p0"}
    rows[2] |= {"patient": None}
    write_rows(tmp_path / "more", rows)
    _prepare(tmp_path / "corpus", tmp_path / "raw", tmp_path / "more")
    patients = Corpus.open(tmp_path / "corpus").images_table(["patient"]).column("patient").to_pylist()
    assert patients == ["toy/p0", "toy/p0", "toy/p0", "toy2/p0", "toy2/image:002.png"]


def test_bad_images_are_quarantined_by_name_and_the_rest_is_kept(tmp_path: Path) -> None:
    rows = write_toy(tmp_path / "raw", 10)
    images = tmp_path / "raw" / "images"
    (images / "001.png").write_bytes((images / "001.png").read_bytes()[:300])
    (images / "002.png").write_text("no picture")
    (images / "003.png").unlink()
    (images / "004.png").write_bytes(b"")
    rows[5]["image"] = "../../outside.png"
    write_png(tmp_path / "outside.png", picture(0, 40, 40))
    rows.append({"image": "010.png", "modality": "CT"})
    write_rows(tmp_path / "raw", rows)
    config = PrepareConfig(shorter_side=32, bad_share_max=0.5)
    manifest = _prepare(tmp_path / "corpus", tmp_path / "raw", config=config)
    assert (manifest.images, manifest.quarantined) == (5, 5)
    reader = manifest.readers[0]
    assert (reader.seen, reader.yielded, reader.excluded) == (11, 10, {"modality is CT": 1})
    ledger = {row["item"]: row for row in _ledger(tmp_path / "corpus")}
    bad = {"001.png", "002.png", "003.png", "004.png", "../../outside.png"}
    assert {item for item, row in ledger.items() if row["stage"] == "image"} == bad
    assert ledger["003.png"]["reason"] == "missing file"
    assert ledger["../../outside.png"]["reason"] == "outside the folder"
    assert ledger["010.png"] == {
        "dataset": "toy",
        "item": "010.png",
        "stage": "read",
        "reason": "modality is CT",
        "error": None,
        "where": "records.json",
    }
    for row in ledger.values():
        assert str(tmp_path) not in json.dumps(row)
    kept = Corpus.open(tmp_path / "corpus").images_table(["image"]).column("image").to_pylist()
    assert kept == [f"toy/{i:03d}.png" for i in (0, 6, 7, 8, 9)]


def test_a_quarantined_image_does_not_change_the_others(tmp_path: Path) -> None:
    rows = write_toy(tmp_path / "raw", 9)
    (tmp_path / "raw" / "images" / "004.png").write_text("no picture")
    config = PrepareConfig(shorter_side=32, bad_share_max=0.5)
    damaged = _prepare(tmp_path / "damaged", tmp_path / "raw", config=config)
    write_rows(tmp_path / "raw", [row for row in rows if row["image"] != "004.png"])
    assert _prepare(tmp_path / "without", tmp_path / "raw", config=config).fingerprint == damaged.fingerprint


def test_too_many_bad_images_stop_the_work_and_are_named(tmp_path: Path) -> None:
    write_toy(tmp_path / "raw", 10)
    for name in ("003.png", "007.png"):
        (tmp_path / "raw" / "images" / name).write_text("no picture")
    with pytest.raises(CorpusError) as error:
        _prepare(tmp_path / "corpus", tmp_path / "raw")
    assert "2 of 10 images of toy" in str(error.value)
    assert "003.png" in str(error.value)
    assert "007.png" in str(error.value)
    assert error.value.where is not None
    assert "007.png" in Path(error.value.where).read_text()
    with pytest.raises(CorpusError, match="unfinished"):
        Corpus.open(tmp_path / "corpus")
    config = PrepareConfig(shorter_side=32, bad_share_max=0.2)
    assert _prepare(tmp_path / "corpus", tmp_path / "raw", config=config).images == 8


def test_a_mended_image_is_read_again_without_building_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "SHARD_RECORDS", 5)
    write_toy(tmp_path / "raw", 20)
    file = tmp_path / "raw" / "images" / "019.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    config = PrepareConfig(shorter_side=32, bad_share_max=0)
    with pytest.raises(CorpusError):
        _prepare(tmp_path / "corpus", tmp_path / "raw", config=config)
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "corpus" / ".build").glob("*.arrow")}
    assert len(finished) == 8
    file.write_bytes(whole)
    built: list[int] = []

    def counted(shards: list[Shard], *rest: Any, **options: Any) -> Any:
        built.append(len(shards))
        return build_shards(shards, *rest, **options)

    monkeypatch.setattr(build, "build_shards", counted)
    assert _prepare(tmp_path / "corpus", tmp_path / "raw", config=config).images == 20
    assert built == [1]


def test_masks_that_do_not_fit_are_dropped_and_listed(tmp_path: Path) -> None:
    rows = write_toy(tmp_path / "raw", 5)
    write_png(tmp_path / "raw" / "masks" / "000.png", np.full((10, 10), 255, dtype=np.uint8))
    write_png(tmp_path / "raw" / "masks" / "004.png", np.zeros((44, 64), dtype=np.uint8))
    rows[4]["regions"] = [rows[4]["regions"][1]]
    rows[2]["regions"] = [{"finding": "Mass", "shape": "mask", "mask_path": "../../../secret.png"}]
    write_rows(tmp_path / "raw", rows)
    config = PrepareConfig(shorter_side=32, bad_share_max=0.3)
    manifest = _prepare(tmp_path / "corpus", tmp_path / "raw", config=config)
    assert manifest.dropped_regions == 2
    assert manifest.pairs["segment"] == 1
    ledger = {(row["item"], row["reason"]): row for row in _ledger(tmp_path / "corpus")}
    wrong = ledger["000.png [Pneumothorax]", "mask of another size"]
    assert wrong["where"] == "masks/000.png"
    assert "10 × 10" in wrong["error"]
    assert ("004.png [Pneumothorax]", "empty mask") in ledger
    assert ("002.png", "outside the folder") in ledger


def test_an_empty_dataset_is_refused_with_what_was_left_out(tmp_path: Path) -> None:
    write_rows(tmp_path / "raw", [{"image": f"{i}.png", "modality": "CT"} for i in range(3)])
    with pytest.raises(EmptyError, match="3 × modality is CT"):
        _prepare(tmp_path / "corpus", tmp_path / "raw")
    write_rows(tmp_path / "raw", [])
    with pytest.raises(EmptyError, match="holds no image"):
        _prepare(tmp_path / "corpus", tmp_path / "raw")
    with pytest.raises(EmptyError, match="nothing to prepare"):
        prepare(tmp_path / "corpus", [])


def test_a_dataset_with_unreadable_images_only_is_empty(tmp_path: Path) -> None:
    write_toy(tmp_path / "raw", 2)
    for file in (tmp_path / "raw" / "images").iterdir():
        file.write_text("no picture")
    with pytest.raises(EmptyError, match="no image could be read"):
        _prepare(tmp_path / "corpus", tmp_path / "raw", config=PrepareConfig(bad_share_max=1))


def test_bad_sources_are_named(tmp_path: Path) -> None:
    write_toy(tmp_path / "raw", 2)
    with pytest.raises(RegistryError, match="Did you mean"):
        prepare(tmp_path / "corpus", [("toyy", tmp_path / "raw")])
    with pytest.raises(LayoutError, match="no such folder"):
        prepare(tmp_path / "corpus", [("toy", tmp_path / "missing")])
    with pytest.raises(CorpusError, match="given 2 times"):
        prepare(tmp_path / "corpus", [("toy", tmp_path / "raw"), ("toy", tmp_path / "raw")])
    assert not (tmp_path / "corpus").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match="cannot be used as a corpus folder"):
        _prepare(tmp_path / "file", tmp_path / "raw")


@pytest.mark.parametrize("row", [{"split": "training"}, {"texts": [["poem", "x", "report"]]}])
def test_values_outside_the_schema_are_the_readers_fault(tmp_path: Path, row: dict[str, Any]) -> None:
    rows = write_toy(tmp_path / "raw", 2)
    rows[1] |= row
    write_rows(tmp_path / "raw", rows)
    with pytest.raises(ReaderContractError, match=r"toy: 001\.png") as error:
        _prepare(tmp_path / "corpus", tmp_path / "raw")
    assert error.value.where is not None
    assert "records.json:3" in error.value.where


def test_settings_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        PrepareConfig(val_share=0.5, test_share=0.5)


def test_the_manifest_is_json_with_the_promised_keys(tmp_path: Path) -> None:
    write_toy(tmp_path / "raw", 4)
    manifest = _prepare(tmp_path / "corpus", tmp_path / "raw")
    data = json.loads((tmp_path / "corpus" / "corpus.json").read_text())
    assert data == manifest.to_json()
    assert {"fingerprint", "readers", "images", "pairs", "quarantined"} <= set(data)
    assert {"name", "seen", "yielded", "excluded"} <= set(data["readers"][0])
    assert set(data["pairs"]) == set(PAIR_KINDS)
    assert str(tmp_path) not in json.dumps(data)


# ---- reading a corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    write_toy(tmp_path / "raw", 12)
    write_toy(tmp_path / "more", 4, seed=1)
    _prepare(tmp_path / "corpus", tmp_path / "raw", tmp_path / "more")
    return Corpus.open(tmp_path / "corpus")


def test_tables_have_the_schema(corpus: Corpus) -> None:
    assert corpus.images_table(IMAGES.names).schema.equals(IMAGES)
    assert corpus.pairs_table(PAIRS.names).schema.equals(PAIRS)
    assert "jpeg" not in corpus.images_table().column_names
    assert "regions" not in corpus.pairs_table().column_names
    assert isinstance(corpus.pairs_table(["kind"]), pa.Table)


def test_rows_are_taken_in_the_order_asked_for(corpus: Corpus) -> None:
    in_order = corpus.take_jpegs(range(16))
    assert len(set(in_order)) == 16
    rows = [7, 3, 3, 15, 0, 7]
    assert corpus.take_jpegs(rows) == [in_order[row] for row in rows]
    assert corpus.take_jpegs(np.array([], dtype=np.int64)) == []
    names = corpus.pairs_table(["pair"]).column("pair").to_pylist()
    assert [pair["pair"] for pair in corpus.take_pairs([5, 1, 5], ["pair"])] == [names[5], names[1], names[5]]
    assert set(corpus.take_pairs([0])[0]) == set(PAIRS.names)
    with pytest.raises(IndexError, match="rows 0 to 15"):
        corpus.take_jpegs([16])
    with pytest.raises(IndexError, match="asked for -1"):
        corpus.take_jpegs([-1])


def test_rows_are_chosen_by_kind_split_and_dataset(corpus: Corpus) -> None:
    table = corpus.pairs_table().to_pylist()
    for split in (None, "train", "val", "test"):
        for datasets in (None, ["toy2"], ["toy", "toy2"]):
            expected = [
                row
                for row, pair in enumerate(table)
                if pair["kind"] == "report"
                and split in (None, pair["split"])
                and (datasets is None or pair["dataset"] in datasets)
            ]
            assert corpus.pair_rows("report", split, datasets).tolist() == expected
    assert corpus.image_rows(datasets=["toy2"]).tolist() == [12, 13, 14, 15]
    for arguments in (("reports",), ("report", "dev"), ("report", None, ["x"])):
        with pytest.raises(ConfigError, match="the corpus has no"):
            corpus.pair_rows(*arguments)
    with pytest.raises(ConfigError, match="no column 'jpg'"):
        corpus.images_table(["jpg"])


def test_samples_are_drawn_without_replacement_by_the_generator_given(corpus: Corpus) -> None:
    first = corpus.sample_rows(5, np.random.default_rng(0))
    assert (corpus.sample_rows(5, np.random.default_rng(0)) == first).all()
    assert len(set(first.tolist())) == 5
    assert len(corpus.sample_rows(99, np.random.default_rng(0))) == 16


def test_texts_come_in_row_order(corpus: Corpus) -> None:
    pairs = [pair for pair in corpus.pairs_table().to_pylist() if pair["text"]]
    assert list(corpus.texts()) == [pair["text"] for pair in pairs]
    assert list(corpus.texts("train")) == [pair["text"] for pair in pairs if pair["split"] == "train"]
