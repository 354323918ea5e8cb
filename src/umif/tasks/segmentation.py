"""Segmentation: a U-Net-like decoder on the frozen patches of several blocks → Dice with its interval.

Patches are extracted once per encoder. Each problem's decoder is trained on the corpus's train patients (all of them,
and shares of their labels), its best state chosen on val patients, and its test patients are scored once.

Source: the segmentation of GLoRIA, MGCA and Med-UniC (docs/tasks.md tells where this differs).
Differs: patients instead of rows; one decoder for all classes of a problem; a share of images unless `full`; the Dice
    of images that have something, and what a drawing that knows no image reaches, stand beside the published mean.
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
from umif.tasks.head_training import HeadTraining
from umif.tasks.image_values import ImageSet, Valued, compare_values, macro_mean, macro_mean_interval
from umif.tasks.problems import ids_sha256
from umif.tasks.rows import of_seeds
from umif.tasks.segmentation_cases import SIDE, DrawnMasks, chosen_mask_cases
from umif.tasks.segmentation_fit import (
    THRESHOLD,
    TOLERANCE,
    Measured,
    SegmentationSettings,
    always,
    drawn_down,
    fit_decoder,
    mean_mask,
    measure,
    predicted,
)
from umif.tasks.segmentation_sheet import choose_cases, draw_sheet, write_sheet
from umif.tasks.subsets import label_subset

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.encoder import Encoder
    from umif.tasks.base import TaskOptions
    from umif.tasks.segmentation_cases import MaskCases

    Progress = Callable[[str, int, int], None]

_HOW = (
    "{decoder}; trained on train, best state on val, test scored once; by patient; "
    f"masks on {SIDE} × {SIDE}, threshold {THRESHOLD}"
)
PROTOCOL = _HOW.format(decoder="frozen patches of several blocks, U-Net-like decoder")
PAPER_PROTOCOL = _HOW.format(decoder="frozen patches of the last block, SETR-like decoder and loss as published")
TASK = "segmentation"
MEAN_MASK, NOTHING = "mean mask", "nothing"
DICE, DICE_THERE, IOU = "Dice", "Dice where present", "IoU"
OUTLINES = f"outlines within {TOLERANCE:g} px"

# About a minute on two cores for a small encoder, its baselines and three shares of the labels.
QUICK = SegmentationSettings(
    training=HeadTraining(steps=400, batch=16, lr=4e-3, weight_decay=0.01, validate_every=50, patience=3),
    train_images=960,
    val_images=160,
)
FULL = SegmentationSettings(
    training=HeadTraining(steps=12_000, batch=16, lr=5e-4, weight_decay=0.05, validate_every=300, patience=10)
)
# With `--protocol paper`: the decoder and the loss that published comparisons of this field train on a ViT.
PAPER = SegmentationSettings(
    decoder="setr",
    blocks=1,
    loss="focal-dice",
    training=HeadTraining(steps=12_000, batch=8, lr=5e-4, weight_decay=0.05, validate_every=300, patience=10),
)

PAPER_QUICK = PAPER.model_copy(
    update={
        "training": HeadTraining(steps=200, batch=8, lr=5e-4, weight_decay=0.05, validate_every=50, patience=3),
        "train_images": QUICK.train_images,
        "val_images": QUICK.val_images,
    }
)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is trained on and chosen on at one share of the labels: positions within the cases."""

    cases: MaskCases
    share: float
    seed: int
    labelled: NDArray[np.int64]
    train: NDArray[np.int64]
    val: NDArray[np.int64]

    @property
    def used(self) -> NDArray[np.int64]:
        """Positions of all images that are looked at."""
        return np.unique(np.concatenate([self.train, self.val, self.cases.of("test")]))


@dataclass(frozen=True, slots=True)
class _Reached:
    """What one encoder's decoder, or no encoder at all, reached on the test images."""

    encoder: str
    baseline: bool
    measured: Measured
    extra: dict[str, Any]


