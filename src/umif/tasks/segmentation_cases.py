"""What the segmentation task asks of a corpus: which images take part, what is drawn on them, and what is not there.

The built-in problems are a data file, `segmentation.yaml`; any other dataset with regions gets a problem of its own.
A class is known in an image where a region of it is drawn or where it is said to be absent. What is neither, or both,
stays unknown: a picture that nobody outlined is no picture without the finding.

Shape legend: N images, F classes, S×S pixels.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import yaml
from pydantic import Field

from umif.config import Config, parse_config
from umif.corpus.regions import region_mask
from umif.errors import TaskError
from umif.language import vocabulary
from umif.tasks.metrics import UNKNOWN
from umif.tasks.problems import MIN_PATIENTS, Condition, ids_sha256
from umif.tasks.region_problems import chosen_region_cases

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus

BUILT_IN = Path(__file__).with_name("segmentation.yaml")
SIDE = 224  # pixels; masks are compared on this grid, whatever size an encoder reads
_COLUMNS = ("image", "dataset", "patient", "split", "view", "sex", "findings")
_BATCH = 64
Shape = Literal["box", "ellipse", "polygon", "rle", "mask"]


class MaskProblem(Config):
    """One segmentation problem."""

    name: str = Field(min_length=1, description="What the problem is called on the command line")
    title: str = Field(min_length=1, description="What is to be drawn, for tables")
    datasets: tuple[str, ...] = Field(min_length=1, description="Datasets it is about")
    target: Literal["one", "findings"] = Field("findings", description="One class, or one for each finding")
    only: tuple[str, ...] = Field((), description="Names of the regions that count, raw or the vocabulary's; or all")
    shapes: tuple[Shape, ...] = Field((), description="Kinds of regions that count; empty = all")
    absent: tuple[Condition, ...] = Field((), description="Images that show no finding: any of these")

    def class_of(self, region: Mapping[str, Any]) -> str | None:
        """Return the class that a region belongs to, `None` where it does not count."""
        if self.shapes and region["shape"] not in self.shapes:
            return None
        names = {str(region["raw"]).casefold(), str(region["finding"]).casefold()}
        if self.only and names.isdisjoint(name.casefold() for name in self.only):
            return None
        return self.name if self.target == "one" else _called(region)


@dataclass(frozen=True, slots=True)
class MaskCases:
    """The images of one problem, in the corpus's order.

    Attributes:
        classes: Finding ids, or the problem's own name.
        states_NF: 1 = drawn, 0 = said to be absent, −1 = unknown; int8.
        rows_N: Rows of the corpus's images.
        pairs: Rows of the corpus's pairs that hold regions, for each image.
        images_N, datasets_N, patients_N, splits_N: As the corpus has them.
    """

    problem: MaskProblem
    classes: tuple[str, ...]
    states_NF: NDArray[np.int8]
    rows_N: NDArray[np.int64]
    pairs: tuple[tuple[int, ...], ...]
    images_N: NDArray[np.str_]
    datasets_N: NDArray[np.str_]
    patients_N: NDArray[np.str_]
    splits_N: NDArray[np.str_]

    def keep(self, columns: Sequence[int]) -> MaskCases:
        """Return the cases of some classes: the images that know one of these."""
        states_NF = self.states_NF[:, list(columns)]
        known = np.flatnonzero((states_NF != UNKNOWN).any(axis=1))
        return MaskCases(
            problem=self.problem,
            classes=tuple(self.classes[column] for column in columns),
            states_NF=states_NF[known],
            rows_N=self.rows_N[known],
            pairs=tuple(self.pairs[index] for index in known),
            images_N=self.images_N[known],
            datasets_N=self.datasets_N[known],
            patients_N=self.patients_N[known],
            splits_N=self.splits_N[known],
        )

    def of(self, split: str) -> NDArray[np.int64]:
        """Positions of the images of one split. Shape (n,)."""
        return np.flatnonzero(self.splits_N == split)

    @property
    def data(self) -> str:
        """Datasets and problem, for tables."""
        what = f"{self.problem.title} ({len(self.classes)} classes)" if len(self.classes) > 1 else self.problem.title
        return f"{', '.join(np.unique(self.datasets_N))}: {what}"

    @property
    def split_sha256(self) -> str:
        """Hash over the ids of the test images, sorted."""
        return ids_sha256(self.images_N[self.of("test")])


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A region without its geometry: where it is and what it is called."""

    row: int
    pair: int
    dataset: str
    region: dict[str, Any]


