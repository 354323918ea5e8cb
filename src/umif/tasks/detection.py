"""Detection: a YOLOv3 head on the frozen patches of the last block → mAP with a 95 % patient-bootstrap interval.

Patches are extracted once per encoder. Each problem's head is trained on the corpus's train patients (all of them, and
shares of their labels), its best state chosen on val patients, and its test patients are scored once.

Source: the detection of MGCA and its followers (docs/tasks.md tells where this differs).
Differs: every test image counts, with a box or without, with a prediction or without; labels are drawn by patient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from umif.config import register
from umif.corpus.progress import stages
from umif.rng import keyed_rng
from umif.tasks.base import Result, Task
from umif.tasks.dense import dense_variants
from umif.tasks.detection_boxes import fit_anchors, usual_places
from umif.tasks.detection_cases import chosen_box_cases, without_boxes_drawn_down
from umif.tasks.detection_fit import DetectionSettings, fit_head, new_head, raw_predictions
from umif.tasks.detection_head import ANCHORS, detections
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
from umif.tasks.head_training import HeadTraining
from umif.tasks.problems import ids_sha256
from umif.tasks.rows import Measurement, of_seeds, paired_rows
from umif.tasks.subsets import label_subset

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.encoder import Encoder
    from umif.encoder.dense import PatchFeatures
    from umif.tasks.base import TaskOptions
    from umif.tasks.detection_cases import BoxCases
    from umif.tasks.detection_head import DetectionHead
    from umif.tasks.detection_metrics import Matches, Truth

    Progress = Callable[[str, int, int], None]

PROTOCOL = (
    "frozen patches of the last block, YOLOv3 head; trained on train, best state on val, test scored once; by patient; "
    "every test image counts"
)
METRICS = {"mAP 0.40-0.75": MAIN, "mAP 0.50-0.95": COCO}
USUAL_PLACES = "usual places"
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
    """What is trained on and chosen on at one share of the labels, with one seed: positions within the cases."""

    cases: BoxCases
    share: float
    seed: int
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
        all_cases = chosen_box_cases(corpus, options.problems)
        with stages(options.progress) as progress:
            trials = [
                _one_seed(all_cases, encoder, corpus, settings, replace(options, seed=seed, seeds=1), progress)
                for seed in options.every_seed
            ]
        results = []
        for of_plan in zip(*trials, strict=True):
            results += _rows(
                [plan for plan, _ in of_plan], [ones for _, ones in of_plan], encoder.folder, corpus, options
            )
        return results


def _one_seed(
    all_cases: Sequence[BoxCases],
    encoder: Encoder,
    corpus: Corpus,
    settings: DetectionSettings,
    options: TaskOptions,
    progress: Progress,
) -> list[tuple[_Plan, list[_Predicted]]]:
    """What all encoders predict in each problem at every share of the labels, with one seed."""
    plans = [_plan(cases, share, settings, options.seed) for cases in all_cases for share in options.labels]
    rows = np.unique(np.concatenate([plan.cases.rows_N[_used(plan)] for plan in plans]))
    predicted: list[list[_Predicted]] = [[] for _ in plans]
    for variant in dense_variants(encoder, corpus, options, blocks=1):
        what = f"features: {variant.encoder}"
        features = variant.extract(rows, lambda done, total, what=what: progress(what, done, total))  # type: ignore[misc]
        for plan, ones in zip(plans, predicted, strict=True):
            head, extra = _fit(plan, features, settings, encoder.device, progress, variant.encoder)
            test = plan.cases.rows_N[plan.cases.of("test")]
            found = [
                one for raw in raw_predictions(head, features, test, encoder.device) for one in detections(head, raw)
            ]
            ones.append(_Predicted(variant.encoder, variant.baseline, found, {**variant.extra, **extra}))
    if options.baselines:
        for plan, ones in zip(plans, predicted, strict=True):
            ones.append(_usual(plan))
    return list(zip(plans, predicted, strict=True))


def _plan(cases: BoxCases, share: float, settings: DetectionSettings, seed: int) -> _Plan:
    train, val = cases.of("train"), cases.of("val")
    labelled = train[label_subset(cases.patients_N[train], cases.states_NK[train], share, seed)]
    draws = [keyed_rng(seed, f"detection {name} images") for name in ("train", "val")]
    return _Plan(
        cases,
        share,
        seed,
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
    device: torch.device,
    progress: Progress,
    name: str,
) -> tuple[DetectionHead, dict[str, Any]]:
    """Train a head; return it with what a row tells of its training."""
    truths = plan.cases.truths_of(plan.train)
    rows = plan.cases.rows_N[plan.train]
    anchors_A2 = fit_anchors(np.concatenate([truth.boxes_G4 for truth in truths]), ANCHORS, plan.seed)
    head = new_head(features, rows, len(plan.cases.classes), anchors_A2, settings.neck, plan.seed).to(device)
    what = f"detection, {plan.share:g} %, seed {plan.seed}: {name}"
    trained, val_map = fit_head(
        head,
        features,
        (rows, truths),
        (plan.cases.rows_N[plan.val], plan.cases.truths_of(plan.val)),
        settings.training,
        plan.seed,
        lambda done, total: progress(what, done, total),
    )
    return head, {
        "val_map": val_map,
        "steps": trained.steps,
        "best_step": trained.best_step,
        "anchors": anchors_A2.round(4).tolist(),
    }


def _usual(plan: _Plan) -> _Predicted:
    """The baseline that sees no picture: where boxes of each class most often are, on every image alike."""
    truths = plan.cases.truths_of(plan.labelled)
    parts = []
    for index in range(len(plan.cases.classes)):
        boxes = [truth.boxes_G4[truth.classes_G == index] for truth in truths]
        images_B = np.repeat(np.arange(len(boxes)), [len(one) for one in boxes])
        known = sum(truth.states_K[index] >= 0 for truth in truths)
        places, share = usual_places(np.concatenate(boxes), images_B, int(known), MAX_DETECTIONS, plan.seed)
        parts.append(Detections(places, share, share, np.full(len(share), index)))
    everywhere = Detections(*(np.concatenate([getattr(one, name) for one in parts]) for name in Detections.__slots__))
    return _Predicted(USUAL_PLACES, True, [everywhere] * len(plan.cases.of("test")), {})


def _rows(
    plans: Sequence[_Plan],
    trials: Sequence[list[_Predicted]],
    folder: Path | None,
    corpus: Corpus,
    options: TaskOptions,
) -> list[Result]:
    """Rows of one problem and share; values and replicates are the means of the seeds' own, one trial a seed."""
    cases, first = plans[0].cases, trials[0]
    judged = [_judge(cases, ones, options) for ones in zip(*trials, strict=True)]
    sheet = {}
    if plans[0].share == max(options.labels) and folder is not None:
        cut = sensitivity(judged[0].matches)[1]
        sheet = {"sheet": f"results/sheets/detection-{cases.problem.name}.png"}
        write_sheet(
            folder / sheet["sheet"], corpus, cases, first[0].detections, 1.0 if cut is None else cut, options.seed
        )
    results = []
    for metric, thresholds in METRICS.items():
        measured = []
        for index, (found, ones) in enumerate(zip(judged, zip(*trials, strict=True), strict=True)):
            values = [float(mean_precision(table, thresholds)) for table in found.tables_SKT]
            values_R = np.mean([mean_precision(each, thresholds) for each in found.replicates], axis=0)
            told = [{**one.extra, **_counts(plan, options)} for one, plan in zip(ones, plans, strict=True)]
            extra = of_seeds(values, told) | found.extra | ({} if index else sheet)
            if len(cases.classes) > 1:
                extra["per_class"] = _by_class(cases.classes, found.tables_SKT.mean(axis=0)[:, thresholds].mean(axis=1))
            measured.append(Measurement(ones[0].encoder, ones[0].baseline, float(np.mean(values)), values_R, extra))
        results += paired_rows(
            measured,
            task="detection",
            data=cases.data,
            protocol=PROTOCOL,
            labels=plans[0].share,
            metric=metric,
            split_sha256=cases.split_sha256,
            n_patients=len(np.unique(cases.patients_N[cases.of("test")])),
        )
    return results


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the predictions of one encoder come to, seed by seed.

    Attributes:
        matches: The first seed's.
        tables_SKT: Average precision of each class at each IoU.
        replicates: The same on resamples of the patients, of each seed.
        extra: What else a row tells of the predictions, numbers as means over the seeds.
    """

    matches: list[Matches]
    tables_SKT: NDArray[np.float64]
    replicates: list[NDArray[np.float64]]
    extra: dict[str, Any]


def _judge(cases: BoxCases, ones: Sequence[_Predicted], options: TaskOptions) -> _Judged:
    test = cases.of("test")
    truths, patients = cases.truths_of(test), cases.patients_N[test].tolist()
    matches = [match(one.detections, truths, len(cases.classes)) for one in ones]
    tables = [precision_table(found) for found in matches]
    replicates = [precision_replicates(found, patients, options.bootstrap, options.seed) for found in matches]
    told = [
        _told(one, found, table, truths, cases.classes) for one, found, table in zip(ones, matches, tables, strict=True)
    ]
    return _Judged(matches[0], np.stack(tables), replicates, _mean_of(told))


def _mean_of(told: Sequence[Any]) -> Any:
    """Means over the seeds of every number, however deep; what all seeds share stays as it is."""
    if isinstance(told[0], dict):
        return {key: _mean_of([one[key] for one in told]) for key in told[0]}
    if all(one == told[0] for one in told):
        return told[0]
    return None if None in told else float(np.mean(told))


def _counts(plan: _Plan, options: TaskOptions) -> dict[str, Any]:
    """Return what was trained and tested on."""
    cases, test = plan.cases, plan.cases.of("test")
    train_boxes, test_boxes = (sum(len(one.boxes_G4) for one in cases.truths_of(at)) for at in (plan.train, test))
    counts: dict[str, Any] = {
        "problem": cases.problem.name,
        "seed": plan.seed,
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
