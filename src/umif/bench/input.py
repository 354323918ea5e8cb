"""What the input costs: pictures of a corpus read, decoded, cropped and augmented, beside what users run instead.

Every way goes through the same pictures, one thread, and takes turns with the others. A variant says how far it goes:

    decode    stored bytes → a grey picture
    crop      … → a random crop, resized to `size`
    augment   … turned by up to 5°, brightness and contrast changed as well
    gather    stored pixels → one padded array, for a device that augments

The other loaders crop as their users have them crop: ImageFolder and WebDataset by torchvision's RandomResizedCrop,
open_clip by its own training transform (in colour, bicubic, normalised), which is the only one that it has.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import tarfile
import tempfile
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from umif.bench.hardware import describe_hardware
from umif.bench.timing import paired_ratio, take_turns
from umif.corpus import Corpus, add_pixels, prepare
from umif.imaging import AugmentConfig, centre_view, decode_jpeg_grey, draw_augmentation, warp_image
from umif.imaging.device import Unwarped, stack_unwarped
from umif.rng import brief_rng, keyed_rng
from umif.tokens import Batch, DataConfig, StepDataset, TextTokenizer, vocabulary_texts
from umif.tokens.workers import make_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Way = Callable[[], object]

VARIANTS = ("decode", "crop", "augment", "gather")
_CROP = AugmentConfig(rotation_degrees=0.0, brightness=0.0, contrast=0.0)
_BATCH = 128
_SCALING_STEPS = 48


def measure_input(
    corpus: str | Path | None = None, *, images: int = 256, size: int = 224, rounds: int = 5, progress: bool = False
) -> dict[str, Any]:
    """Return `hardware`, `pictures` (what was read), `results` and `workers`, as plain JSON values.

    Args:
        corpus: Whose pictures; without one, phantoms are drawn and prepared at a shorter side of 256 pixels.
        images: Pictures that each way goes through in its turn.
        size: Side of the crop, pixels.
        rounds: Turns that count.
        progress: Show bars on standard error.
    """
    import cv2

    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            opened = Corpus.open(_phantoms(folder, images) if corpus is None else Path(corpus))
            jpegs = opened.take_jpegs(np.arange(min(images, opened.manifest.images)))
            # A copy of its own, so that measuring leaves nothing in somebody's corpus.
            files = _as_files(folder / "classes", jpegs)
            prepare(folder / "small", [("folder", folder / "classes")], workers=1, progress=False)
            add_pixels(folder / "small", progress=False)
            ways = _own(opened, Corpus.open(folder / "small"), len(jpegs), size)
            ways |= _others(folder, files, jpegs, size)
            named = {f"{source}/{variant}": way for (source, variant), way in ways.items()}
            seconds = take_turns(named, rounds=rounds, title="reading pictures", progress=progress)
            return {
                "hardware": describe_hardware(),
                "pictures": _describe(jpegs, size),
                "results": [_row(source, variant, len(jpegs), seconds) for source, variant in ways],
                "workers": _scaling(opened, size, rounds, progress),
            }
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def _phantoms(folder: Path, images: int) -> Path:
    from umif.corpus.phantom import write_phantom

    write_phantom(folder / "raw", images, size=512)
    prepare(folder / "corpus", [("phantom", folder / "raw")], workers=1, progress=False)
    return folder / "corpus"


def _as_files(classes: Path, jpegs: list[bytes]) -> list[Path]:
    """Write the JPEGs as a folder of two classes."""
    files = []
    for index, jpeg in enumerate(jpegs):
        file = classes / "ab"[index % 2] / f"{index:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg)
        files.append(file)
    return files


# ------------------------------------------------------------------------------------------------------ our ways
def _own(stored: Corpus, copied: Corpus, count: int, size: int) -> dict[tuple[str, str], Way]:
    rows = keyed_rng(0, "bench").permutation(count)
    whole = centre_view(size, size, size)  # which view is wanted makes no difference to gathering

    def read(corpus: Corpus) -> list[NDArray[np.uint8]]:
        found: list[NDArray[np.uint8]] = []
        for start in range(0, count, _BATCH):
            part = corpus.take_pictures(rows[start : start + _BATCH])
            found += [decode_jpeg_grey(each) if isinstance(each, bytes) else each for each in part]
        return found

    def gather(corpus: Corpus) -> list[NDArray[np.uint8]]:
        pictures = [Unwarped(picture, whole) for picture in read(corpus)]
        return [stack_unwarped(pictures[start : start + _BATCH])[0] for start in range(0, count, _BATCH)]

    def view(corpus: Corpus, config: AugmentConfig) -> list[NDArray[np.uint8]]:
        found = []
        for slot, picture in enumerate(read(corpus)):
            height, width = picture.shape
            drawn = draw_augmentation(config, height, width, size, brief_rng(0, "augment", 0, slot))
            found.append(warp_image(picture, drawn))
        return found

    ways: dict[tuple[str, str], Way] = {}
    plain = Corpus(stored.path, stored.manifest)
    plain.ignore_pixels()
    for source, corpus in (("umif, JPEG", plain), ("umif, pixel copy", copied)):
        if source == "umif, JPEG":
            ways[source, "decode"] = partial(read, corpus)
        ways[source, "crop"] = partial(view, corpus, _CROP)
        ways[source, "augment"] = partial(view, corpus, AugmentConfig())
    ways["umif, pixel copy", "gather"] = partial(gather, copied)
    return ways


# ------------------------------------------------------------------------------------------------- others' ways
def _others(folder: Path, files: list[Path], jpegs: list[bytes], size: int) -> dict[tuple[str, str], Way]:
    ways: dict[tuple[str, str], Way] = {
        ("pillow", variant): partial(_pillow, files, variant, size) for variant in ("decode", "crop", "augment")
    }
    ways["torchvision ImageFolder", "crop"] = _image_folder(folder / "classes", size)
    with contextlib.suppress(ImportError):
        shard = _shard(folder / "shard.tar", jpegs)
        ways["webdataset", "crop"] = _webdataset(shard, _torchvision_crop(size), "pill")
        with contextlib.suppress(ImportError):
            ways["open_clip", "crop"] = _webdataset(shard, _open_clip_transform(size), "pilrgb")
    return ways


def _pillow(files: list[Path], variant: str, size: int) -> list[NDArray[np.uint8]]:
    from PIL import Image

    crop = _torchvision_crop(size)
    found = []
    for slot, file in enumerate(files):
        with Image.open(file) as opened:
            picture = opened.convert("L")
        if variant == "crop":
            picture = crop(picture)
        elif variant == "augment":
            drawn = draw_augmentation(
                AugmentConfig(), picture.height, picture.width, size, keyed_rng(0, "augment", 0, slot)
            )
            back = np.linalg.inv(np.vstack([drawn.matrix, [0, 0, 1]]))[:2]
            # Pillow counts from pixels' corners.
            back[:, 2] += 0.5 - back[:, :2].sum(axis=1) * 0.5
            picture = picture.transform((size, size), Image.Transform.AFFINE, back.reshape(-1).tolist(), resample=2)
            picture = picture.point([min(max(round(grey * drawn.gain + drawn.bias), 0), 255) for grey in range(256)])
        found.append(np.asarray(picture))
    return found


def _torchvision_crop(size: int) -> Any:
    from torchvision import transforms

    return transforms.RandomResizedCrop(size, scale=AugmentConfig().scale, antialias=True)


def _image_folder(classes: Path, size: int) -> Way:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    chain = transforms.Compose([transforms.Grayscale(), _torchvision_crop(size), transforms.PILToTensor()])
    dataset = ImageFolder(str(classes), transform=chain)
    return lambda: [dataset[index] for index in range(len(dataset))]


def _shard(file: Path, jpegs: list[bytes]) -> Path:
    with tarfile.open(file, "w") as tar:
        for index, jpeg in enumerate(jpegs):
            for ending, data in (("jpg", jpeg), ("txt", b"a radiograph")):
                info = tarfile.TarInfo(f"{index:06d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return file


def _webdataset(shard: Path, transform: Any, decoder: str) -> Way:
    import webdataset

    def read() -> list[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of single shards that are read without workers
            dataset = webdataset.WebDataset(str(shard), shardshuffle=False, empty_check=False)
            return list(
                dataset.decode(decoder).to_tuple("jpg", "txt").map_tuple(lambda image: _array(transform(image)))
            )

    return read


def _array(image: Any) -> Any:
    return np.asarray(image) if not hasattr(image, "numpy") else image


def _open_clip_transform(size: int) -> Any:
    import open_clip

    return open_clip.image_transform(size, is_train=True)


# ------------------------------------------------------------------------------------------------ what came of it
def _row(source: str, variant: str, count: int, seconds: dict[str, list[float]]) -> dict[str, Any]:
    spent = seconds[f"{source}/{variant}"]
    # Nothing of Pillow's gathers stored pixels; what the device will do there, Pillow does here.
    against = seconds[f"pillow/{'augment' if variant == 'gather' else variant}"]
    return {
        "source": source,
        "variant": variant,
        "images_per_s_per_core": round(count / statistics.median(spent), 1),
        "ratio_to_pillow": paired_ratio(against, spent).to_json(),
    }


def _describe(jpegs: list[bytes], size: int) -> dict[str, Any]:
    return {
        "count": len(jpegs),
        "stored": " × ".join(map(str, decode_jpeg_grey(jpegs[0]).shape)),
        "jpeg_bytes": round(statistics.mean(map(len, jpegs))),
        "size": size,
    }


@dataclass(frozen=True, slots=True)
class _Made:
    """What a worker process makes and the processor seconds that it has spent so far; `sent` or not, it is made."""

    dataset: StepDataset
    sent: bool

    def __call__(self, step: int) -> tuple[Batch | None, int, int, float]:
        batch, _ = self.dataset[step]
        return batch if self.sent else None, len(batch), os.getpid(), time.process_time()


@dataclass(frozen=True, slots=True)
class _Turn:
    """One turn: pairs a second by the clock, and processor milliseconds a batch of the makers and of who takes in."""

    pairs_per_s: float
    maker_ms: float
    main_ms: float


def _scaling(corpus: Corpus, size: int, rounds: int, progress: bool) -> dict[str, Any]:
    """Packed batches of all kinds by one worker process and by two, and by as many that keep what they make.

    Those tell what the machine itself allows, whose cores share memory and the power they may draw.
    """
    tokenizer = TextTokenizer.train(vocabulary_texts(corpus))
    config = DataConfig(image_size=size - size % 16, pairs_per_kind=16)
    dataset = StepDataset(corpus.path, tokenizer, config, seed=0)
    turns: dict[tuple[bool, int], list[_Turn]] = {(sent, count): [] for sent in (True, False) for count in (1, 2)}

    def way(sent: bool, count: int) -> Way:
        return lambda: turns[sent, count].append(_turn(_Made(dataset, sent), count))

    ways = {f"{sent} {count}": way(sent, count) for sent, count in turns}
    take_turns(ways, rounds=rounds, title="making batches", progress=progress)
    counted = {key: each[1:] for key, each in turns.items()}  # the first round is not counted
    told = [_compare(counted[sent, 1], counted[sent, 2]) for sent in (True, False)]
    return {**told[0], "unsent": told[1]}


def _turn(make: _Made, count: int) -> _Turn:
    """Time steps in the midst of a series: workers have started, and none is at its end."""
    warm_up = 2 * count
    last = warm_up + _SCALING_STEPS
    pairs, spent = 0, 0.0
    until: dict[int, float] = {}
    made = make_steps(make, 0, last + 2 * count, workers=count)
    start = main = 0.0
    for step, (batch, length, process, seconds) in zip(range(last), made, strict=False):
        if step >= warm_up:
            pairs += length
            spent += seconds - until.get(process, 0.0)
        until[process] = seconds
        if batch is not None:
            _read(batch)
        if step == warm_up - 1:
            start, main = time.perf_counter(), time.process_time()
    took, main = time.perf_counter() - start, time.process_time() - main
    made.close()  # type: ignore[attr-defined]  # an iterator that is a generator
    return _Turn(pairs / took, 1e3 * spent / _SCALING_STEPS, 1e3 * main / _SCALING_STEPS)


def _read(batch: Batch) -> None:
    """Read a byte of every page: what a step would do, or copying to a device."""
    for tensor in (batch.images_NHW, batch.masks_MHW3, batch.group1.rows_T, batch.group0.rows_T, batch.full.rows_T):
        tensor.reshape(-1).view(torch.uint8)[::4096].sum()


def _compare(one: list[_Turn], two: list[_Turn]) -> dict[str, Any]:
    def median(name: str, digits: int) -> dict[str, float]:
        rows = {"1": one, "2": two}
        return {
            count: round(statistics.median(getattr(turn, name) for turn in turns), digits)
            for count, turns in rows.items()
        }

    return {
        "pairs_per_s": median("pairs_per_s", 1),
        "ratio": paired_ratio([turn.pairs_per_s for turn in two], [turn.pairs_per_s for turn in one]).to_json(),
        "processor_ms_a_batch": {"worker": median("maker_ms", 2), "main": median("main_ms", 2)},
    }
