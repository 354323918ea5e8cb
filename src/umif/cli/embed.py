"""`umif embed`: pictures or texts → a Parquet table of features."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from umif.cli.output import print_json, standard_output
from umif.errors import EmptyError, ImageError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from umif.encoder import Encoder

Space = Literal["cls", "joint", "patches"]
_DICOM_MAGIC = (128, b"DICM")


def embed(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run folder, a checkpoint or an exported folder.")],
    out: Annotated[Path, typer.Option(metavar="FILE.parquet", help="Table to write.")],
    inputs: Annotated[
        list[Path] | None, typer.Argument(metavar="[INPUT …]", help="Pictures (PNG, JPEG, TIFF, DICOM), or folders.")
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Texts instead of pictures, one a line; blank lines count not.")
    ] = None,
    space: Annotated[
        Space,
        typer.Option(
            help="cls; joint: where words and pictures are compared, length one; patches: each patch, by row."
        ),
    ] = "cls",
    weights: Annotated[Literal["teacher", "student"], typer.Option(help="Whose features, of a run.")] = "teacher",
    batch: Annotated[int, typer.Option(min=1, help="Pictures or texts at a time.")] = 64,
    skip: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out pictures that cannot be read, and name them.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a table that is there already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Turn pictures or texts into features: one row each, `input` and `features`; what made them is in the metadata."""
    _check_usage(inputs or [], texts, out, space, overwrite=overwrite)
    words = None if texts is None else _lines(texts)
    with standard_output(reserved=as_json):
        from umif.encoder.load import load_encoder

        encoder = load_encoder(model, weights)
        if words is not None and encoder.tokenizer is None:
            raise InputError("this encoder has no tokeniser, so it cannot read words", where=model)
        names: Sequence[str] = [str(path) for path in picture_files(inputs or [])] if words is None else words
        left_out: list[dict[str, str]] = []
        parts = _features(encoder, names, space, batch, left_out if skip else None, reads=words is not None)
        rows, width = _write(out, parts, _metadata(encoder, space, "image" if words is None else "text"), len(names))
    answer = {"out": str(out), "rows": rows, "width": width, "left_out": left_out}
    if as_json:
        print_json({**answer, "weights_sha256": encoder.weights_sha256})
        return
    for each in left_out:
        print(f"left out: {each['input']}: {each['reason']}")
    print(f"{out}: {rows} rows of {width} features" + (f", {len(left_out)} left out" if left_out else ""))


def picture_files(inputs: Sequence[Path]) -> list[Path]:
    """Return the pictures: files as given, of folders what is in them, however deep, in the order of names.

    In a folder pictures are known by their suffix, DICOM files without one by their first bytes; hidden files and
    folders are left out.

    Raises:
        InputError: there is no such file or folder.
        EmptyError: there is no picture.
    """
    from umif.readers.folders import PICTURE_SUFFIXES, is_file

    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
                if not hidden and is_file(file) and (file.suffix.lower() in PICTURE_SUFFIXES or _is_dicom(file)):
                    found.append(file)
        elif is_file(path):
            found.append(path)
        else:
            raise InputError("there is no such file or folder", where=path, fix="check the path")
    if not found:
        raise EmptyError(
            "there is no picture", where=", ".join(map(str, inputs)), fix="give files, or a folder of them"
        )
    return list(dict.fromkeys(found))


def _is_dicom(file: Path) -> bool:
    if file.suffix and not file.suffix[1:].isdigit():  # a bare UID ends in digits
        return False
    offset, magic = _DICOM_MAGIC
    try:
        with file.open("rb") as opened:
            return opened.read(offset + len(magic))[offset:] == magic
    except OSError:
        return False


