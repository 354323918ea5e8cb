"""An audit → audit.html, with pairs side by side to look at, and audit.json."""

from __future__ import annotations

import base64
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import umif
from umif.corpus.alignment import SAME_FILM
from umif.corpus.manifest import write_atomically
from umif.errors import UmifError
from umif.imaging import decode_jpeg_grey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.corpus.audit import AuditReport, Evaluation, Leak
    from umif.corpus.store import Corpus

_PAIRS = 6  # shown of each leak
_SIDE = 320  # pixels, of the longer side


def write_audit(report: AuditReport, corpus: Corpus, evaluations: Sequence[Evaluation], out: str | Path) -> Path:
    """Write `audit.html` and `audit.json` into `out`; return the path of the page.

    Raises:
        UmifError: `out` cannot be written.
    """
    folder = Path(out)
    page = render_audit(report, corpus, evaluations)
    path = folder / "audit.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(folder / "audit.json", f"{text}\n".encode("utf-8", "backslashreplace"))
        write_atomically(path, page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UmifError(f"cannot be written: {error.strerror}", where=folder, fix="choose another --out") from error
    return path


def render_audit(report: AuditReport, corpus: Corpus, evaluations: Sequence[Evaluation]) -> str:
    """Return the page as HTML."""
    templates = resources.files("umif.report") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((templates / "audit.html.j2").read_text(encoding="utf-8"))
    open_leaks = [leak for leak in report.leaks if not leak.acknowledged]
    return template.render(
        version=umif.__version__,
        css=Markup((templates / "report.css").read_text(encoding="utf-8")),
        report=report,
        lead=f"What is trained on ({', '.join(report.trained)}) against what is tested on.",
        facts=[
            (f"{report.trained_images:,}", "images trained on"),
            (f"{sum(each['images'] for each in report.evaluations):,}", "images tested on"),
            (str(len(report.leaks)), "kinds of leak"),
            (str(len(open_leaks)), "not acknowledged"),
            (report.fingerprint[:12], "corpus fingerprint"),
        ],
        verdict="No leak." if not report.leaks else "Every leak is acknowledged." if report.clean else "It leaks.",
        verdict_more=_more(report),
        same_film=SAME_FILM,
        groups=_groups(report.leaks, corpus, evaluations),
    )


def _more(report: AuditReport) -> str:
    if not report.leaks:
        return "What was looked for was not found; what the audit cannot see is said in the docs."
    if report.clean:
        return "Numbers on these images say less than they seem to; reports say so beside them."
    return "Numbers on these images would be taken partly on what was trained on: leave the images out, or acknowledge."


def _groups(leaks: Sequence[Leak], corpus: Corpus, evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    corpora = {each.name: each.corpus for each in evaluations}
    groups = []
    for leak in leaks:
        shown = leak.examples[:_PAIRS]
        lefts = _pictures(corpus, [each.left_row for each in shown])
        rights = _pictures(corpora[leak.against], [each.right_row for each in shown])
        pairs = [
            {
                "left": example.left,
                "right": example.right,
                "agreement": example.agreement,
                "left_picture": left,
                "right_picture": right,
            }
            for example, left, right in zip(shown, lefts, rights, strict=True)
        ]
        groups.append({"leak": leak, "pairs": pairs})
    return groups


def _pictures(corpus: Corpus, rows: Sequence[int]) -> list[str]:
    return [_data_uri(jpeg) for jpeg in corpus.take_jpegs(np.array(rows, dtype=np.int64))]


def _data_uri(jpeg: bytes) -> str:
    picture = decode_jpeg_grey(jpeg)
    scale = min(1.0, _SIDE / max(picture.shape))
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
