"""What the detection task asks of a corpus: which images take part, where their boxes are, and which classes are known.

The built-in problems are a data file, `detection.yaml`; any other dataset with drawn boxes gets a problem of its own.
A class is known in an image where it is boxed or said to be absent. What is neither stays unknown.

Shape legend: N images, K classes, G boxes of an image.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from pydantic import Field

from umif.config import Config, parse_config
from umif.errors import TaskError
from umif.language import vocabulary
from umif.tasks.detection_boxes import merged, tight_box
from umif.tasks.detection_metrics import Truth
from umif.tasks.metrics import UNKNOWN
from umif.tasks.problems import MIN_PATIENTS, Condition, ids_sha256
from umif.tasks.region_problems import chosen_region_cases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus

BUILT_IN = Path(__file__).with_name("detection.yaml")
_COLUMNS = ("image", "dataset", "patient", "split", "view", "sex", "findings")
Shape = Literal["box", "ellipse", "polygon", "rle", "mask"]


class BoxProblem(Config):
    """One detection problem."""

    name: str = Field(min_length=1, description="What the problem is called on the command line")
    title: str = Field(min_length=1, description="What is to be found, for tables")
    datasets: tuple[str, ...] = Field(min_length=1, description="Datasets it is about")
    target: Literal["one", "findings"] = Field("findings", description="One class, or one for each finding")
    only: tuple[str, ...] = Field((), description="Raw names of the regions that count; empty = all")
    shapes: tuple[Shape, ...] = Field(("box", "ellipse", "polygon"), description="Kinds of regions that count")
    absent: tuple[Condition, ...] = Field((), description="Images that show none of the classes: any of these")
    merge: float | None = Field(None, gt=0, lt=1, description="Overlap above which several readers' boxes are one")


@dataclass(frozen=True, slots=True)
class BoxCases:
    """The images of one problem, in the corpus's order.

    Shapes: rows_N int64, rows of the corpus's images; images_N, patients_N and splits_N str; truths: N.
    """

    problem: BoxProblem
    classes: tuple[str, ...]
    rows_N: NDArray[np.int64]
    images_N: NDArray[np.str_]
    patients_N: NDArray[np.str_]
    splits_N: NDArray[np.str_]
    truths: tuple[Truth, ...]

    def of(self, split: str) -> NDArray[np.int64]:
        """Positions of the images of one split. Shape (n,)."""
        return np.flatnonzero(self.splits_N == split)

    def truths_of(self, positions: NDArray[np.int64]) -> list[Truth]:
        """Return what is on some of the images."""
        return [self.truths[position] for position in positions]

    @property
    def states_NK(self) -> NDArray[np.int8]:
        """Which classes each image shows: 1, 0 or −1 (unknown)."""
        return np.stack([truth.states_K for truth in self.truths])

    @property
    def has_box_N(self) -> NDArray[np.bool_]:
        """Which images have a box."""
        return np.array([len(truth.boxes_G4) > 0 for truth in self.truths], dtype=bool)

    @property
    def data(self) -> str:
        """Datasets and problem, for tables."""
        return f"{', '.join(self.problem.datasets)}: {self.problem.title}"

    @property
    def split_sha256(self) -> str:
        """Hash over the ids of the test images, sorted."""
        return ids_sha256(self.images_N[self.of("test")])


@dataclass(frozen=True, slots=True)
class _Drawn:
    """One drawn region; its box is `None` where the kind of region counts nowhere, or nothing of it is inside."""

    row: int
    dataset: str
    raw: str
    finding: str | None
    shape: str
    box: tuple[float, float, float, float] | None


@cache
def built_in_box_problems() -> tuple[BoxProblem, ...]:
    """The problems of `detection.yaml`, in its order."""
    entries = yaml.safe_load(BUILT_IN.read_text(encoding="utf-8"))
    return tuple(parse_config(BoxProblem, entry, where=f"{BUILT_IN}: {entry['name']}") for entry in entries)


def chosen_box_cases(corpus: Corpus, names: Sequence[str]) -> list[BoxCases]:
    """Return the cases of the problems named; of every one that the corpus can carry if none is named.

    Raises:
        TaskError: a named problem is unknown or cannot be carried, or none can; what is missing is told.
    """
    drawn = _drawn_regions(corpus)
    images = corpus.images_table(_COLUMNS).to_pylist()
    return chosen_region_cases(
        "detection",
        (*built_in_box_problems(), *_own_problems(drawn)),
        names,
        lambda problem: _select(problem, images, drawn),
        {one.dataset for one in drawn},
        without="nothing in it is drawn as a box",
        where=corpus.path,
        fix=f"prepare data with boxes on {MIN_PATIENTS} or more patients in train and in test, and on some in val",
    )


def _drawn_regions(corpus: Corpus) -> list[_Drawn]:
    """Return the regions of all images; masks, which have to be decoded, as boxes only where a problem wants them."""
    wanted = {(dataset, shape) for one in built_in_box_problems() for dataset in one.datasets for shape in one.shapes}
    columns = ["image_row", "dataset", "regions"]
    found = []
    for batch in corpus.pair_batches(columns, where="kind = 'segment'"):
        for pair in batch.to_pylist():
            for region in pair["regions"]:
                counts = (
                    region["shape"] in ("box", "ellipse", "polygon") or (pair["dataset"], region["shape"]) in wanted
                )
                found.append(
                    _Drawn(
                        pair["image_row"],
                        pair["dataset"],
                        region["raw"],
                        region["finding"],
                        region["shape"],
                        tight_box(region) if counts else None,
                    )
                )
    return found


def _own_problems(drawn: list[_Drawn]) -> list[BoxProblem]:
    """Return a problem for each dataset with regions drawn as boxes that no built-in problem is about."""
    named = {dataset for problem in built_in_box_problems() for dataset in problem.datasets}
    others = sorted({one.dataset for one in drawn if one.shape == "box"} - named)
    absent = (Condition(finding="no_finding"),)
    return [
        BoxProblem(name=f"boxes-{dataset}", title="boxes", datasets=(dataset,), absent=absent) for dataset in others
    ]


def _select(problem: BoxProblem, images: list[dict[str, Any]], drawn: list[_Drawn]) -> BoxCases:
    """Return the images of `problem` with their boxes.

    Raises:
        TaskError: no image of it here, no box, too few patients with boxes, or none in val.
    """
    boxes = _boxes_of(problem, drawn)
    classes = tuple(sorted({name for of_image in boxes.values() for name in of_image}))
    cases = _cases(problem, images, boxes, classes)
    able = [name for index, name in enumerate(classes) if _lacking(cases, index) is None]
    where, fix = f"problem {problem.name}", "prepare more of the data, or choose another problem"
    if not classes:
        raise TaskError(f"no box of {', '.join(problem.datasets)} is in this corpus", where=where, fix=fix)
    if not able:
        raise TaskError(f"{classes[0]}: {_lacking(cases, 0)}", where=where, fix=fix)
    cases = _cases(problem, images, boxes, tuple(able))
    if not cases.has_box_N[cases.of("val")].any():
        fix = "prepare with a larger val_share"
        raise TaskError("val has no box, so the best state cannot be chosen", where=where, fix=fix)
    return cases


def _boxes_of(problem: BoxProblem, drawn: list[_Drawn]) -> dict[int, dict[str, NDArray[np.float64]]]:
    """Boxes by row of the image and class, each once."""
    only = {name.casefold() for name in problem.only}
    found: dict[int, dict[str, dict[tuple[float, ...], None]]] = defaultdict(lambda: defaultdict(dict))
    for one in drawn:
        counts = one.dataset in problem.datasets and one.shape in problem.shapes and one.box is not None
        if counts and (not only or one.raw.casefold() in only):
            assert one.box is not None
            found[one.row][_class_of(problem, one.finding, one.raw)][one.box] = None
    boxes: dict[int, dict[str, NDArray[np.float64]]] = {}
    for row, of_image in found.items():
        boxes[row] = {name: np.array(list(several)) for name, several in of_image.items()}
        if problem.merge is not None:
            boxes[row] = {name: merged(several, problem.merge) for name, several in boxes[row].items()}
    return boxes


def _class_of(problem: BoxProblem, finding: str | None, raw: str) -> str:
    return problem.name if problem.target == "one" else finding or raw.casefold()


def _cases(
    problem: BoxProblem,
    images: list[dict[str, Any]],
    boxes: dict[int, dict[str, NDArray[np.float64]]],
    classes: tuple[str, ...],
) -> BoxCases:
    """Return the images that have a box of these classes, and those from which all of them are said to be absent."""
    rows, truths = [], []
    for row, image in enumerate(images):
        if image["dataset"] in problem.datasets:
            truth = _truth(problem, image, boxes.get(row, {}), classes)
            if len(truth.boxes_G4) or (truth.states_K == 0).all():
                rows.append(row)
                truths.append(truth)

    def column(name: str) -> NDArray[np.str_]:
        return np.array([images[row][name] for row in rows], dtype=np.str_)

    return BoxCases(
        problem=problem,
        classes=classes,
        rows_N=np.array(rows, dtype=np.int64),
        images_N=column("image"),
        patients_N=column("patient"),
        splits_N=column("split"),
        truths=tuple(truths),
    )


def _truth(
    problem: BoxProblem, image: dict[str, Any], boxes: dict[str, NDArray[np.float64]], classes: tuple[str, ...]
) -> Truth:
    """A box outweighs any label; labels of both states leave a class unknown."""
    none_at_all = any(condition.holds(image) for condition in problem.absent)
    stated: dict[str, set[str]] = defaultdict(set)
    for label in image["findings"]:
        stated[_class_of(problem, label["finding"], label["raw"])].add(label["state"])
    states_K = np.full(len(classes), UNKNOWN, dtype=np.int8)
    for index, name in enumerate(classes):
        if name in boxes:
            states_K[index] = 1
        # Where all boxes are one class, labels are of something narrower: the problem says which of them means absent.
        elif problem.target == "one":
            states_K[index] = 0 if none_at_all else UNKNOWN
        elif stated.get(name) == {"absent"} or (none_at_all and name not in stated and _is_a_finding(name)):
            states_K[index] = 0
    here = [(index, boxes[name]) for index, name in enumerate(classes) if name in boxes]
    return Truth(
        np.concatenate([np.zeros((0, 4)), *(several for _, several in here)]),
        np.concatenate([np.zeros(0, dtype=np.int64), *(np.full(len(several), index) for index, several in here)]),
        states_K,
    )


@cache
def _is_a_finding(name: str) -> bool:
    """Whether a film without findings is one without this: organs and devices are there all the same."""
    entry = vocabulary().find(name)
    lineage = []
    while entry is not None:
        lineage.append(entry)
        entry = vocabulary().find(entry.parent) if entry.parent else None
    return bool(lineage) and all(one.kind == "finding" and one.id != "support_devices" for one in lineage)


def _lacking(cases: BoxCases, index: int) -> str | None:
    """Say in which split too few patients have a box of a class, `None` if in none."""
    for split in ("train", "test"):
        shown = [position for position in cases.of(split) if cases.truths[position].states_K[index] == 1]
        count = len(np.unique(cases.patients_N[shown]))
        if count < MIN_PATIENTS:
            return f"{count} patients with a box in {split}, at least {MIN_PATIENTS} are needed"
    return None


def without_boxes_drawn_down(
    cases: BoxCases, positions: NDArray[np.int64], most: int | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return training images: those with a box and as many without as there are with, `most` in all; ascending."""
    order = rng.permutation(positions)
    with_box = order[cases.has_box_N[order]]
    without = order[~cases.has_box_N[order]][: len(with_box)]
    if most is not None and len(with_box) + len(without) > most:
        share = len(with_box) / (len(with_box) + len(without))
        with_box = with_box[: max(1, round(most * share))]
        without = without[: most - len(with_box)]
    return np.sort(np.concatenate([with_box, without]))
