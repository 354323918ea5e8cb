"""A small folder of phantoms, with one picture gone and one that no record names."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from umif.corpus.phantom import write_phantom
from umif.errors import LayoutError, TableError

if TYPE_CHECKING:
    from pathlib import Path

NAMES = (
    "Cardiomegaly",
    "Edema",
    "Consolidation",
    "Atelectasis",
    "Nodule",
    "Pleural Effusion",
    "Pneumothorax",
    "Fracture",
    "Support Devices",
    "No Finding",
)
STATES = {"p": "present", "a": "absent", "u": "uncertain", "-": "not_mentioned"}
_LABELS = {
    "images/p00000_0.png": "a-aaaa-a-p",
    "images/p00000_1.png": "aa-aa-aaap",
    "images/p00001_0.png": "a--aaaa--p",
    "images/p00001_1.png": "aaapapa--a",
    "images/p00001_2.png": "aau-appaaa",
    "images/p00002_0.png": "aaa-apa-aa",
    "images/p00003_0.png": "aapapaappa",
}
REQUIRED = ("phantom.json", "records.jsonl", "images")
GOLDEN = {
    image: [(name, STATES[letter]) for name, letter in zip(NAMES, letters, strict=True)]
    for image, letters in _LABELS.items()
}
EXCLUDED = {"image file is missing": 1, "no record in records.jsonl": 1}
MALFORMED = (
    ("phantom.json", '"format": 1', '"format": 2', LayoutError, "phantom.json"),
    ("phantom.json", "{", "[", TableError, "phantom.json"),
    ("records.jsonl", '{"image"', '"image"', TableError, "records.jsonl:1"),
    ("records.jsonl", "images/p00000_0.png", "../p00000_0.png", TableError, "records.jsonl:1"),
    ("records.jsonl", "images/p00000_1.png", "images/p00000_0.png", TableError, "records.jsonl:2"),
    ("records.jsonl", '"patient":"p00001"', '"patient":null', TableError, "records.jsonl:3"),
    ("records.jsonl", '"sex":"F"', '"sex":"W"', TableError, "records.jsonl:1"),
    ("records.jsonl", '"age_years":23', '"age_years":"23"', TableError, "records.jsonl:1"),
    ("records.jsonl", '"Edema":"not_mentioned"', '"Edema":"unknown"', TableError, "records.jsonl:1"),
    ("records.jsonl", '"runs":[', '"runs":[-1,', TableError, "records.jsonl:5"),
    ("records.jsonl", '"runs":[', '"runs":[7,', TableError, "records.jsonl:5"),
    ("records.jsonl", '"answer_type":"OPEN"', '"answer_type":"FREE"', TableError, "records.jsonl:1"),
    ("records.jsonl", '"questions":[', '"questions":[1,', TableError, "records.jsonl:1"),
    ("records.jsonl", '"description":{', '"description":{"more":1,', None, ""),
)


def build(root: Path) -> None:
    """Write the folder."""
    write_phantom(root, images=8, seed=1, size=48)
    pictures = sorted((root / "images").iterdir())
    shutil.copy(pictures[0], root / "images" / "p99999_0.png")
    pictures[-1].unlink()
