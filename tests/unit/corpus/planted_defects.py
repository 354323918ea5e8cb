"""A dataset of phantoms with one defect of each kind planted many times, and which images have which."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from toy_dataset import ToyReader, write_png, write_rows

from planted_corpus import registered
from umif.corpus import Corpus, PrepareConfig, prepare
from umif.corpus.phantom import draw_description
from umif.corpus.phantom_description import describe

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Grey = NDArray[np.uint8]

SIZE, DATASET = 256, "planted"


@dataclass
class Planted:
    """Rows of the table, and the ids that each check should find."""

    root: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    truth: dict[str, set[str]] = field(default_factory=dict)

    def add(self, picture: Grey | bytes, check: str | None = None, suffix: str = "", **row: Any) -> str:
        """Write a picture and its row; `check` should find it (or its pair, by `suffix`)."""
        name = f"{len(self.rows):04d}.png"
        file = self.root / "images" / name
        if isinstance(picture, bytes):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(picture)
        else:
            write_png(file, picture)
        self.rows.append({"image": name, "patient": f"p{len(self.rows)}", "line": len(self.rows) + 2, **row})
        if check is not None:
            self.truth.setdefault(check, set()).add(f"{DATASET}/{name}{suffix}")
        return name


def film(index: int) -> Grey:
    """An ordinary film without a margin."""
    description = describe(11, index)
    open_field = replace(description.nuisance, collimation=(0.0, 0.0, 0.0, 0.0))
    return draw_description(replace(description, nuisance=open_field), SIZE).image


def slice_of_ct(index: int) -> Grey:
    """A made-up axial slice: body, lungs with vessels, spine and ribs, on black; two windowed tones."""
    rng = np.random.default_rng(index)
    picture = np.full((SIZE, SIZE), 8, dtype=np.uint8)
    centre = SIZE // 2, SIZE // 2 + int(rng.integers(-6, 6))
    wide, tall = int(rng.integers(112, 122)), int(rng.integers(106, 120))
    cv2.ellipse(picture, centre, (wide, tall), 0, 0, 360, 215, -1)
    for side in (-1, 1):
        lung = centre[0] + side * int(wide * 0.48), centre[1] - 4
        cv2.ellipse(picture, lung, (int(wide * 0.36), int(tall * 0.68)), 0, 0, 360, 40, -1)
        for _ in range(70):
            at = rng.normal(lung, (wide * 0.17, tall * 0.3)).astype(int)
            cv2.circle(picture, (int(at[0]), int(at[1])), int(rng.integers(1, 4)), 220, -1)
    cv2.circle(picture, (centre[0], centre[1] + int(tall * 0.62)), 14, 250, -1)
    noisy = picture + rng.normal(0, 4, picture.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def framed(picture: Grey, kind: int) -> Grey:
    """A white margin, black bars at two sides, or a rectangle drawn into the film."""
    if kind == 0:
        return np.asarray(cv2.copyMakeBorder(picture, 14, 14, 14, 14, cv2.BORDER_CONSTANT, value=255), dtype=np.uint8)
    if kind == 1:
        return np.asarray(cv2.copyMakeBorder(picture, 0, 0, 30, 30, cv2.BORDER_CONSTANT, value=0), dtype=np.uint8)
    drawn = picture.copy()
    cv2.rectangle(drawn, (9, 9), (SIZE - 10, SIZE - 10), 255 if picture.mean() < 150 else 0, 2)
    return drawn


def near_copy(picture: Grey, index: int) -> Grey:
    """The same film scaled, a little brighter or darker, and encoded anew."""
    side = 200 + 20 * (index % 6)
    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    bright = np.clip(small.astype(np.float32) * (0.9 + 0.03 * (index % 7)), 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", bright, [cv2.IMWRITE_JPEG_QUALITY, 70])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


CONTRADICTIONS = (
    ({"Pneumothorax": "present"}, "The heart is normal in size. No pneumothorax or pleural effusion is seen."),
    ({"Pneumothorax": "present"}, "There is no evidence of pneumothorax. Small right pleural effusion."),
    ({"Cardiomegaly": "present"}, "Cardiomegaly is not seen. The lungs are well expanded."),
    ({"Pleural Effusion": "absent"}, "There is a moderate left pleural effusion with basal consolidation."),
    ({"Consolidation": "absent"}, "Dense consolidation of the right lower lobe. No effusion."),
    ({"Edema": "absent"}, "Pulmonary edema and cardiomegaly. Support devices in place."),
)
AGREEING = (
    ({"Pneumothorax": "absent"}, "The heart is normal in size. No pneumothorax or pleural effusion is seen."),
    ({"Pneumothorax": "present"}, "No pneumothorax on the right. Small left pneumothorax."),
    ({"Pneumonia": "absent"}, "Evaluate for pneumonia. The lungs are clear."),
    ({"Pleural Effusion": "present"}, "There is a moderate left pleural effusion."),
    ({"Pleural Effusion": "present"}, "No new pleural effusion; the old one is unchanged."),
    ({"Cardiomegaly": "uncertain"}, "Cardiomegaly cannot be excluded. No effusion."),
    ({"Edema": "absent"}, "History of pulmonary edema. Today the lungs are normal."),
    ({"Fracture": "absent"}, "Possible fracture of the sixth rib."),
)


def write_planted(root: Path, clean: int = 200) -> Planted:
    """Write `clean` ordinary films with agreeing labels and texts, then each defect."""
    planted = Planted(root)
    films = [film(index) for index in range(clean)]
    for index, picture in enumerate(films):
        findings, text = AGREEING[index % len(AGREEING)]
        planted.add(picture, findings=findings, texts=[["report", f"Case {index}. {text}", "report"]])
    _plant_pictures(planted, films)
    _plant_supervision(planted, clean)
    write_rows(root, planted.rows)
    return planted


def _plant_pictures(planted: Planted, films: list[Grey]) -> None:
    fresh = len(films)
    for index in range(10):
        planted.add(np.full((SIZE, SIZE), 20 * index, dtype=np.uint8), "constant")
        planted.add(slice_of_ct(index), "ct")
        planted.add(np.ascontiguousarray(film(fresh + index)[: SIZE // 4]), "aspect")
    for index in range(30):
        planted.add(framed(film(fresh + 400 + index), index % 3), "frame")
    for index in range(40):
        planted.add((255 - film(fresh + 20 + index)).astype(np.uint8), "inverted")
        planted.add(near_copy(films[index], index), "same_picture", patient=f"p{index}")
    for index in range(8):
        whole = (planted.root / "images" / f"{50 + index:04d}.png").read_bytes()
        planted.add(whole, "same_file", patient=f"p{50 + index}")
    for index in range(6):
        whole = (planted.root / "images" / f"{60 + index:04d}.png").read_bytes()
        planted.add(whole[: len(whole) // 2], "unreadable")


def _plant_supervision(planted: Planted, clean: int) -> None:
    fresh = clean + 100
    for index in range(6):
        words = ("...", "n/a", "None", "____", "see above", "XXXX")[index]
        planted.add(film(fresh + index), "empty_text", "#report", texts=[["report", words, "report"]])
        same = [["report", "Word for word the same long report of several patients.", "report"]]
        planted.add(film(fresh + 10 + index), "repeated_text", "#report", texts=same)
    for index in range(30):
        findings, text = CONTRADICTIONS[index % len(CONTRADICTIONS)]
        texts = [["report", f"Film {index}. {text}", "report"]]
        planted.add(film(fresh + 20 + index), "contradiction", "#report", findings=findings, texts=texts)
    for index in range(6):
        black, beyond, astray = f"black{index}.png", [300, 300, 20, 20], [200, 100, 100, 40]
        write_png(planted.root / "masks" / black, np.zeros((SIZE, SIZE), dtype=np.uint8))
        lost: list[dict[str, Any]] = [{"finding": "Pneumonia", "shape": "mask", "mask_path": black}]
        lost += [{"finding": "Nodule", "shape": "box", "box": beyond}]
        for region in lost:
            planted.add(
                film(fresh + 60 + len(planted.rows)), "region_lost", f" [{region['finding']}]", regions=[region]
            )
        stray = [{"finding": "Pneumonia", "shape": "box", "box": astray}]
        planted.add(film(fresh + 60 + len(planted.rows)), "region_outside", "#segment", regions=stray)
        for split in ("train", "test"):
            planted.add(film(fresh + 60 + len(planted.rows)), patient=f"both{index}", split=split)
        planted.truth.setdefault("official_split", set()).add(f"{DATASET}/both{index}")
        planted.add(film(fresh + 60 + len(planted.rows)), findings={"Toyosis": "present"})
        both = {"Lung Opacity": "absent", "Consolidation": ("present", "uncertain")[index % 2]}
        planted.add(film(fresh + 60 + len(planted.rows)), "denied_but_shown", findings=both)


def planted_defects(folder: Path) -> tuple[Corpus, Planted]:
    """Write the dataset and prepare its corpus in `folder`."""
    planted = write_planted(folder / "raw")
    with registered("reader", DATASET, ToyReader):
        prepare(folder / "corpus", [(DATASET, folder / "raw")], PrepareConfig(), workers=1, progress=False)
    return Corpus.open(folder / "corpus"), planted
