"""Retrieval: texts → images, images → texts, images → images, and findings in words → images; nothing is fitted.

Each dataset's test images are searched by themselves, since a mixture would be sorted by how its datasets look and
write. Words and pictures meet where the losses act (behind the projector); pictures meet each other by CLS and by
pooled patches.

Source: recall@k over pairs as in image-text retrieval; precision@k by class as in GLoRIA's CheXpert 5×200.
Differs: a text that occurs more than once is one item; P@k is by finding, so that images of several findings count,
    and the 5×200 rule is the special case of one finding an image; ties have their expected value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from umif.config import register
from umif.corpus.progress import Bar
from umif.encoder.encoder import finding_prompts
from umif.encoder.features import Readout, check_block
from umif.errors import TaskError, nearest
from umif.tasks.base import Result, Task
from umif.tasks.contenders import contenders, reader_of
from umif.tasks.linear import patch_block
from umif.tasks.neighbours import Barred, unit_rows
from umif.tasks.pixels import SIDE, pixel_features
from umif.tasks.problems import MIN_PATIENTS
from umif.tasks.retrieval_items import shelves_of
from umif.tasks.retrieval_measures import Side, named_precisions, precisions, recalls
from umif.tasks.rows import Measurement, paired_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.encoder import Encoder, FrozenEncoder
    from umif.tasks.base import TaskOptions
    from umif.tasks.retrieval_items import Shelf
    from umif.tasks.retrieval_measures import Measured

PROTOCOL = "retrieval among a dataset's test images, by cosine; nothing fitted"
TITLES = {
    "text-image": "text → image",
    "image-text": "image → text",
    "image-image": "image → image of other patients",
    "finding-image": "finding in words → image",
}
READS_WORDS = ("text-image", "image-text", "finding-image")
_TEXTS = 256  # texts that are encoded between two moves of the bar


@dataclass(frozen=True, slots=True)
class _Plan:
    """One problem on one shelf: the images that take part in it."""

    problem: str
    shelf: Shelf


@dataclass(frozen=True, slots=True)
class _Found:
    """What one encoder measured."""

    encoder: str
    baseline: bool
    measured: list[Measured]


@register("task", "retrieval")
class Retrieval(Task):
    """Cosine between pictures and words → R@k, median rank and P@k, with 95 % patient-bootstrap intervals."""

    summary: ClassVar[str] = "retrieval of images by texts and by images, and of texts by images"

    def run(self, encoder: FrozenEncoder, corpus: Corpus, options: TaskOptions) -> Sequence[Result]:
        """Search every dataset that can carry a problem; rows by dataset, problem, metric, then encoder.

        Shares of labels play no part.

        Raises:
            TaskError: a problem that was named is unknown or cannot be carried, or none can.
        """
        plans = _plans(encoder, corpus, options.problems)
        check_block(options.block, encoder.depth)
        found: list[list[_Found]] = [[] for _ in plans]
        with Bar(options.progress) as bar:
            for one in contenders(encoder, options):
                own = one.encoder is encoder or one.name == "random"
                block = options.block if own and options.block is not None else patch_block(one.encoder.depth)
                for place, plan in enumerate(plans):
                    if plan.problem in READS_WORDS and one.encoder.tokenizer is None:
                        continue  # a rival that reads pictures only
                    bar.start(f"retrieval: {plan.shelf.dataset}, {plan.problem}, {one.name}", len(plan.shelf.rows_N))
                    for readout, measured in _searches(one.encoder, corpus, plan, block, options, bar.advance):
                        found[place].append(_Found(f"{one.name} {readout}", one.baseline, measured))
            if options.baselines:
                for place, plan in enumerate(plans):
                    if plan.problem == "image-image":
                        bar.start(f"retrieval: {plan.shelf.dataset}, pixels", len(plan.shelf.rows_N))
                        features_ND = pixel_features(corpus, plan.shelf.rows_N)
                        # Without each picture's own brightness, which would make all pictures alike.
                        unit_ND = unit_rows(features_ND - features_ND.mean(1, keepdims=True))
                        measured = _image_image(unit_ND, plan.shelf, options)
                        found[place].append(_Found(f"pixels {SIDE}×{SIDE}", True, measured))
                        bar.advance(len(plan.shelf.rows_N))
        return [row for plan, ones in zip(plans, found, strict=True) for row in _rows(plan, ones)]


def _plans(encoder: FrozenEncoder, corpus: Corpus, names: Sequence[str]) -> list[_Plan]:
    for name in names:
        if name not in TITLES:
            raise TaskError(f"no problem of retrieval is called {name!r}", fix=nearest(name, TITLES))
    shelves = shelves_of(corpus)
    plans, lacking = [], {}
    for problem in TITLES:
        if names and problem not in names:
            continue
        if problem in READS_WORDS and encoder.tokenizer is None:
            lacking[problem] = "this encoder has no tokeniser, so it cannot read words"
            continue
        able = [_Plan(problem, shelf) for one in shelves if (shelf := _taking_part(problem, one)) is not None]
        plans += able
        if not able:
            lacking[problem] = (
                f"no dataset has test images of {MIN_PATIENTS} patients with texts, and two different texts"
                if problem in ("text-image", "image-text")
                else f"no dataset has a finding that test images of {MIN_PATIENTS} patients show, and of as many do not"
            )
    if not plans or (names and lacking):
        problem, what = next(iter(lacking.items()))
        raise TaskError(what, where=f"problem {problem}", fix="prepare more of the data, or choose another problem")
    return sorted(plans, key=lambda plan: plan.shelf.dataset)


def _taking_part(problem: str, shelf: Shelf) -> Shelf | None:
    """Return the images of a shelf that a problem is about, `None` where they cannot carry it."""
    if problem in ("text-image", "image-text"):
        told = shelf.with_texts
        return told if told.n_patients >= MIN_PATIENTS and len(told.texts) > 1 else None
    known = shelf.with_findings
    return known if known.classes else None


def _searches(
    encoder: FrozenEncoder,
    corpus: Corpus,
    plan: _Plan,
    block: int,
    options: TaskOptions,
    advance: Callable[[int], None],
) -> Iterator[tuple[str, list[Measured]]]:
    """Yield each readout's name and what it measured."""
    shelf = plan.shelf
    done = 0

    def progress(now: int, _: int) -> None:
        nonlocal done
        advance(now - done)
        done = now

    cls_ND = encoder.encode_corpus(corpus, shelf.rows_N, progress=progress)
    if plan.problem == "image-image":
        yield "cls", _image_image(unit_rows(cls_ND), shelf, options)
        if "patches" not in encoder.readouts:
            return
        readout = Readout("patches", block=None if block == encoder.depth else block)
        patches_ND = encoder.encode_corpus(corpus, shelf.rows_N, readout)
        yield readout.label, _image_image(unit_rows(patches_ND), shelf, options)
        return
    reader = reader_of(encoder)
    images_ND = reader.unit_vectors(torch.from_numpy(cls_ND)).numpy()
    if plan.problem == "finding-image":
        sides = [encode_words(reader, finding_prompts(name)[0]).mean(0) for name in shelf.classes]
        yield "joint", named_precisions(unit_rows(np.stack(sides)), images_ND, shelf, options)
        return
    texts_TD = encode_words(reader, shelf.texts)
    texts = Side(texts_TD, shelf.text_labels_TF, shelf.text_owners)
    images = Side(images_ND, shelf.labels_NF, shelf.image_owners)
    texts_ask = plan.problem == "text-image"
    asking, asked = (texts, images) if texts_ask else (images, texts)
    links = shelf.links if texts_ask else shelf.links.turned
    measured = recalls(asking.unit_XD, asked.unit_XD, links, asking.owners, options)
    yield "joint", measured + precisions(asking, asked, shelf.classes, options)


