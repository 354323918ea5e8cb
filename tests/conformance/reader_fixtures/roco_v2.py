"""A small folder in the native layout of ROCO v2: captions and concepts of the parts, folders of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

_TRAIN, _VALID = "ROCOv2_2023_train_00000", "ROCOv2_2023_valid_00000"
FILES = {
    "train_captions.csv": f"""ID,Caption
{_TRAIN}1,"Chest X-ray showing a left pneumothorax, with a ""deep"" sulcus."
{_TRAIN}2,Axial CT of the chest.
{_TRAIN}3,"(a) Hand before surgery.
(b) Hand after surgery."
{_TRAIN}4,Wrist.
{_TRAIN}5,Elbow of a child without concepts.
{_TRAIN}6,Knee of a child.
""",
    "train_concepts_manual.csv": f"""ID,CUIs
{_TRAIN}1,C1306645;C0817096;C1999039
{_TRAIN}2,C0040405
{_TRAIN}3,C1306645
{_TRAIN}4,C1306645;
{_TRAIN}6,C1306645
""",
    "valid_captions.csv": f"ID,Caption\n{_VALID}1,Figure 3: Pelvis of a horse.\n",
    "valid_concepts.csv": f"ID,CUIs\n{_VALID}1,C1306645;C0030797\n",
    "license_information.csv": f"""id,license,attribution
{_TRAIN}1,CC BY,"Doe et al., PMC1234567, 2020"
{_TRAIN}3,CC BY-NC,https://www.ncbi.nlm.nih.gov/pmc/articles/PMC1234568/
""",
    "cui_mapping.csv": "CUI,Canonical name\nC1306645,Plain x-ray\n",
}
REQUIRED = ("train_captions.csv", "train_concepts_manual.csv")
GOLDEN: dict[str, list[tuple[str, str]]] = {f"{_TRAIN}1": [], f"{_TRAIN}3": [], f"{_VALID}1": []}
EXCLUDED = {
    "another copy of the same image is used": 1,
    "caption of fewer than 3 words": 1,
    "concepts name no plain radiograph": 1,
    "image file is missing": 1,
    "no caption": 1,
    "no row of concepts": 1,
}
MALFORMED = (
    ("train_captions.csv", f"{_TRAIN}2", "train_2", TableError, "train_captions.csv:3"),
    ("train_captions.csv", f"{_TRAIN}2", f"{_TRAIN}1", TableError, "train_captions.csv:3"),
    ("train_captions.csv", "Caption", "Captions", TableError, "train_captions.csv:1"),
    ("train_captions.csv", '""deep"" sulcus."', '"deep sulcus."', TableError, "train_captions.csv:2"),
    ("train_concepts_manual.csv", "C0040405", "CT", TableError, "train_concepts_manual.csv:3"),
    ("train_concepts_manual.csv", f"{_TRAIN}2,", ",", TableError, "train_concepts_manual.csv:3"),
)


def build(root: Path) -> None:
    for name, text in FILES.items():
        (root / name).write_text(text, encoding="utf-8-sig" if name.startswith("train") else "utf-8")
    names = [f"train_images/{_TRAIN}{number}.jpg" for number in (1, 2, 3, 4, 5, 7)]
    for name in (*names, f"valid_images/valid/{_VALID}1.jpg", f"copy/{_TRAIN}1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10)).save(root / name)
