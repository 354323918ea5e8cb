"""What `umif inspect` found → quality.html and quality.json."""

from __future__ import annotations

import json
import shlex
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import umif
from umif.corpus.manifest import write_atomically
from umif.corpus.regions import draw_regions, finding_colour
from umif.errors import UmifError
from umif.imaging import decode_jpeg_grey
from umif.language import vocabulary
from umif.report.pictures import data_uri, overlay
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from umif.corpus.quality import DatasetCount, Inspection
    from umif.corpus.quality_base import Example, Issue
    from umif.corpus.store import Corpus

_SAMPLES, _SHOWN_EXAMPLES, _TEXT = 6, 12, 420
_SAMPLE_SIDE, _EXAMPLE_SIDE = 300, 190
_SHOWN_LABELS, _SHOWN_FINDINGS = 8, 60
_STATES = ("present", "uncertain", "absent")


def write_inspection(corpus: Corpus, inspection: Inspection, out: str | Path) -> Path:
    """Write the page and its numbers into `out`; return the path of `quality.html`.

    The page holds its pictures and loads nothing. `quality.json` holds what `umif inspect --json` prints.

    Raises:
        UmifError: `out` cannot be written.
    """
    folder = Path(out)
    page = render_inspection(corpus, inspection, command=f"umif inspect {shlex.quote(str(corpus.path))}")
    text = json.dumps(inspection.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    path = folder / "quality.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "quality.json", f"{text}\n".encode("utf-8", "backslashreplace"))
        write_atomically(path, page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UmifError(f"cannot be written: {error.strerror}", where=folder, fix="choose another --out") from error
    return path


def render_inspection(corpus: Corpus, inspection: Inspection, *, command: str) -> str:
    """Return the page of a corpus as HTML."""
    templates = resources.files("umif.report") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((templates / "quality.html.j2").read_text(encoding="utf-8"))
    found = [issue for issue in inspection.issues if issue.count]
    return template.render(
        version=umif.__version__,
        css=Markup("\n".join((templates / name).read_text(encoding="utf-8") for name in ("report.css", "quality.css"))),
        title=corpus.path.resolve().name,
        facts=_facts(inspection),
        only_phantom=all(dataset.name == "phantom" for dataset in inspection.datasets),
        issues=[_issue_row(issue) for issue in inspection.issues],
        found=[_issue(corpus, issue) for issue in found],
        kinds=[kind for kind, count in inspection.pairs.items() if count],
        datasets=[_dataset(dataset) for dataset in inspection.datasets],
        findings=_findings(inspection.findings),
        sheets=[{"name": d.name, "slug": _slug(d.name), "samples": _samples(corpus, d)} for d in inspection.datasets],
        quarantine=inspection.quarantine.counts,
        quarantine_file=inspection.quarantine.path.name,
        added=inspection.added,
        fingerprint=inspection.fingerprint,
        command=command,
    )


def _facts(inspection: Inspection) -> list[tuple[str, str]]:
    by_severity = dict.fromkeys(("defect", "suspect"), 0)
    for issue in inspection.issues:
        if issue.severity in by_severity:
            by_severity[issue.severity] += issue.count
    return [
        (f"{inspection.images:,}", "images"),
        (f"{sum(inspection.pairs.values()):,}", "pairs"),
        (f"{len(inspection.datasets)}", "datasets"),
        (f"{by_severity['defect']:,}", "defects"),
        (f"{by_severity['suspect']:,}", "suspects"),
        (f"{inspection.quarantine.counts['exclude']:,}", "excluded from training"),
        (inspection.fingerprint[:12], "corpus fingerprint"),
    ]


def _issue_row(issue: Issue) -> dict[str, Any]:
    return {
        "check": issue.check,
        "title": issue.title,
        "severity": issue.severity,
        "count": f"{issue.count:,}",
        "found": bool(issue.count),
        "datasets": ", ".join(f"{name} {count:,}" for name, count in sorted(issue.datasets.items())),
    }


def _issue(corpus: Corpus, issue: Issue) -> dict[str, Any]:
    chosen = _spread(issue.examples, _SHOWN_EXAMPLES)
    return {
        **_issue_row(issue),
        "what": issue.what,
        "decision": issue.decision,
        "more": f"{issue.entries - len(chosen):,}" if issue.entries > len(chosen) else "",
        "pictures": any(example.image_rows for example in chosen),
        "examples": [
            {
                "item": example.item,
                "detail": example.detail,
                "pictures": [
                    _thumbnail(corpus, row, _regions_of(corpus, issue, example)) for row in example.image_rows
                ],
                "text": _text_of(corpus, example) if issue.check == "contradiction" else "",
            }
            for example in chosen
        ],
    }


def _spread(examples: Sequence[Example], count: int) -> list[Example]:
    """Return up to `count` examples, taking one of each dataset in turn."""
    by_dataset: dict[str, list[Example]] = {}
    for example in examples:
        by_dataset.setdefault(example.dataset, []).append(example)
    turns = [group[turn] for turn in range(count) for group in by_dataset.values() if turn < len(group)]
    return turns[:count]


def _text_of(corpus: Corpus, example: Example) -> str:
    return next((_cut(pair["text"] or "") for pair in _pair(corpus, example, "text")), "")


def _regions_of(corpus: Corpus, issue: Issue, example: Example) -> list[dict[str, Any]]:
    if issue.check != "region_outside":
        return []
    return [region for pair in _pair(corpus, example, "regions") for region in pair["regions"]]


def _pair(corpus: Corpus, example: Example, column: str) -> list[dict[str, Any]]:
    """Return the pair that an example names, if it names one."""
    where = f"pair = '{_quoted(example.item)}'"
    return [row for batch in corpus.pair_batches([column], where=where) for row in batch.to_pylist()]


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _dataset(dataset: DatasetCount) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "slug": _slug(dataset.name),
        "images": f"{dataset.images:,}",
        "pairs": {kind: f"{count:,}" if count else "–" for kind, count in dataset.pairs.items()},
        "splits": ", ".join(f"{split} {count:,}" for split, count in dataset.splits.items() if count),
        "findings": _findings(dataset.findings)["rows"],
    }


def _findings(findings: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Rows of findings, the most frequent first; bars are shares of the longest."""
    order = sorted(findings, key=lambda name: (-findings[name]["present"], -sum(findings[name].values()), name))
    longest = max((sum(states.values()) for states in findings.values()), default=1)
    rows = [
        {
            "name": _name(name),
            "known": name in vocabulary(),
            "counts": [f"{findings[name][state]:,}" if findings[name][state] else "–" for state in _STATES],
            "bars": [(state, f"{100 * findings[name][state] / longest:.2f}") for state in _STATES],
        }
        for name in order
    ]
    return {"rows": rows[:_SHOWN_FINDINGS], "more": max(len(rows) - _SHOWN_FINDINGS, 0)}


def _samples(corpus: Corpus, dataset: DatasetCount) -> list[dict[str, Any]]:
    """Return a few images of a dataset with everything known of them: those with regions and texts first."""
    rows = corpus.image_rows(datasets=[dataset.name])
    if not len(rows):
        return []
    pairs = corpus.pairs_table(["kind", "image_row"])
    kind, image_row = pairs.column("kind").to_numpy(), pairs.column("image_row").to_numpy()
    rng = keyed_rng(0, f"samples of {dataset.name}")
    chosen: list[int] = []
    groups = [rows[np.isin(rows, image_row[np.isin(kind, kinds)])] for kinds in (["segment"], ["report", "caption"])]
    for group in (*(group[rng.permutation(len(group))][: _SAMPLES // 3] for group in groups), rng.permutation(rows)):
        chosen += [int(row) for row in group if int(row) not in chosen]
    chosen = chosen[:_SAMPLES]
    columns = ["image", "findings", "view", "split", "width", "height", "original_width", "original_height"]
    known = corpus.take_images(chosen, columns)
    own = np.flatnonzero(np.isin(image_row, chosen))
    held: dict[int, list[dict[str, Any]]] = {row: [] for row in chosen}
    for pair in corpus.take_pairs(own, ["kind", "image_row", "text", "regions"]):
        held[pair["image_row"]].append(pair)
    jpegs = corpus.take_jpegs(chosen)
    return [_sample(image, held[row], jpeg) for row, image, jpeg in zip(chosen, known, jpegs, strict=True)]


def _sample(image: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]], jpeg: bytes) -> dict[str, Any]:
    picture, regions = _decoded(jpeg), [region for pair in pairs for region in pair["regions"]]
    if picture is not None:
        picture = _shrunk(picture, _SAMPLE_SIDE)
        if regions:
            picture = overlay(picture, draw_regions(regions, *picture.shape[:2]))
    stated = [label for label in image["findings"] if label["state"] != "not_mentioned"]
    stated.sort(key=lambda label: _STATES.index(label["state"]))
    names = dict.fromkeys((region["finding"], region["raw"]) for region in regions)
    return {
        "item": image["image"],
        "picture": None if picture is None else data_uri(picture),
        "facts": " · ".join(
            part
            for part in (f"{image['original_width']} × {image['original_height']}", image["view"], image["split"])
            if part
        ),
        "labels": [
            {"name": _name(label["finding"] or label["raw"]), "state": label["state"]}
            for label in stated[:_SHOWN_LABELS]
        ],
        "more_labels": max(len(stated) - _SHOWN_LABELS, 0),
        "regions": [
            {"name": _name(finding or raw), "colour": "rgb({}, {}, {})".format(*finding_colour(finding))}
            for finding, raw in names
        ],
        "texts": [{"kind": pair["kind"], "text": _cut(pair["text"])} for pair in pairs if pair["text"]],
    }


def _thumbnail(corpus: Corpus, row: int, regions: Sequence[Mapping[str, Any]] = ()) -> str | None:
    picture = _decoded(corpus.take_jpegs([row])[0])
    if picture is None:
        return None
    picture = _shrunk(picture, _EXAMPLE_SIDE)
    return data_uri(overlay(picture, draw_regions(regions, *picture.shape[:2])) if regions else picture)


def _decoded(jpeg: bytes) -> NDArray[np.uint8] | None:
    """Return a stored picture in three channels; `None` for one that is damaged."""
    try:
        return np.repeat(decode_jpeg_grey(jpeg)[:, :, None], 3, axis=2)
    except (UmifError, ValueError, cv2.error):
        return None


def _shrunk(picture_HW3: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the picture with its longer side at `side` pixels at most."""
    height, width = picture_HW3.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture_HW3
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return np.asarray(cv2.resize(picture_HW3, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _name(finding: str) -> str:
    return vocabulary()[finding].name if finding in vocabulary() else finding


def _cut(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _TEXT else f"{plain[: _TEXT - 1]}…"


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)
