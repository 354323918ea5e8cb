"""No identifier of a DICOM header reaches a corpus, a page or a run; whoever looks for one finds hashes only."""

from __future__ import annotations

import base64
import gzip
import html
import json
import zipfile
from typing import TYPE_CHECKING, Any

import lance
import pyarrow as pa
import pytest
import yaml

from byte_search import found_in
from planted_headers import READERS, Planted
from train_runs import tiny_recipe
from umif.cli import main
from umif.corpus import Corpus
from umif.corpus.lineage import trace
from umif.readers.dicom_header import KEY_VARIABLE, hash_identifier

if TYPE_CHECKING:
    from pathlib import Path

PICTURES = 44


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Planted, dict[str, Path]]:
    """Raw folders of every reader that looks into DICOM headers, and one of DICOM pictures."""
    home = tmp_path_factory.mktemp("raw")
    planted = Planted()
    folders = {reader: planted.folder(reader, home / reader) for reader in READERS}
    folders["folder"] = planted.pictures(home / "folder", PICTURES)
    return planted, folders


@pytest.fixture(scope="module")
def outputs(planted: tuple[Planted, dict[str, Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the verbs wrote and printed about these folders."""
    out = tmp_path_factory.mktemp("outputs")
    sources = [word for name, root in planted[1].items() for word in ("--from", f"{name}={root}")]
    corpus, run, recipe = out / "corpus", out / "run", tiny_recipe(out / "corpus", out / "run", steps=3)
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    commands = [
        ["prepare", str(corpus), *sources, "--workers", "1", "--splits", "patients", "--json"],
        ["inspect", str(corpus), "--workers", "1", "--json"],
        ["audit", str(corpus), "--against", str(corpus), "--trained", "train", "--out", str(out / "audit"), "--json"],
        ["pretrain", str(out / "recipe.yaml"), "--json"],
        ["report", str(run), "--out", str(out / "report"), "--json"],
    ]
    capture: Any = pytest.MonkeyPatch()
    with capture.context() as patch:
        patch.delenv(KEY_VARIABLE, raising=False)
        for number, command in enumerate(commands):
            with (out / f"{number}_{command[0]}.log").open("w", encoding="utf-8") as log:
                patch.setattr("sys.stdout", log)
                patch.setattr("sys.stderr", log)
                code = main(command)
            # An audit against itself may find leaks, which is its exit code 1.
            assert code == 0 or (command[0], code) == ("audit", 1), (out / f"{number}_{command[0]}.log").read_text()
    return out


def test_the_raw_folders_do_hold_them_all(planted: tuple[Planted, dict[str, Path]]) -> None:
    wanted, folders = planted
    assert len(wanted.identifiers) >= 60
    assert wanted.identifiers == found_in(folders.values(), wanted.identifiers).keys()
    for name, folder in folders.items():  # each reader has met nearly all: names, numbers, dates, private, nested
        assert len(found_in([folder], wanted.identifiers)) >= 60, name


@pytest.mark.slow
def test_no_identifier_is_found_in_anything_that_was_written(
    planted: tuple[Planted, dict[str, Path]], outputs: Path
) -> None:
    assert found_in([outputs], planted[0].identifiers) == {}


def test_what_may_be_there_is_found(planted: tuple[Planted, dict[str, Path]], outputs: Path) -> None:
    """The same search finds what the corpus is meant to hold, so it can find."""
    corpus = Corpus.open(outputs / "corpus")
    rows = lance.dataset(str(outputs / "corpus" / "images.lance")).to_table(columns=["dataset", "patient", "study"])
    siim = [row for row in rows.to_pylist() if row["dataset"] == "siim-acr-pneumothorax" and row["study"]]
    assert siim
    hashes = {row["patient"].partition("/")[2] for row in siim} | {row["study"] for row in siim}
    assert hashes & {hash_identifier(patient) for patient in planted[0].patients}
    allowed = {*hashes, "MIDRC-RICORD-1C-419639-003251", "No pneumonia", "Cardiomegaly", "siim-acr-pneumothorax"}
    assert found_in([outputs], allowed).keys() == allowed
    assert len(corpus.manifest.readers) == len(READERS) + 1
    # What could not be decoded is told without a word of the file's own.
    ledger = [json.loads(line) for line in (outputs / "corpus" / "ledger.jsonl").read_text().splitlines()]
    assert {"truncated", "unsupported"} <= {line["reason"] for line in ledger if line["stage"] == "image"}


def test_published_patient_numbers_still_tell_whose_images_another_dataset_holds(outputs: Path) -> None:
    columns = ["image", "dataset", "patient", "study", "source"]
    rows = lance.dataset(str(outputs / "corpus" / "images.lance")).to_table(columns=columns).to_pylist()
    ours = [{**row, "image_id": row["image"].partition("/")[2]} for row in rows if row["dataset"] == "midrc-ricord-1c"]
    name = "test/MIDRC-RICORD-1C-419639-003251-12345-0.png"
    theirs = {"dataset": "covidx", "image_id": name, "patient": "covidx/x", "study": None, "source": name}
    (found,) = trace(ours, [theirs])
    assert found.pairs
    assert {ours[left]["patient"] for left, _ in found.pairs} == {"midrc-ricord-1c/MIDRC-RICORD-1C-419639-003251"}


@pytest.mark.parametrize("packed", ["plain", "utf-16", "gzip", "zip", "json", "html", "base64", "lance", "name"])
def test_the_search_looks_into_everything(tmp_path: Path, packed: str) -> None:
    text, page = "Ödön <Quartermain>", "<!doctype html><html>"
    file = tmp_path / "file"
    if packed == "lance":
        table = pa.table({"nested": [[{"deep": text * (n == 7)}] for n in range(5000)]})
        lance.write_dataset(table, str(tmp_path / "a.lance"))
    elif packed == "name":
        (tmp_path / f"x {text}").mkdir()
    elif packed == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner", gzip.compress(text.encode()))
    else:
        file.write_bytes(
            {
                "plain": text.encode(),
                "utf-16": text.encode("utf-16-be"),
                "gzip": gzip.compress(text.encode()),
                "json": json.dumps({"a": [{"b": text}]}).encode(),
                "html": (page + html.escape(text)).encode(),
                "base64": f"{page}<img src='data:x;base64,{base64.b64encode(text.encode() * 3).decode()}'>".encode(),
            }[packed]
        )
    assert found_in([tmp_path], [text, "Quartermaine"]).keys() == {text}
