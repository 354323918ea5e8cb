"""What a search found → one page that stands alone, the query and its neighbours side by side."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import umif
from umif.corpus.manifest import write_atomically
from umif.errors import StorageError
from umif.imaging import decode_jpeg_grey
from umif.report.pictures import data_uri

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.encoder import Encoder
    from umif.tasks.search import Hit, Query

_SIDE = 320  # pixels, of the longer side
_TEXTS = 2  # shown of a hit
_CHARACTERS = 320


def write_search(hits: Sequence[Hit], query: Query, corpus: Corpus, encoder: Encoder, out: str | Path) -> Path:
    """Write the page; return its path.

    Raises:
        StorageError: it cannot be written.
    """
    path = Path(out)
    page = render_search(hits, query, corpus, encoder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror or error}", where=path, fix="choose another --out"
        ) from error
    return path


def render_search(hits: Sequence[Hit], query: Query, corpus: Corpus, encoder: Encoder) -> str:
    """Return the page as HTML."""
    templates = resources.files("umif.report") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((templates / "search.html.j2").read_text(encoding="utf-8"))
    jpegs = corpus.take_jpegs(np.array([hit.row for hit in hits], dtype=np.int64))
    return template.render(
        version=umif.__version__,
        css=Markup((templates / "report.css").read_text(encoding="utf-8")),
        query=query,
        query_picture=_query_picture(query, corpus, encoder),
        facts=[
            (str(len(hits)), "images found"),
            (encoder.name, "model"),
            (encoder.weights_sha256[:12], "weights"),
            (corpus.fingerprint[:12], "corpus fingerprint"),
        ],
        hits=[
            {
                "hit": hit,
                "picture": _small(decode_jpeg_grey(jpeg)),
                "texts": [_cut(text) for text in hit.texts[:_TEXTS]],
            }
            for hit, jpeg in zip(hits, jpegs, strict=True)
        ],
    )


def _query_picture(query: Query, corpus: Corpus, encoder: Encoder) -> str | None:
    if query.row is not None:
        return _small(decode_jpeg_grey(corpus.take_jpegs([query.row])[0]))
    return _small(encoder.preprocessing.file_or_array(query.words)) if query.kind == "file" else None


def _small(picture_HW: NDArray[np.uint8]) -> str:
    scale = min(1.0, _SIDE / max(picture_HW.shape))
    size = (max(1, round(picture_HW.shape[1] * scale)), max(1, round(picture_HW.shape[0] * scale)))
    small = cv2.resize(picture_HW, size, interpolation=cv2.INTER_AREA)
    return data_uri(np.repeat(small[:, :, None], 3, axis=2).astype(np.uint8))


def _cut(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _CHARACTERS else words[: _CHARACTERS - 1] + "…"