def encode_words(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return texts as unit vectors in the space that the losses act on. Shape (T, D), fp32."""
    parts = [encoder.encode_texts(list(texts[start : start + _TEXTS])) for start in range(0, len(texts), _TEXTS)]
    vectors: NDArray[np.float32] = encoder.unit_vectors(torch.cat(parts)).numpy()
    return vectors


def _image_image(unit_ND: NDArray[np.float32], shelf: Shelf, options: TaskOptions) -> list[Measured]:
    barred = Barred.same(shelf.patients_N, shelf.patients_N)  # the query itself among them
    images = Side(unit_ND, shelf.labels_NF, shelf.image_owners)
    return precisions(images, images, shelf.classes, options, barred)


def _rows(plan: _Plan, found: Sequence[_Found]) -> list[Result]:
    """Return one row per metric and encoder; the trained encoder's also tell their paired gains."""
    shelf = plan.shelf
    results: list[Result] = []
    for place, first in enumerate(found[0].measured):
        measured = [
            Measurement(
                one.encoder,
                one.baseline,
                own.value,
                own.replicates_R,
                {"problem": plan.problem, "n_images": len(shelf.rows_N), **own.extra},
            )
            for one in found
            for own in [one.measured[place]]
        ]
        results += paired_rows(
            measured,
            task="retrieval",
            data=f"{shelf.dataset}: {TITLES[plan.problem]}",
            protocol=PROTOCOL,
            labels=0.0,
            metric=first.metric,
            split_sha256=shelf.sha256,
            n_patients=shelf.n_patients,
        )
    return results
