"""How many pictures a second does one core decode, make smaller and store, beside plain Pillow doing the same?

    python benchmarks/prepare_speed.py [--from FOLDER …] --json benchmarks/results/prepare_speed.json

Both get the same files' bytes in turn, a round each, in one process with one thread. Ours is what `umif prepare` does
with a picture: checks, decode, shorter side to 256 by area, JPEG of quality 95. Pillow's is open, convert("L"), resize
to the same size by LANCZOS, save; and once more with `draft`, its own scaled decoding of JPEG, which checks nothing
for completeness. A second is one of this process's CPU time, so other work on the machine changes little.

Pictures are phantoms, drawn at 512 pixels, enlarged, with noise of 2 grey levels: the PNGs are then as large as those
of NIH ChestX-ray14 (0.4 MB at 1024 pixels). JPEGs come at two qualities: 90, and 95, nearer to MIMIC-CXR-JPG's bits a
pixel. With --from also real folders: their first pictures by name, whatever PNG, JPEG or TIFF they are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from PIL import Image, features

from umif.corpus import PrepareConfig
from umif.corpus.phantom import draw_phantom
from umif.corpus.shards import Encoding, small_jpeg
from umif.imaging import DecodeLimits

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE, QUALITY = PrepareConfig().shorter_side, PrepareConfig().jpeg_quality
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
DRAWN, NOISE = 512, 2.0


def phantom(index: int, size: int) -> Image.Image:
    """Return a phantom of (size, size) whose noise compresses as a radiograph's does."""
    drawn = draw_phantom(0, index, DRAWN).image.astype(np.float32)
    large = cv2.resize(drawn, (size, size), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(index).normal(0, NOISE, (size, size))
    return Image.fromarray(np.clip(large + noise + 0.5, 0, 255).astype(np.uint8))


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    sink = BytesIO()
    picture.save(sink, kind, **options)
    return sink.getvalue()


def ours(data: bytes) -> bytes:
    return small_jpeg(data, "", Encoding(SIDE, QUALITY, DecodeLimits()))[0]


def ours_scaled(data: bytes) -> bytes:
    return small_jpeg(data, "", Encoding(SIDE, QUALITY, DecodeLimits(), jpeg_scaling=True))[0]


def pillow(data: bytes, draft: bool = False) -> bytes:
    image = Image.open(BytesIO(data))
    shorter, (width, height) = min(image.size), image.size
    scale = min(1.0, SIDE / shorter)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if draft:
        image.draft("L", size)
    return saved(image.convert("L").resize(size, Image.Resampling.LANCZOS), "JPEG", quality=QUALITY)


def pillow_draft(data: bytes) -> bytes:
    return pillow(data, draft=True)


VARIANTS: dict[str, Callable[[bytes], bytes]] = {
    "umif": ours,
    "umif scaled": ours_scaled,  # prepare --jpeg-scaling
    "pillow": pillow,
    "pillow draft": pillow_draft,
}


def measure(source: str, files: list[bytes], rounds: int) -> list[dict[str, Any]]:
    """Return a row per variant; the rounds of all variants are interleaved."""
    variants = {name: run for name, run in VARIANTS.items() if " " not in name or files[0][:2] == b"\xff\xd8"}
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():
        run(files[0])
    for _ in range(rounds):
        for name, run in variants.items():
            start = time.process_time()
            for data in files:
                run(data)
            rates[name].append(len(files) / (time.process_time() - start))
    rows = []
    for name, found in rates.items():
        ratios = [rate / other for rate, other in zip(found, rates["pillow"], strict=True)]
        rows.append(
            {
                "source": source,
                "variant": name,
                "ratio_to_pillow": round(statistics.median(ratios), 2),
                "ratio_low": round(min(ratios), 2),
                "ratio_high": round(max(ratios), 2),
                "images_per_s_per_core": round(statistics.median(found), 1),
                "low": round(min(found), 1),
                "high": round(max(found), 1),
                "files": len(files),
                "mean_bytes": round(statistics.mean(map(len, files))),
                "rounds": rounds,
            }
        )
    return rows


def real_files(folder: Path, count: int) -> list[bytes]:
    """Return the first pictures of a folder that both can read."""
    found: list[bytes] = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file() and len(found) < count:
            data = path.read_bytes()
            try:
                ours(data), pillow(data)
            except Exception as error:
                print(f"left out: {path.name} ({type(error).__name__})")
            else:
                found.append(data)
    return found


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=12, help="of each kind")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--from", dest="folders", type=Path, nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    load = os.getloadavg()[0]
    count = arguments.pictures
    small, large = ([phantom(index, size) for index in range(count)] for size in (1024, 2048))
    sources = {
        "1024 px PNG, 8 bits": [saved(picture, "PNG") for picture in small],
        "2048 px JPEG, quality 90": [saved(picture, "JPEG", quality=90) for picture in large],
        "2048 px JPEG, quality 95": [saved(picture, "JPEG", quality=95) for picture in large],
    }
    sources |= {f"{folder.name} (real)": real_files(folder, count) for folder in arguments.folders}
    results = [row for source, files in sources.items() if files for row in measure(source, files, arguments.rounds)]
    print(f"{'source':<34}{'variant':<14}{'ratio to Pillow':>22}{'images/s a core':>24}{'kB':>8}")
    for row in results:
        ratio = f"{row['ratio_to_pillow']:.2f} ({row['ratio_low']:.2f}–{row['ratio_high']:.2f})"
        rate = f"{row['images_per_s_per_core']:.0f} ({row['low']:.0f}–{row['high']:.0f})"
        print(f"{row['source']:<34}{row['variant']:<14}{ratio:>22}{rate:>24}{row['mean_bytes'] / 1000:>8.0f}")
    if arguments.json:
        answer = {
            "question": "pictures a second a core (CPU time): decode, shorter side to 256, JPEG of quality 95",
            "hardware": {
                "machine": platform.machine(),
                "processor": processor(),
                "cores": os.cpu_count(),
                "load_before": round(load, 1),
            },
            "versions": {
                "pillow": Image.__version__,
                "libjpeg_turbo": features.version_feature("libjpeg_turbo"),
                "pillow_zlib": features.version("zlib"),
                "isal": _version("isal"),
                "cv2": cv2.__version__,
                "numpy": np.__version__,
            },
            "results": results,
        }
        arguments.json.write_text(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
