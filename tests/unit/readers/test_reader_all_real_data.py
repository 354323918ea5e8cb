"""All sample data: each picture below a dataset's folder is yielded, used as a mask, or excluded with a reason."""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from umif.config import REGISTRY
from umif.language import vocabulary
from umif.readers.folders import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from umif.readers.base import Reader, Record

# Folder of the sample data → (reader, the root it takes there).
DATASETS = {
    "Actualmed-COVID-chestxray-dataset": ("actualmed-covid", ""),
    "Figure1-COVID-chestxray-dataset": ("figure1-covid", ""),
    "bone-fracture-yolo": ("bone-fracture-yolo", "data"),
    "chest_xray": ("chest-xray-pneumonia", ""),
    "chexlocalize-sample": ("chexpert", "sample"),
    "covid-19-chest-xray-segmentations-dataset": ("covid-segmentations", ""),
    "covid-chestxray-dataset": ("covid-chestxray", ""),
    "lung-segmentation-2d-demo": ("lung-segmentation", ""),
    "nih-chestxray14": ("nih-chestxray14", ""),
    "nih1000-64px": ("nih1000-64px", ""),
    "rsna-pneumonia-detection": ("rsna-pneumonia", ""),
    "siim-acr-pneumothorax": ("siim-acr-pneumothorax", ""),
    "tbx11k-sample": ("tbx11k", ""),
    "vqa-rad": ("vqa-rad", ""),
}
# Reports without their pictures; tables only; single files without a table, which the reader `table` is for.
OTHERS = {"openi-indiana-reports", "csv_layouts", "originals"}
# Pictures that are neither: the crops under `masks` once more, at full size; masks of images that are left out, which
# the account notes one by one.
FULL_SIZE_COPIES = "masks_full/"
LEFT_OUT_WITH_THEIR_IMAGE = {"covid-chestxray": ("annotations/", "lung region of an image that is not read")}
DOCS = Path(__file__).resolve().parents[3] / "docs" / "readers.md"


def read(name: str, root: Path) -> tuple[list[Record], Reader]:
    reader = REGISTRY.get("reader", name)(root)
    return list(reader.read()), reader


def test_every_folder_of_the_sample_data_has_a_reader_or_a_reason(real_data: Path) -> None:
    folders = {path.name for path in real_data.iterdir() if path.is_dir()}
    assert folders - DATASETS.keys() - OTHERS == set()


@pytest.mark.parametrize("folder", DATASETS)
def test_every_picture_is_yielded_or_a_mask_or_excluded_with_a_reason(real_data: Path, folder: str) -> None:
    name, below = DATASETS[folder]
    if name not in REGISTRY.names("reader"):
        pytest.skip(f"there is no reader {name!r} yet")
    if not (real_data / folder).is_dir():
        pytest.skip(f"{folder} is not among the sample data")
    root = real_data / folder / below
    records, reader = read(name, root)
    account = reader.account
    assert account.seen == account.yielded + sum(account.excluded.values())
    assert account.yielded == len(records)
    used = {os.path.realpath(record.image) for record in records}
    assert len(used) == len(records), "two records share a picture"
    used |= {os.path.realpath(r.mask_path) for record in records for r in record.regions if r.mask_path is not None}
    reasons = {exclusion.item: exclusion.reason for exclusion in account.exclusions}
    rest = [
        relative
        for path in sorted((real_data / folder).rglob("*"))
        if picture(path) and os.path.realpath(path) not in used
        for relative in [os.path.relpath(path, root)]
        if not reasons.get(relative) and not relative.startswith(FULL_SIZE_COPIES)
    ]
    prefix, note = LEFT_OUT_WITH_THEIR_IMAGE.get(name, ("", ""))
    assert [relative for relative in rest if not note or not relative.startswith(prefix)] == []
    assert len(rest) == account.notes[note]


@pytest.mark.parametrize("name", ["figure1-covid", "actualmed-covid", "lung-segmentation", "nih1000-64px"])
def test_vocabulary_knows_every_label(real_data: Path, name: str) -> None:
    folder = next(folder for folder, (reader, _) in DATASETS.items() if reader == name)
    records, _ = read(name, real_data / folder)
    raw = {finding.name for record in records for finding in record.findings}
    raw |= {region.finding for record in records for region in record.regions}
    assert [label for label in sorted(raw) if vocabulary().find(label) is None] == []


def test_single_files_without_a_table_are_read_through_the_table_that_the_docs_show(
    real_data: Path, tmp_path: Path
) -> None:
    root = real_data / "originals"
    shown = re.search(r"^    image,patient,label\n(?:    .+\n)+\n(?:    .+\n)+", DOCS.read_text(encoding="utf-8"), re.M)
    assert shown is not None
    rows, config = textwrap.dedent(shown[0]).split("\n\n")
    (tmp_path / "originals.csv").write_text(rows + "\n")
    (tmp_path / "umif-table.yaml").write_text(config.replace("$DATA", str(real_data)))
    records, reader = read("table", tmp_path / "originals.csv")
    assert [record.image_id for record in records] == sorted(line.split(",")[0] for line in rows.splitlines()[1:])
    assert reader.account.excluded == {"no row in originals.csv": 1}
    everything = {path.relative_to(root).as_posix() for path in root.rglob("*") if picture(path)}
    assert everything - {record.image_id for record in records} == {"ct_abdomen_12bit_bigendian_rescale.dcm"}
    assert {record.patient for record in records if "nih" in record.image_id} == {"00005435", "00000001", "00027426"}


def picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES
