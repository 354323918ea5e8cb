"""From (corpus, seed, step) to the packed batch of that step.

Mental model: `PairSampler` says which pair sits in each slot of a step; `StepDataset[step]` reads this process's slots,
decodes, augments, words and groups them, and packs what came out. Every draw is keyed by (seed, step, slot), so
neither the number of workers nor of processes changes what a step sees, and a bad sample that is dropped leaves all
other slots as they are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import cv2
import numpy as np
from pydantic import Field

from umif.config import Config
from umif.corpus.quarantine import read_quarantine
from umif.corpus.regions import draw_regions
from umif.corpus.store import Corpus
from umif.errors import ConfigError, CorpusError, UmifError
from umif.imaging import AugmentConfig, decode_jpeg_grey, draw_augmentation, warp_image, warp_mask
from umif.imaging.device import leave_unwarped
from umif.language import write_passage
from umif.language.templates import Wordiness  # noqa: TC001 - pydantic reads the annotation
from umif.rng import brief_rng
from umif.tokens.batch import Batch, Example, pack
from umif.tokens.grouping import draw_groups, draw_ratio
from umif.tokens.prefetch import made_ahead
from umif.tokens.sampler import PairSampler
from umif.tokens.selection import Uncertain, details_of, labels_of, select_rows
from umif.tokens.text import MAX_TEXT_TOKENS
from umif.tokens.workers import make_steps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from umif.imaging import Augmentation
    from umif.tokens.text import TextTokenizer

PairKind = Literal["report", "caption", "class", "segment"]
Views = Literal["shared", "exposures", "separate"]
_COLUMNS = ("pair", "kind", "image_row", "text", "findings", "regions", "hash")
# What a damaged sample can raise on its way; anything else is a fault of ours and stops the run.
_BAD = (UmifError, ValueError, OverflowError, cv2.error)


class DataConfig(Config):
    """What a run learns from and how a batch is drawn. P = fixed by the paper, C = our choice."""

    split: Literal["train", "val", "test"] = Field("train", description="Split of the corpus. C: train")
    kinds: tuple[PairKind, ...] = Field(
        get_args(PairKind),
        min_length=1,
        description="Pair kinds to learn from; those the corpus lacks are passed over. P: all",
    )
    datasets: tuple[str, ...] | None = Field(
        None, min_length=1, description="Readers' names of the datasets to learn from; null = all. P: all"
    )
    kinds_per_step: int = Field(4, gt=0, description="Kinds drawn per step, with replacement. P: 4")
    pairs_per_kind: int = Field(
        32, gt=0, description="M, pairs of each drawn kind, over all processes. P: 512 (batch 2,048). C: 32 (batch 128)"
    )
    size_exponent: float = Field(
        1.0, ge=0, description="A kind is drawn with probability ∝ count ** this; below 1 favours small kinds. P: 1"
    )
    p_separate: float = Field(
        0.2, ge=0, le=1, description="Share of pairs whose image and supervision are kept apart (r = 1). P: 0.2"
    )
    image_pairs: bool = Field(False, description="Also pair every image with a second view of itself. C: off")
    uncertain: Uncertain = Field(
        "worded", description="Uncertain labels in passages: worded as uncertain, or left out. C: worded"
    )
    wording: Wordiness = Field(
        "varied",
        description="Passages for labels: varied sentences and spellings, or plain, which a small run learns sooner. "
        "C: varied",
    )
    details: Literal["left_out", "worded"] = Field(
        "left_out",
        description="Degrees and places that labels carry (Costophrenic Angle/right/blunted/mild) in passages. "
        "C: left_out",
    )
    max_text_tokens: int = Field(MAX_TEXT_TOKENS, gt=0, description="A text is cut after so many tokens. C: 256")
    image_size: int = Field(224, gt=0, description="Side of the square input, pixels. P: 224")
    patch_size: int = Field(16, gt=0, description="Side of a patch, pixels; must tile the image. P: 16")
    augment: AugmentConfig = Field(
        AugmentConfig(), description="Random crop, rotation, brightness and contrast; a mask moves with its image. C"
    )
    augment_on: Literal["loader", "device"] = Field(
        "loader",
        description="Who makes the views of pictures: the loader, or the device that trains, which leaves the loader "
        "to gather them. The same draws; grey values differ by 2 at most. C: loader",
    )
    views: Views = Field(
        "shared",
        description="What both groups see of a picture: one `shared` view, one crop under two `exposures`, or "
        "`separate` crops. Where all is shared, exposure and crop alone tell which groups belong together. C: shared",
    )


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that was left out of its batch.

    Attributes:
        pair: Its id, `<image>#<kind>`.
        row: Its row of pairs.lance; −1 − image row for an `image` pair.
        slot: Its position in the global batch.
        hash: Over image bytes and supervision, as the corpus holds it.
        stage: `decode`, `augment`, `regions`, `text` or `group`.
        error: What went wrong.
    """

    pair: str
    row: int
    slot: int
    hash: str
    stage: str
    error: str

    def to_json(self) -> dict[str, Any]:
        """Return the sample as plain JSON values."""
        return asdict(self)


class StepDataset:
    """The batches of a run: `dataset[step]` is a pure function of (corpus, config, seed, step, rank, world size).

    A process sees slots rank, rank + world_size, … of the step's global batch, so the processes together see the same
    pairs, augmented, worded and grouped alike, however many they are. Dropped samples leave processes with batches of
    different lengths; `Batch.slots_B` says what is there.

    Args:
        corpus: Folder of the corpus.
        tokenizer: Makes ids of texts.
        config: What to draw.
        seed: Of the run.
        rank: This process's number.
        world_size: Number of processes.

    Attributes:
        counts: Number of pairs of each kind that has any.
        left_out: Number of pairs of the split that can say nothing or are quarantined, by reason.
        quarantine_sha256: Hash of what the corpus's quarantine list excludes; `None` if nothing.
        sampler: Draws the pairs.

    Raises:
        CorpusError: the corpus cannot be used.
        ConfigError: an unknown dataset, patches that do not tile the picture, or more processes than slots.
        EmptyError: no pair is left.
    """

    def __init__(
        self,
        corpus: str | Path,
        tokenizer: TextTokenizer,
        config: DataConfig,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _check(config, rank, world_size)
        self.corpus = Corpus.open(corpus)
        self.tokenizer, self.config, self.seed = tokenizer, config, seed
        self.rank, self.world_size = rank, world_size
        # The evaluation view averages areas, which is no warp.
        on_device = config.augment_on == "device" and config.augment.enabled
        self._see = leave_unwarped if on_device else warp_image
        quarantine = read_quarantine(self.corpus.path)
        self.quarantine_sha256 = quarantine.sha256
        self._rows, self.left_out = select_rows(self.corpus, config, quarantine)
        self.counts = {kind: len(rows) for kind, rows in self._rows.items()}
        self.sampler = PairSampler(
            self.counts,
            seed=seed,
            kinds_per_step=config.kinds_per_step,
            pairs_per_kind=config.pairs_per_kind,
            size_exponent=config.size_exponent,
        )

    def rows(self, kind: str) -> NDArray[np.int64]:
        """Return the rows that a kind draws from, ascending: of pairs.lance, for `image` of images.lance."""
        return self._rows[kind].all()

    def pair_names(self, batch: Batch) -> list[str]:
        """Return the id of each pair of a batch, in order."""
        rows = batch.pairs_B.numpy(force=True)
        stored, images = rows[rows >= 0], -1 - rows[rows < 0]
        names = {int(r): p["pair"] for r, p in zip(stored, self.corpus.take_pairs(stored, ["pair"]), strict=True)}
        if len(images):
            known = self.corpus.images_table(["image"]).column("image")
            names |= {-1 - int(row): f"{known[int(row)].as_py()}#image" for row in images}
        return [names[int(row)] for row in rows]

    def __getitem__(self, step: int) -> tuple[Batch, list[BadSample]]:
        """Return this process's part of a step, and the samples that were left out of it.

        Raises:
            CorpusError: not one sample of this part can be used.
        """
        slots = list(enumerate(self.sampler.draw(step)))[self.rank :: self.world_size]
        samples = self._read(slots)
        examples: list[Example] = []
        bad: list[BadSample] = []
        for sample in samples:
            example = self._make(step, sample)
            if isinstance(example, Example):
                examples.append(example)
            else:
                bad.append(example)
        if not examples:
            raise CorpusError(
                f"none of the {len(slots)} samples of step {step} can be used; the first: {bad[0].pair}, stage "
                f"{bad[0].stage}: {bad[0].error}",
                where=self.corpus.path,
                fix="prepare the corpus again",
            )
        return pack(examples, patch_size=self.config.patch_size, step=step), bad

    def _read(self, slots: Sequence[tuple[int, tuple[str, int]]]) -> list[_Sample]:
        """Read the slots' rows and pictures, all at once."""
        rows = self._rows_of(slots)
        paired = [row for row, (_, (kind, _)) in zip(rows, slots, strict=True) if kind != "image"]
        pairs = iter(self.corpus.take_pairs(paired, _COLUMNS) if paired else [])
        found = [
            self._image_pair(row) if kind == "image" else next(pairs)
            for row, (_, (kind, _)) in zip(rows, slots, strict=True)
        ]
        pictures = self.corpus.take_pictures([pair["image_row"] for pair in found])
        return [
            _Sample(slot=slot, kind=kind, row=-1 - row if kind == "image" else row, pair=pair, picture=picture)
            for row, (slot, (kind, _)), pair, picture in zip(rows, slots, found, pictures, strict=True)
        ]

    def _rows_of(self, slots: Sequence[tuple[int, tuple[str, int]]]) -> list[int]:
        """The row of each slot, all slots of a kind at once."""
        rows = np.zeros(len(slots), dtype=np.int64)
        kinds = np.array([kind for _, (kind, _) in slots])
        places = np.array([place for _, (_, place) in slots], dtype=np.int64)
        for kind in set(kinds.tolist()):
            rows[kinds == kind] = self._rows[kind].take(places[kinds == kind])
        found: list[int] = rows.tolist()
        return found

    def _image_pair(self, row: int) -> dict[str, Any]:
        return {"pair": None, "image_row": row, "hash": None}

    def _make(self, step: int, sample: _Sample) -> Example | BadSample:
        """Turn a sample into an example, or say at which stage it turned out to be bad."""
        config, seed, slot, stage = self.config, self.seed, sample.slot, "decode"
        try:
            picture = decode_jpeg_grey(sample.picture) if isinstance(sample.picture, bytes) else sample.picture
            height, width = picture.shape
            stage = "augment"
            view = draw_augmentation(
                config.augment, height, width, config.image_size, brief_rng(seed, "augment", step, slot)
            )
            view_0 = self._view_of_group_0(step, sample, view, height, width)
            image, image_0 = self._see(picture, view), None if view_0 is None else self._see(picture, view_0)
            text_ids = mask = mask_0 = second_view = None
            if sample.kind == "segment":
                stage = "regions"
                drawn = draw_regions(_finite(sample.pair["regions"]), height, width)
                mask, mask_0 = warp_mask(drawn, view), None if view_0 is None else warp_mask(drawn, view_0)
            elif sample.kind == "image":
                rng = brief_rng(seed, "augment:second", step, slot)
                second_view = self._see(
                    picture, draw_augmentation(config.augment, height, width, config.image_size, rng)
                )
            else:
                stage = "text"
                text = self._text(sample, brief_rng(seed, "template", step, slot))
                text_ids = self.tokenizer.encode(text, config.max_text_tokens)
            stage = "group"
            patches = (config.image_size // config.patch_size) ** 2
            ratio = draw_ratio(config.p_separate, brief_rng(seed, "ratio", step, slot))
            count = patches if text_ids is None else len(text_ids)
            bits = draw_groups(patches, count, ratio, brief_rng(seed, "groups", step, slot))
        except _BAD as error:
            return self._bad(sample, stage, error)
        return Example(sample.kind, sample.row, slot, ratio, bits, image, text_ids, mask, second_view, image_0, mask_0)

    def _view_of_group_0(
        self, step: int, sample: _Sample, view: Augmentation, height: int, width: int
    ) -> Augmentation | None:
        """Draw what group 0 sees of the picture; `None` = what group 1 sees."""
        config = self.config
        if config.views == "shared" or sample.kind == "image":
            return None
        rng = brief_rng(self.seed, "augment:group 0", step, sample.slot)
        other = draw_augmentation(config.augment, height, width, config.image_size, rng)
        return replace(view, gain=other.gain, bias=other.bias) if config.views == "exposures" else other

    def _text(self, sample: _Sample, rng: np.random.Generator) -> str:
        if sample.kind != "class":
            return str(sample.pair["text"])
        config = self.config
        findings = sample.pair["findings"]
        passage: str = write_passage(
            labels_of(findings),
            rng,
            uncertain=config.uncertain,
            wording=config.wording,
            details=details_of(findings) if config.details == "worded" else None,
        )
        if not passage:
            raise ValueError("its labels say nothing")
        return passage

    def _bad(self, sample: _Sample, stage: str, error: Exception) -> BadSample:
        pair, digest = sample.pair["pair"], sample.pair["hash"]
        if sample.kind == "image":
            # Looked up for the bad ones only: a run would otherwise hold every image's name.
            known = self.corpus.images_table(["image", "sha256"]).slice(sample.pair["image_row"], 1).to_pylist()[0]
            pair, digest = f"{known['image']}#image", known["sha256"]
        message = " ".join(str(error).split()) or type(error).__name__
        return BadSample(pair=pair, row=sample.row, slot=sample.slot, hash=digest, stage=stage, error=message)


@dataclass(frozen=True, slots=True)
class _Sample:
    """What the corpus holds for one slot: the pair's columns and its picture."""

    slot: int
    kind: str
    row: int
    pair: Mapping[str, Any]
    picture: NDArray[np.uint8] | bytes


def batches(
    dataset: StepDataset,
    first_step: int,
    last_step: int,
    workers: int | None = 0,
    *,
    prefetch: int = 2,
    timeout_seconds: float = 300.0,
) -> Iterator[tuple[int, Batch, list[BadSample]]]:
    """Yield (step, batch, bad samples) for first_step ≤ step < last_step, in order.

    The batches are the same bit for bit whatever the number of workers, and whatever happens to them.

    Args:
        dataset: Makes the batches.
        first_step: First step.
        last_step: Step after the last.
        workers: Processes that make batches; 0 makes them here, when they are asked for; `None` makes them here, by a
            thread, before they are.
        prefetch: Batches that each worker, or the thread, makes ahead.
        timeout_seconds: A worker that sends nothing for so long, while it is waited for, is replaced.

    Raises:
        CorpusError: a batch lost all its samples.
        LoaderError: workers died or hung several times in a row at one step.
    """
    if (workers or 0) < 0 or prefetch < 1:
        raise ConfigError(f"workers = {workers} and prefetch = {prefetch} make no batches", where="train.workers")
    if workers == 0:
        for step in range(first_step, last_step):
            yield step, *dataset[step]
        return
    if workers is None:
        made = made_ahead(dataset.__getitem__, first_step, last_step, ahead=prefetch)
    else:
        made = make_steps(
            dataset.__getitem__,
            first_step,
            last_step,
            workers=workers,
            prefetch=prefetch,
            timeout_seconds=timeout_seconds,
        )
    for step, (batch, bad) in enumerate(made, start=first_step):
        yield step, batch, bad


def _check(config: DataConfig, rank: int, world_size: int) -> None:
    if config.image_size % config.patch_size:
        raise ConfigError(
            f"patches of {config.patch_size} pixels do not tile {config.image_size}",
            where="data.image_size",
            fix=f"use a multiple of {config.patch_size}",
        )
    slots = config.kinds_per_step * config.pairs_per_kind
    if not 0 <= rank < world_size <= slots:
        raise ConfigError(
            f"process {rank} of {world_size} gets none of a step's {slots} pairs",
            where="data.pairs_per_kind",
            fix="start fewer processes, or draw more pairs",
        )


def _finite(regions: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    for region in regions:
        for name in ("box", "points"):
            if not np.isfinite(np.asarray(region.get(name) or (), dtype=np.float64)).all():
                raise ValueError(f"the {name} of a region is not finite")
    return regions
