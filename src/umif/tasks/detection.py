"""Detection: a YOLOv3 head on the frozen patches of the last block → mAP with a 95 % patient-bootstrap interval.

Patches are extracted once per encoder. Each problem's head is trained on the corpus's train patients (all of them, and
shares of their labels), its best state chosen on val patients, and its test patients are scored once.

Source: the detection of MGCA and its followers (docs/tasks.md tells where this differs).
Differs: every test image counts, with a box or without, with a prediction or without; labels are drawn by patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from umif.config import Config, register
from umif.corpus.progress import stages
from umif.rng import keyed_rng
from umif.tasks.base import Result, Task
from umif.tasks.dense import dense_variants
from umif.tasks.detection_boxes import fit_anchors, usual_places
from umif.tasks.detection_cases import chosen_box_cases, without_boxes_drawn_down
from umif.tasks.detection_head import ANCHORS, DetectionHead, Target, assign, detection_loss, detections
from umif.tasks.detection_metrics import (
    COCO,
    HALF,
    MAIN,
    MAX_DETECTIONS,
    THRESHOLDS,
    Detections,
    legacy_precision,
    match,
    mean_precision,
    precision_replicates,
    precision_table,
    sensitivity,
)
from umif.tasks.detection_sheet import write_sheet
from umif.tasks.head_training import HeadTraining, Trained, train_head
from umif.tasks.problems import ids_sha256
from umif.tasks.rows import Measurement, paired_rows
from umif.tasks.subsets import label_subset

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from umif.corpus import Corpus
    from umif.encoder import Encoder
    from umif.encoder.dense import PatchFeatures
    from umif.tasks.base import TaskOptions
    from umif.tasks.detection_cases import BoxCases
    from umif.tasks.detection_metrics import Matches, Truth

    Progress = Callable[[str, int, int], None]

PROTOCOL = (
    "frozen patches of the last block, YOLOv3 head; trained on train, best state on val, test scored once; by patient; "
    "every test image counts"
)
METRICS = {"mAP 0.40-0.75": MAIN, "mAP 0.50-0.95": COCO}
USUAL_PLACES = "usual places"
_BATCH = 64
_STATISTICS_IMAGES = 256
# The loss on val settles which of two states with one mAP is better: while nothing is found yet, all have none.
_TIE_BREAK = 1e-4


class DetectionSettings(Config):
    """How heads are trained, and on how much."""

    training: HeadTraining = Field(description="Steps, rates and patience")
    neck: int = Field(256, gt=0, multiple_of=8, description="Channels of the head's maps")
    train_images: int | None = Field(None, gt=0, description="Most training images; null = all")
    val_images: int | None = Field(None, gt=0, description="Most images that the best state is chosen on; null = all")


# About a minute on two cores for a small encoder and its baselines.
QUICK = DetectionSettings(
    training=HeadTraining(steps=500, batch=16, lr=2e-3, validate_every=100, patience=5),
    neck=64,
    train_images=1200,
    val_images=200,
)
FULL = DetectionSettings(training=HeadTraining(steps=12_000, batch=16, lr=5e-4, validate_every=300, patience=10))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is trained on and chosen on at one share of the labels: positions within the cases."""

    cases: BoxCases
    share: float
    labelled: NDArray[np.int64]
    train: NDArray[np.int64]
    val: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Predicted:
    """What one encoder's head, or no encoder at all, says of the test images."""

    encoder: str
    baseline: bool
    detections: list[Detections]
    extra: dict[str, Any]


