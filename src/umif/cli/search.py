"""`umif search`: the images of a corpus that are nearest to a text or to a picture."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from umif.cli.output import print_json, standard_output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.tasks.search import Hit

_WORDS = 60  # characters of a hit's text in the table


def search(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run folder, a checkpoint or an exported folder.")],
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder of the corpus to search.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Words, a picture's file, or the id of an image.")],
    k: Annotated[int, typer.Option("-k", "--count", min=1, help="How many images to find.")] = 10,
    kind: Annotated[
        Literal["auto", "text", "image"], typer.Option("--as", help="What QUERY is, where it could be either.")
    ] = "auto",
    split: Annotated[
        Literal["train", "val", "test"] | None, typer.Option(help="Search this split; all unless told.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="Search this dataset; all unless told.")] = None,
    other_patients: Annotated[
        bool, typer.Option("--other-patients", help="Of an image of the corpus: leave out its own patient.")
    ] = False,
    weights: Annotated[Literal["teacher", "student"], typer.Option(help="Whose features, of a run.")] = "teacher",
    engine: Annotated[
        Literal["auto", "exact", "faiss"],
        typer.Option(help="auto: FAISS for over a million images, where it is installed."),
    ] = "auto",
    out: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write what was found as a page.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Find the images of a corpus that are nearest to words, to a picture, or to one of its own images."""
    from umif.corpus import Corpus
    from umif.corpus.progress import stages
    from umif.encoder.load import load_encoder
    from umif.errors import InputError
    from umif.report.search_page import write_search
    from umif.tasks.search import read_query
    from umif.tasks.search import search as find

    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{out.name!r} is no page", where="--out", fix="give a name that ends in .html")
    data = Corpus.open(corpus)
    asked = read_query(data, query, kind)
    with standard_output(reserved=as_json), stages() as progress:
        encoder = load_encoder(model, weights)
        hits = find(
            encoder,
            data,
            asked,
            k,
            split=split,
            dataset=dataset,
            other_patients=other_patients,
            engine=engine,
            progress=lambda done, total: progress("encoding images", done, total),
        )
        page = None if out is None else write_search(hits, asked, data, encoder, out)
    if as_json:
        print_json(
            {
                "query": {"kind": asked.kind, "words": asked.words},
                "hits": [hit.to_json() for hit in hits],
                "weights_sha256": encoder.weights_sha256,
                "corpus": data.fingerprint,
                "page": None if page is None else str(page),
            }
        )
    else:
        _print_hits(hits)
        if page is not None:
            print(page)


def _print_hits(hits: Sequence[Hit]) -> None:
    """Print plain lines: an id that a table breaks over two lines cannot be copied."""
    width = max((len(hit.image) for hit in hits), default=0)
    shown = [", ".join(hit.findings) or "–" for hit in hits]
    findings = max((len(text) for text in shown), default=0)
    for hit, known in zip(hits, shown, strict=True):
        text = " ".join(hit.texts[0].split()) if hit.texts else ""
        short = text if len(text) <= _WORDS else text[: _WORDS - 1] + "…"
        line = f"{hit.rank:>3}  {hit.cosine:+.4f}  {hit.image:<{width}}  {hit.split:<5}  {known:<{findings}}  {short}"
        print(line.rstrip())