@register("task", TASK)
class Segmentation(Task):
    """Patches of several blocks → U-Net-like decoder → Dice with a 95 % patient-bootstrap interval."""

    summary: ClassVar[str] = "masks on frozen features"

    def __init__(self, settings: SegmentationSettings | None = None) -> None:
        """Take other settings than those that `TaskOptions.full` chooses between."""
        self.settings = settings

    def run(self, encoder: Encoder, corpus: Corpus, options: TaskOptions) -> Sequence[Result]:
        """Evaluate every problem at every share of the labels; rows by problem, share, metric, then encoder.

        Raises:
            TaskError: a problem that was named cannot be carried by the corpus, or none can.
        """
        paper = options.splits == "paper"
        settings = self.settings or ((PAPER if paper else FULL) if options.full else (PAPER_QUICK if paper else QUICK))
        results: list[Result] = []
        with stages(options.progress) as progress:
            for cases in chosen_mask_cases(corpus, options.problems):
                trials: list[list[tuple[_Plan, list[_Reached]]]] = []
                for seed in options.every_seed:
                    own = replace(options, seed=seed, seeds=1)
                    trials.append(_one_seed(cases, encoder, corpus, settings, own, seed == options.seed, progress))
                for of_share in zip(*trials, strict=True):
                    results += _rows([plan for plan, _ in of_share], [ones for _, ones in of_share], settings, options)
        return results


def _plan(cases: MaskCases, share: float, settings: SegmentationSettings, seed: int) -> _Plan:
    train = cases.of("train")
    labelled = train[label_subset(cases.patients_N[train], cases.states_NF[train], share, seed)]
    return _Plan(
        cases,
        share,
        seed,
        labelled,
        drawn_down(cases, labelled, settings.train_images, seed, among=train),
        drawn_down(cases, cases.of("val"), settings.val_images, seed),
    )


def _one_seed(
    cases: MaskCases,
    encoder: Encoder,
    corpus: Corpus,
    settings: SegmentationSettings,
    options: TaskOptions,
    pictured: bool,
    progress: Progress,
) -> list[tuple[_Plan, list[_Reached]]]:
    """What all encoders reach on one problem at every share of the labels, with one seed."""
    plans = [_plan(cases, share, settings, options.seed) for share in options.labels]
    name = f"{cases.problem.name}" if pictured else f"{cases.problem.name}, seed {options.seed}"
    used = np.unique(np.concatenate([plan.used for plan in plans]))
    masks = DrawnMasks(corpus, cases, used, lambda done, total: progress(f"masks: {name}", done, total))
    reached: list[list[_Reached]] = [[] for _ in plans]
    for variant in dense_variants(encoder, corpus, options, settings.blocks):

        def extracted(done: int, total: int, what: str = f"features: {variant.encoder}") -> None:
            progress(what, done, total)

        features = variant.extract(cases.rows_N[used], extracted)
        for plan, ones in zip(plans, reached, strict=True):
            what = f"{name}, {plan.share:g} %: {variant.encoder}"
            decoder, extra = fit_decoder(
                cases,
                masks,
                plan.train,
                plan.val,
                features,
                settings,
                options.seed,
                encoder.device,
                lambda done, total, what=what: progress(what, done, total),  # type: ignore[misc]
            )
            draw = predicted(decoder, cases, features, encoder.device)
            measured = measure(cases, masks, cases.of("test"), draw)
            extra = {**variant.extra, **extra}
            if pictured and not variant.baseline and plan.share == max(options.labels):
                extra |= _sheet(plan, encoder, corpus, masks, draw, measured, options.seed)
            ones.append(_Reached(variant.encoder, variant.baseline, measured, extra))
    if options.baselines:
        for plan, ones in zip(plans, reached, strict=True):
            ones += _imageless(plan, masks)
    return list(zip(plans, reached, strict=True))


def _imageless(plan: _Plan, masks: DrawnMasks) -> list[_Reached]:
    """What is reached without a look at the image: by the mean mask, and, where some have nothing, by no drawing."""
    cases, test = plan.cases, plan.cases.of("test")
    mean_FSS = mean_mask(cases, masks, plan.train, plan.val)
    found = [_Reached(MEAN_MASK, True, measure(cases, masks, test, always(mean_FSS)), {})]
    if (cases.states_NF[test] == 0).any():
        empty_FSS = np.zeros_like(mean_FSS)
        found.append(_Reached(NOTHING, True, measure(cases, masks, test, always(empty_FSS)), {}))
    return found