@register("task", "detection")
class Detection(Task):
    """Patches of the last block → YOLOv3 head → mAP with a 95 % patient-bootstrap interval."""

    summary: ClassVar[str] = "boxes on frozen features"

    def __init__(self, settings: DetectionSettings | None = None) -> None:
        """Take other settings than those that `TaskOptions.full` chooses between."""
        self.settings = settings

    def run(self, encoder: Encoder, corpus: Corpus, options: TaskOptions) -> Sequence[Result]:
        """Evaluate every problem at every share of the labels; rows by problem, share, metric, then encoder.

        Raises:
            TaskError: a problem that was named cannot be carried by the corpus, or none can.
        """
        settings = self.settings or (FULL if options.full else QUICK)
        plans = [
            _plan(cases, share, settings, options.seed)
            for cases in chosen_box_cases(corpus, options.problems)
            for share in options.labels
        ]
        rows = np.unique(np.concatenate([plan.cases.rows_N[_used(plan)] for plan in plans]))
        predicted: list[list[_Predicted]] = [[] for _ in plans]
        with stages(options.progress) as progress:
            for variant in dense_variants(encoder, corpus, options, blocks=1):
                what = f"features: {variant.encoder}"
                features = variant.extract(rows, lambda done, total, what=what: progress(what, done, total))  # type: ignore[misc]
                for plan, ones in zip(plans, predicted, strict=True):
                    head, extra = _fit(
                        plan, features, settings, options.seed, encoder.device, progress, variant.encoder
                    )
                    test = plan.cases.rows_N[plan.cases.of("test")]
                    found = [one for raw in _raw(head, features, test, encoder.device) for one in detections(head, raw)]
                    ones.append(_Predicted(variant.encoder, variant.baseline, found, {**variant.extra, **extra}))
        results = []
        for plan, ones in zip(plans, predicted, strict=True):
            if options.baselines:
                ones.append(_usual(plan, options.seed))
            results += _rows(plan, ones, encoder, corpus, options)
        return results


def _plan(cases: BoxCases, share: float, settings: DetectionSettings, seed: int) -> _Plan:
    train, val = cases.of("train"), cases.of("val")
    labelled = train[label_subset(cases.patients_N[train], cases.states_NK[train], share, seed)]
    draws = [keyed_rng(seed, f"detection {name} images") for name in ("train", "val")]
    return _Plan(
        cases,
        share,
        labelled,
        without_boxes_drawn_down(cases, labelled, settings.train_images, draws[0]),
        without_boxes_drawn_down(cases, val, settings.val_images, draws[1]),
    )


def _used(plan: _Plan) -> NDArray[np.int64]:
    return np.concatenate([plan.train, plan.val, plan.cases.of("test")])


def _fit(
    plan: _Plan,
    features: PatchFeatures,
    settings: DetectionSettings,
    seed: int,
    device: torch.device,
    progress: Progress,
    name: str,
) -> tuple[DetectionHead, dict[str, Any]]:
    """Train a head; return it with what a row tells of its training."""
    truths = plan.cases.truths_of(plan.train)
    rows = plan.cases.rows_N[plan.train]
    anchors_A2 = fit_anchors(np.concatenate([truth.boxes_G4 for truth in truths]), ANCHORS, seed)
    head = new_head(features, rows, len(plan.cases.classes), anchors_A2, settings.neck, seed).to(device)
    what = f"detection, {plan.share:g} %: {name}"
    trained, val_map = fit_head(
        head,
        features,
        (rows, truths),
        (plan.cases.rows_N[plan.val], plan.cases.truths_of(plan.val)),
        settings.training,
        seed,
        lambda done, total: progress(what, done, total),
    )
    return head, {
        "val_map": val_map,
        "steps": trained.steps,
        "best_step": trained.best_step,
        "anchors": anchors_A2.round(4).tolist(),
    }


def new_head(
    features: PatchFeatures,
    rows: NDArray[np.int64],
    classes: int,
    anchors_A2: NDArray[np.float64],
    neck: int,
    seed: int,
) -> DetectionHead:
    """Return a head with random weights for some features, standardised by those of the first few hundred `rows`."""
    sample = features.take(rows[:_STATISTICS_IMAGES])[:, 0].reshape(-1, features.width).double()
    deviation_D = sample.std(dim=0, correction=0)
    # A feature that is alike everywhere says nothing; it stays near zero instead of being blown up.
    deviation_D = deviation_D.clamp(min=max(1e-6, 1e-3 * float(deviation_D.mean())))
    statistics_2D = torch.stack([sample.mean(dim=0), deviation_D]).float().numpy()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DetectionHead(features.width, features.grid, classes, anchors_A2, statistics_2D, neck)