class DrawnMasks:
    """The masks of some images of a problem, drawn once at `SIDE` × `SIDE` and held as bits."""

    def __init__(
        self,
        corpus: Corpus,
        cases: MaskCases,
        positions: NDArray[np.int64],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Draw; images without a region cost nothing."""
        self._classes = len(cases.classes)
        self._bits: dict[int, NDArray[np.uint8]] = {}
        self._covered: dict[tuple[int, int, int], NDArray[np.uint8]] = {}
        column = {name: index for index, name in enumerate(cases.classes)}
        wanted = [int(position) for position in np.unique(positions) if (cases.states_NF[position] == 1).any()]
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            pairs = [pair for position in batch for pair in cases.pairs[position]]
            owner = [position for position in batch for _ in cases.pairs[position]]
            drawn: dict[int, NDArray[np.bool_]] = {}
            for position, pair in zip(owner, corpus.take_pairs(pairs, ["regions"]), strict=True):
                masks_FSS = drawn.setdefault(position, np.zeros((self._classes, SIDE, SIDE), dtype=bool))
                for region in pair["regions"]:
                    index = column.get(cases.problem.class_of(region) or "")
                    if index is not None:
                        masks_FSS[index] |= region_mask(region, SIDE, SIDE)
            for position, masks_FSS in drawn.items():
                # Where a label contradicts the drawing, the class is unknown and its mask is not looked at.
                masks_FSS[cases.states_NF[position] != 1] = False
                self._bits[position] = np.packbits(masks_FSS.reshape(-1))
            progress(min(start + _BATCH, len(wanted)), len(wanted))

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return the masks of images, in the order asked for. Shape (n, F, S, S)."""
        masks = np.zeros((len(positions), self._classes, SIDE, SIDE), dtype=bool)
        for index, position in enumerate(positions.tolist()):
            if (bits := self._bits.get(position)) is not None:
                masks[index] = np.unpackbits(bits, count=masks[index].size).reshape(masks[index].shape).view(bool)
        return masks

    def covered(self, positions: NDArray[np.int64], height: int, width: int) -> NDArray[np.float32]:
        """Return how much of each pixel of a coarser grid is covered, to 1 / 255. Shape (n, F, height, width).

        What was once made is kept: a decoder asks for the same images again and again.
        """
        found = np.zeros((len(positions), self._classes, height, width), dtype=np.float32)
        for index, position in enumerate(positions.tolist()):
            if position not in self._bits:
                continue
            key = (position, height, width)
            if key not in self._covered:
                masks_FSS = self.take(np.array([position]))[0].astype(np.float32)
                way = cv2.INTER_AREA if max(height, width) <= SIDE else cv2.INTER_LINEAR
                sizes = [cv2.resize(mask, (width, height), interpolation=way) for mask in masks_FSS]
                self._covered[key] = np.rint(np.stack(sizes) * 255).astype(np.uint8)
            found[index] = self._covered[key] / np.float32(255)
        return found


@cache
def built_in_mask_problems() -> tuple[MaskProblem, ...]:
    """The problems of `segmentation.yaml`, in its order."""
    entries = yaml.safe_load(BUILT_IN.read_text(encoding="utf-8"))
    return tuple(parse_config(MaskProblem, entry, where=f"{BUILT_IN}: {entry['name']}") for entry in entries)


def chosen_mask_cases(corpus: Corpus, names: Sequence[str]) -> list[MaskCases]:
    """Return the cases of the problems named; of every one that the corpus can carry if none is named.

    Raises:
        TaskError: a named problem is unknown or cannot be carried, or none can; what is missing is told.
    """
    drawn = _drawn_regions(corpus)
    images = corpus.images_table(_COLUMNS).to_pylist()
    return chosen_region_cases(
        "segmentation",
        (*built_in_mask_problems(), *_own_problems(drawn)),
        names,
        lambda problem: _select(problem, images, drawn),
        {one.dataset for one in drawn},
        without="it has no regions",
        where=corpus.path,
        fix=f"prepare data with regions on at least {MIN_PATIENTS} train and {MIN_PATIENTS} test patients, and "
        "some in val",
    )


def _drawn_regions(corpus: Corpus) -> list[_Drawn]:
    rows = corpus.pair_rows("segment")
    found, start = [], 0
    for batch in corpus.pair_batches(["image_row", "dataset", "regions"], where="kind = 'segment'"):
        for pair in batch.to_pylist():
            for region in pair["regions"]:
                names = {key: region[key] for key in ("raw", "finding", "shape")}
                found.append(_Drawn(pair["image_row"], int(rows[start]), pair["dataset"], names))
            start += 1
    return found


def _own_problems(drawn: list[_Drawn]) -> list[MaskProblem]:
    """Return a problem for each dataset with regions that no built-in problem is about."""
    named = {dataset for problem in built_in_mask_problems() for dataset in problem.datasets}
    shapes: dict[str, set[str]] = defaultdict(set)
    for one in drawn:
        shapes[one.dataset].add(one.region["shape"])
    absent = (Condition(finding="no_finding"),)
    return [
        MaskProblem(
            name=f"regions-{dataset}",
            title="regions (boxes as masks)" if shapes[dataset] == {"box"} else "regions",
            datasets=(dataset,),
            absent=absent,
        )
        for dataset in sorted(shapes.keys() - named)
    ]


def _select(problem: MaskProblem, images: list[dict[str, Any]], drawn: list[_Drawn]) -> MaskCases:
    """Return the images of `problem` with what is known of them.

    Raises:
        TaskError: no region of it is here, or too few patients have one; what is missing is told.
    """
    of_row: dict[int, set[str]] = defaultdict(set)
    pairs: dict[int, set[int]] = defaultdict(set)
    findings: dict[str, set[str]] = defaultdict(set)
    for one in drawn:
        name = problem.class_of(one.region) if one.dataset in problem.datasets else None
        if name is not None:
            of_row[one.row].add(name)
            pairs[one.row].add(one.pair)
            findings[name].add(_called(one.region))
    where, fix = f"problem {problem.name}", "prepare more of the data, or choose another problem"
    classes = tuple(sorted(findings))
    if not classes:
        raise TaskError(f"no region of {', '.join(problem.datasets)} is in this corpus", where=where, fix=fix)
    about = [(row, image) for row, image in enumerate(images) if image["dataset"] in problem.datasets]

    def column(name: str) -> NDArray[np.str_]:
        return np.array([image[name] for _, image in about], dtype=np.str_)

    states = [[_state(problem, name, findings[name], image, of_row[row]) for name in classes] for row, image in about]
    cases = MaskCases(
        problem=problem,
        classes=classes,
        states_NF=np.array(states, dtype=np.int8),
        rows_N=np.array([row for row, _ in about], dtype=np.int64),
        pairs=tuple(tuple(sorted(pairs[row])) for row, _ in about),
        images_N=column("image"),
        datasets_N=column("dataset"),
        patients_N=column("patient"),
        splits_N=column("split"),
    )
    lacking = [_lacking(cases, index) for index in range(len(classes))]
    able = [index for index, what in enumerate(lacking) if what is None]
    if not able:
        raise TaskError(f"{classes[0]}: {lacking[0]}", where=where, fix=fix)
    return cases.keep(able)


def _state(problem: MaskProblem, name: str, findings: set[str], image: dict[str, Any], there: set[str]) -> int:
    """Return 1 where a class is drawn, 0 where it is said to be absent, −1 where neither or both."""
    said = {finding: set[str]() for finding in findings}
    for label in image["findings"]:
        if _called(label) in said and label["state"] != "not_mentioned":
            said[_called(label)].add(label["state"])
    absent = all(states == {"absent"} for states in said.values())
    if not absent and not any(said.values()) and not any(_is_anatomy(finding) for finding in findings):
        absent = any(condition.holds(image) for condition in problem.absent)
    if name in there:
        return UNKNOWN if absent else 1
    return 0 if absent else UNKNOWN


def _called(thing: Mapping[str, Any]) -> str:
    """Return what a region or a label is called: the vocabulary's id, else the dataset's own name."""
    return str(thing["finding"] or thing["raw"])


def _is_anatomy(finding: str) -> bool:
    entry = vocabulary().find(finding)
    return entry is not None and entry.kind == "anatomy"


def _lacking(cases: MaskCases, column: int) -> str | None:
    """Say which split has too few patients with a drawn region of a class, `None` if all have enough."""
    for split, needed in (("train", MIN_PATIENTS), ("test", MIN_PATIENTS), ("val", 1)):
        inside = cases.of(split)
        count = len(np.unique(cases.patients_N[inside[cases.states_NF[inside, column] == 1]]))
        if count < needed:
            return f"{count} patients with a region in {split}, at least {needed} needed"
    return None