def _rows(
    plans: Sequence[_Plan], trials: Sequence[list[_Reached]], settings: SegmentationSettings, options: TaskOptions
) -> list[Result]:
    """Rows of one problem and share. With several seeds, an image's value is the mean of what it has with each.

    The mean of means is the mean over all, so a row's value and each replicate are the mean of the seeds' own.
    """
    cases = plans[0].cases
    test = cases.of("test")
    about = ImageSet(cases.problem.name, cases.data, cases.classes, cases.images_N[test], cases.patients_N[test])
    metrics: dict[str, Callable[[Measured], NDArray[np.float64]]] = {DICE: lambda one: one.dice}
    if (cases.states_NF[test] == 0).any():
        metrics[DICE_THERE] = lambda one: one.dice_there
    metrics |= {IOU: lambda one: one.iou, OUTLINES: lambda one: one.within}
    protocol = PAPER_PROTOCOL if settings.decoder == "setr" else PROTOCOL
    results = []
    for metric, values in metrics.items():
        valued = []
        for ones in zip(*trials, strict=True):
            values_SNF = np.stack([values(one.measured) for one in ones])
            told = [{**_counts(plan), **one.extra} for plan, one in zip(plans, ones, strict=True)]
            extra = of_seeds([macro_mean(values_NF)[0] for values_NF in values_SNF], told)
            extra |= {key: value for key, value in told[0].items() if key == "sheet"}  # the first seed's alone
            if metric == OUTLINES:
                extra |= _distances([one.measured for one in ones], cases.patients_N[test].tolist(), options)
            if options.splits != "clean":
                extra["splits"] = options.splits
            valued.append(Valued(ones[0].encoder, ones[0].baseline, values_SNF.mean(axis=0), extra))
        results += compare_values(TASK, protocol, plans[0].share, metric, about, valued, options)
    return results


def _counts(plan: _Plan) -> dict[str, Any]:
    """Return what all rows of one share tell of the images."""
    cases, test = plan.cases, plan.cases.of("test")
    patients = np.unique(cases.patients_N[plan.labelled])
    return {
        "threshold": THRESHOLD,
        "grid": SIDE,
        "n_train_images": len(plan.train),
        "n_train_images_with_regions": int((cases.states_NF[plan.train] == 1).any(axis=1).sum()),
        "n_labelled_images": len(plan.labelled),
        "n_train_patients": len(np.unique(cases.patients_N[plan.train])),
        "label_patients_sha256": ids_sha256(patients),
        "n_val_images": len(plan.val),
        "n_test_drawn": dict(zip(cases.classes, (cases.states_NF[test] == 1).sum(axis=0).tolist(), strict=True)),
        "n_test_absent": dict(zip(cases.classes, (cases.states_NF[test] == 0).sum(axis=0).tolist(), strict=True)),
        "seed": plan.seed,
    }


def _distances(measured: Sequence[Measured], patients: list[str], options: TaskOptions) -> dict[str, Any]:
    """Mean distance of the outlines and the 95th percentile, with intervals; lower is better, so they are no rows."""
    found = {}
    of_seeds = {
        "mean_distance_px": [one.distance for one in measured],
        "hd95_px": [one.hd95 for one in measured],
    }
    for name, values_SNF in of_seeds.items():
        values_NF = np.stack(values_SNF).mean(axis=0)
        estimate = macro_mean_interval(values_NF, patients, replicates=options.bootstrap, seed=options.seed)
        found[name] = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return found


def _sheet(
    plan: _Plan,
    encoder: Encoder,
    corpus: Corpus,
    masks: DrawnMasks,
    draw: Callable[[NDArray[np.int64]], NDArray[np.bool_]],
    measured: Measured,
    seed: int,
) -> dict[str, str]:
    """Write a picture of some test cases beside the results; tell its path within the model's folder."""
    if encoder.folder is None:
        return {}
    cases, test = plan.cases, plan.cases.of("test")
    chosen = choose_cases(np.any(measured.there, axis=1), keyed_rng(seed, "segmentation sheet"))
    positions = test[chosen]
    sheet = draw_sheet(
        corpus.take_jpegs(cases.rows_N[positions]),
        masks.take(positions),
        draw(positions),
        measured.dice[chosen],
        cases.classes,
    )
    path = f"results/sheets/{TASK}-{cases.problem.name}.png"
    write_sheet(encoder.folder / path, sheet)
    return {"sheet": path}