def fit_head(
    head: DetectionHead,
    features: PatchFeatures,
    train: tuple[NDArray[np.int64], Sequence[Truth]],
    val: tuple[NDArray[np.int64], Sequence[Truth]],
    settings: HeadTraining,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Trained, float]:
    """Train `head` in place; return how it went and the mAP (0.40 to 0.75) on val of the state that is kept.

    Args:
        head: New.
        features: Of all images named below.
        train: Rows of the training images, and what is on them.
        val: Rows of those that the best state is chosen on, and what is on them.
        settings: Rates and lengths.
        seed: Draws the batches.
        progress: Called with steps done and in all.
    """
    device = next(head.parameters()).device
    rows, truths = train
    targets, val_targets = ([assign(head, truth) for truth in each] for each in (truths, val[1]))
    boxes_an_image = sum(len(one.slots_G) for one in targets) / len(targets)
    values: list[float] = []

    def loss(index: NDArray[np.int64], _: np.random.Generator) -> Tensor:
        raw = head(_patches(features, rows[index], device))
        return detection_loss(head, raw, [targets[i] for i in index], boxes_an_image * len(index))

    def validate() -> float:
        found: list[Detections] = []
        total = 0.0
        for raw in _raw(head, features, val[0], device):
            those: Sequence[Target] = val_targets[len(found) : len(found) + len(raw)]
            total += float(detection_loss(head, raw, those, boxes_an_image * len(val[0])))
            found += detections(head, raw)
        values.append(float(mean_precision(precision_table(match(found, val[1], head.classes)))))
        return values[-1] - _TIE_BREAK * total / (1 + total)

    trained = train_head(head, len(rows), loss, validate, settings, seed, progress)
    steps = [step for step, _, _ in trained.history]
    return trained, values[steps.index(trained.best_step)]


def _patches(features: PatchFeatures, rows: NDArray[np.int64], device: torch.device) -> Tensor:
    """Shape (n, D, H, W)."""
    patches_NPD = features.take(rows)[:, 0].to(device)
    return patches_NPD.reshape(len(rows), *features.grid, features.width).permute(0, 3, 1, 2)


def _raw(head: DetectionHead, features: PatchFeatures, rows: NDArray[np.int64], device: torch.device) -> list[Tensor]:
    """What the head says of images, in batches."""
    with torch.no_grad():
        return [
            head(_patches(features, rows[start : start + _BATCH], device)).float()
            for start in range(0, len(rows), _BATCH)
        ]


def _usual(plan: _Plan, seed: int) -> _Predicted:
    """The baseline that sees no picture: where boxes of each class most often are, on every image alike."""
    truths = plan.cases.truths_of(plan.labelled)
    parts = []
    for index in range(len(plan.cases.classes)):
        boxes = [truth.boxes_G4[truth.classes_G == index] for truth in truths]
        images_B = np.repeat(np.arange(len(boxes)), [len(one) for one in boxes])
        known = sum(truth.states_K[index] >= 0 for truth in truths)
        places, share = usual_places(np.concatenate(boxes), images_B, int(known), MAX_DETECTIONS, seed)
        parts.append(Detections(places, share, share, np.full(len(share), index)))
    everywhere = Detections(*(np.concatenate([getattr(one, name) for one in parts]) for name in Detections.__slots__))
    return _Predicted(USUAL_PLACES, True, [everywhere] * len(plan.cases.of("test")), {})