def _check_usage(inputs: Sequence[Path], texts: Path | None, out: Path, space: Space, *, overwrite: bool) -> None:
    if bool(inputs) == (texts is not None):
        what = "pictures and texts cannot go into one table" if inputs else "there is nothing to embed"
        raise InputError(what, fix="give pictures as INPUT, or texts by --texts FILE")
    if out.suffix.lower() not in (".parquet", ".pq"):
        raise InputError(f"{out.name!r} is no table", where="--out", fix="give a name that ends in .parquet")
    if out.exists() and not overwrite:
        raise InputError("is there already", where=out, fix="choose another --out, or add --overwrite")
    if space == "patches" and texts is not None:
        raise InputError("texts have no patches", where="--space", fix="choose cls or joint")


def _lines(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=file, fix="check the path") from None
    except UnicodeDecodeError:
        raise InputError("is no text in UTF-8", where=file, fix="save it as UTF-8") from None
    words = [line for line in lines if line]
    if not words:
        raise EmptyError("there is no text", where=file)
    return words


def _features(
    encoder: Encoder,
    names: Sequence[str],
    space: Space,
    batch: int,
    left_out: list[dict[str, str]] | None,
    *,
    reads: bool,
) -> Iterator[tuple[list[str], NDArray[Any], int]]:
    """Yield names, their features (n, width), and how many inputs were taken for them.

    Unreadable pictures are named in `left_out`; where that is `None`, the first one is an error.
    """

    def encoded(some: list[str]) -> NDArray[Any]:
        if space == "patches":
            patches: NDArray[Any] = encoder.encode_patches(some).flatten(1).numpy()
            return patches
        features = encoder.encode_texts(some) if reads else encoder.encode_images(some)
        values: NDArray[Any] = (encoder.unit_vectors(features) if space == "joint" else features).numpy()
        return values

    for start in range(0, len(names), batch):
        some = list(names[start : start + batch])
        kept = some if reads or left_out is None else _readable(encoder, some, left_out)
        if kept:
            yield kept, encoded(kept), len(some)


def _readable(encoder: Encoder, names: list[str], left_out: list[dict[str, str]]) -> list[str]:
    kept = []
    for name in names:
        try:
            encoder.preprocessing.file_or_array(name)
        except (ImageError, InputError) as error:
            left_out.append({"input": name, "reason": error.what})
        else:
            kept.append(name)
    return kept


def _metadata(encoder: Encoder, space: Space, kind: str) -> dict[str, str]:
    import json

    import umif

    rows, columns = encoder.grid
    told: dict[str, Any] = {
        "umif": umif.__version__,
        "model": encoder.name,
        "weights_sha256": encoder.weights_sha256,
        "provenance": encoder.provenance,
        "preprocessing": encoder.preprocessing.to_json(),
        "space": space,
        "kind": kind,
    }
    if space == "patches":
        told["shape"] = [rows, columns, encoder.width]
    return {"umif": json.dumps(told, sort_keys=True)}


def _write(
    out: Path, parts: Iterator[tuple[list[str], NDArray[Any], int]], metadata: dict[str, str], total: int
) -> tuple[int, int]:
    """Write the table as it comes and put it in place when it is whole; return rows and features a row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from umif.corpus.progress import stages
    from umif.errors import StorageError

    making = out.with_name(f".{out.name}.making")
    writer: Any = None
    rows = width = done = 0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with stages() as progress:
            for names, features_ND, taken in parts:
                width = features_ND.shape[1]
                if writer is None:
                    fields = [("input", pa.string()), ("features", pa.list_(pa.float32(), width))]
                    writer = pq.ParquetWriter(making, pa.schema(fields, metadata=metadata))
                values = pa.FixedSizeListArray.from_arrays(pa.array(features_ND.reshape(-1), pa.float32()), width)
                writer.write_table(pa.table([pa.array(names, pa.string()), values], schema=writer.schema))
                rows, done = rows + len(names), done + taken
                progress("embedding", done, total)
        if writer is None:
            raise EmptyError("no picture could be read", fix="leave --skip-unreadable out to see why")
        writer.close()
        making.replace(out)
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror or error}", where=out, fix="make room") from error
    finally:
        if writer is not None:
            writer.close()
        making.unlink(missing_ok=True)
    return rows, width