def _rows(plan: _Plan, ones: list[_Predicted], encoder: Encoder, corpus: Corpus, options: TaskOptions) -> list[Result]:
    cases = plan.cases
    test = cases.of("test")
    truths, patients = cases.truths_of(test), cases.patients_N[test].tolist()
    matches = [match(one.detections, truths, len(cases.classes)) for one in ones]
    tables = [precision_table(found) for found in matches]
    replicates = [precision_replicates(found, patients, options.bootstrap, options.seed) for found in matches]
    extras = [
        {**one.extra, **_counts(plan, options), **_told(one, found, table, truths, cases.classes)}
        for one, found, table in zip(ones, matches, tables, strict=True)
    ]
    if plan.share == max(options.labels) and encoder.folder is not None:
        cut = sensitivity(matches[0])[1]
        sheet = f"results/sheets/detection-{cases.problem.name}.png"
        write_sheet(
            encoder.folder / sheet, corpus, cases, ones[0].detections, 1.0 if cut is None else cut, options.seed
        )
        extras[0]["sheet"] = sheet
    results = []
    for metric, thresholds in METRICS.items():
        values = [float(mean_precision(table, thresholds)) for table in tables]
        values_R = [mean_precision(each, thresholds) for each in replicates]
        measured = []
        for index, one in enumerate(ones):
            extra = dict(extras[index])
            if len(cases.classes) > 1:
                extra["per_class"] = _by_class(cases.classes, tables[index][:, thresholds].mean(axis=1))
            measured.append(Measurement(one.encoder, one.baseline, values[index], values_R[index], extra))
        results += paired_rows(
            measured,
            task="detection",
            data=cases.data,
            protocol=PROTOCOL,
            labels=plan.share,
            metric=metric,
            split_sha256=cases.split_sha256,
            n_patients=len(set(patients)),
        )
    return results


def _counts(plan: _Plan, options: TaskOptions) -> dict[str, Any]:
    """Return what was trained and tested on."""
    cases, test = plan.cases, plan.cases.of("test")
    train_boxes, test_boxes = (sum(len(one.boxes_G4) for one in cases.truths_of(at)) for at in (plan.train, test))
    counts: dict[str, Any] = {
        "problem": cases.problem.name,
        "seed": options.seed,
        "n_images": len(test),
        "n_images_with_box": int(cases.has_box_N[test].sum()),
        "n_boxes": test_boxes,
        "n_train_images": len(plan.train),
        "n_train_images_with_box": int(cases.has_box_N[plan.train].sum()),
        "n_train_boxes": train_boxes,
        "n_val_images": len(plan.val),
        "label_patients_sha256": ids_sha256(np.unique(cases.patients_N[plan.labelled])),
    }
    if len(plan.train) < len(plan.labelled):
        counts["n_labelled_images"] = len(plan.labelled)
        counts["train_images"] = "as many without a box as with one" + (
            "" if options.full else ", within the quick limit (full lifts it)"
        )
    return counts


def _by_class(classes: tuple[str, ...], values_K: NDArray[np.float64]) -> dict[str, float | None]:
    """Return each class's value; `None` where there is no box of it to find."""
    return {name: None if np.isnan(value) else float(value) for name, value in zip(classes, values_K, strict=True)}


def _told(
    one: _Predicted,
    found: list[Matches],
    table_KT: NDArray[np.float64],
    truths: list[Truth],
    classes: tuple[str, ...],
) -> dict[str, Any]:
    """Return what else a row tells of the predictions."""
    legacy, scored = legacy_precision(one.detections, truths, len(classes))
    told: dict[str, Any] = {
        "ap_at": dict(zip(map(str, THRESHOLDS), table_KT.mean(axis=0).round(6).tolist(), strict=True)),
        "sensitivity_at_1_false_per_image": sensitivity(found)[0],
        "n_images_with_prediction": sum(len(each.scores_M) > 0 for each in one.detections),
        "legacy_mgca": {
            "map": legacy,
            "n_images": scored,
            "note": "skips images without a box and without a sure prediction, so it is too high by construction",
        },
    }
    if len(classes) > 1:
        told["ap50_by_class"] = _by_class(classes, table_KT[:, HALF])
    return told
