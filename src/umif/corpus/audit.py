"""What is trained on against what is tested on: every overlap between the two, by name, by file and by sight.

A leak is a way (`how`) in which images of one dataset on the left (trained on) meet images of one on the right (tested
on). It has a stable id, `how:left>right`, by which a person acknowledges it; one that nobody has acknowledged makes the
audit fail. The ways are counted apart, because they say different things: a shared patient is a leak without a shared
picture, and a twin by sight without a shared name is one that no list of ids shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from umif.corpus.lineage import trace
from umif.corpus.quarantine import excluded_images
from umif.corpus.schema import SPLITS
from umif.corpus.shortcuts import Shortcut, measure_shortcuts
from umif.corpus.twins import Films, find_twins, pixel_hashes
from umif.errors import ConfigError, EmptyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from umif.corpus.lineage import Traced
    from umif.corpus.store import Corpus
    from umif.corpus.twins import Progress, Twin

HOW = ("patient", "study", "image_id", "lineage", "file", "pixels", "near-duplicate", "features")
EXAMPLES = 24
_COLUMNS = ("image", "dataset", "source", "sha256", "patient", "study", "split", "official_split")
_Pairs = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Images that something is tested on: a corpus and which of its splits; `name` is what the user called it."""

    name: str
    corpus: Corpus
    splits: tuple[str, ...] = ("test",)


@dataclass(frozen=True, slots=True)
class Example:
    """One pair of a leak: images by name and row, and how far their fine detail agrees, where that was looked at."""

    left: str
    right: str
    left_row: int
    right_row: int
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class Leak:
    """Images of dataset `left` that meet images of dataset `right` in one way.

    Attributes:
        how: One of `HOW`.
        left, right: Datasets trained on and tested on.
        against: The evaluation's name.
        count: Images on the right that are met.
        left_count: Images on the left that meet them.
        acknowledged: Whether a person has said that they know.
        note: What the lineage says, if that is how.
        examples: Up to 24 pairs, the first ones.
    """

    how: str
    left: str
    right: str
    against: str
    count: int
    left_count: int
    acknowledged: bool = False
    note: str = ""
    examples: tuple[Example, ...] = ()

    @property
    def id(self) -> str:
        """The name under which it is acknowledged."""
        return f"{self.how}:{self.left}>{self.right}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        examples = [
            {"left": each.left, "right": each.right} | ({} if each.agreement is None else {"agreement": each.agreement})
            for each in self.examples
        ]
        names = ("how", "left", "right", "count", "acknowledged", "left_count", "against", "note")
        return {"id": self.id, **{name: getattr(self, name) for name in names}, "examples": examples}


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A known relation of datasets without a map of ids.

    `found_by_sight` says how many of the right images were met by sight; `None` = nobody looked.
    """

    left: str
    right: str
    against: str
    note: str
    found_by_sight: int | None


@dataclass(frozen=True, slots=True)
class TornUnit:
    """Things of a dataset that lie in several splits; `column` is `split` (ours) or `official_split` (its own)."""

    dataset: str
    unit: str
    column: str
    count: int
    of: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found. `clean` = no leak that nobody has acknowledged."""

    corpus: str
    fingerprint: str
    trained: tuple[str, ...]
    trained_images: int
    evaluations: tuple[dict[str, Any], ...]
    checks: tuple[str, ...]
    leaks: tuple[Leak, ...]
    open_questions: tuple[OpenQuestion, ...]
    torn: tuple[TornUnit, ...]
    shortcuts: tuple[Shortcut, ...]
    unused: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether every leak is acknowledged."""
        return all(leak.acknowledged for leak in self.leaks)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        plain = {name: list(getattr(self, name)) for name in ("trained", "evaluations", "checks", "unused")}
        rows = {name: [_fields(row) for row in getattr(self, name)] for name in ("open_questions", "torn", "shortcuts")}
        return {
            "leaks": [leak.to_json() for leak in self.leaks],
            "clean": self.clean,
            "corpus": self.corpus,
            "fingerprint": self.fingerprint,
            "trained_images": self.trained_images,
            **plain,
            **rows,
        }


@dataclass(slots=True)
class Side:
    """The images of one side, as columns; made once, so that pixels are hashed once."""

    films: Films
    rows: list[dict[str, Any]] = field(default_factory=list)
    pixels: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        corpus: Corpus,
        splits: Sequence[str],
        datasets: Sequence[str] | None,
        progress: Progress,
        *,
        pixels: bool,
    ) -> Side:
        """Read the images of some splits, and of some datasets if given; not what the quarantine list excludes."""
        for split in splits:
            if split not in SPLITS:
                raise ConfigError(f"there is no split {split!r}", fix=f"choose from {', '.join(SPLITS)}")

        def inside(row: dict[str, Any]) -> bool:
            return row["split"] in splits and (datasets is None or row["dataset"] in datasets)

        table, (excluded, _) = corpus.images_table(_COLUMNS).to_pylist(), excluded_images(corpus)
        wanted = (place for place, row in enumerate(table) if inside(row) and not excluded[place])
        places = np.array(list(wanted), dtype=np.int64)
        rows = [{**table[place], "image_id": table[place]["image"].partition("/")[2]} for place in places]
        films = Films(corpus, places)
        return cls(films, rows, pixel_hashes(films, progress) if pixels else [])


def audit_corpus(
    corpus: Corpus,
    evaluations: Sequence[Evaluation],
    *,
    trained: Sequence[str] = ("train",),
    datasets: Sequence[str] | None = None,
    acknowledged: Iterable[str] = (),
    sight: bool = True,
    features: Callable[[Films, Films, Progress], list[Twin]] | None = None,
    shortcuts: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> AuditReport:
    """Compare what is trained on with what is tested on.

    Args:
        corpus: What is trained on.
        evaluations: What is tested on; the corpus's own test images are an evaluation like others.
        trained: Splits of the corpus that are trained on.
        datasets: Datasets of the corpus that are trained on; all unless told.
        acknowledged: Ids of leaks that a person knows of.
        sight: Look for near-duplicates too, and compare decoded pixels.
        features: A further search by sight, by an encoder's features.
        shortcuts: Also measure how well findings can be told without looking at the picture.
        progress: Called with what is done, how far, of how much.

    Raises:
        EmptyError: no evaluation, or a side without an image.
        ConfigError: no such split.
    """
    if not evaluations:
        raise EmptyError("an audit needs something that is tested on", fix="name a corpus or a task: --against …")
    known = set(acknowledged)
    left = _side(corpus, trained, datasets, progress, sight)
    leaks: list[Leak] = []
    questions: list[OpenQuestion] = []
    for evaluation in evaluations:
        right = _side(evaluation.corpus, evaluation.splits, None, progress, sight)
        found, asked = _compare(left, right, evaluation, sight, features, progress)
        leaks += [replace(leak, acknowledged=leak.id in known) for leak in found]
        questions += asked
    checks = [
        how for how in HOW if (how not in ("pixels", "near-duplicate") or sight) and (how != "features" or features)
    ]
    return AuditReport(
        corpus=corpus.path.name,
        fingerprint=corpus.fingerprint,
        trained=tuple(trained),
        trained_images=len(left.rows),
        evaluations=tuple(_described(each) for each in evaluations),
        checks=tuple(checks),
        leaks=tuple(leaks),
        open_questions=tuple(questions),
        torn=tuple(torn_units(corpus)),
        shortcuts=tuple(measure_shortcuts(corpus)) if shortcuts else (),
        unused=tuple(sorted(known - {leak.id for leak in leaks})),
    )


def torn_units(corpus: Corpus) -> list[TornUnit]:
    """Return patients, studies and files with images in several splits, by dataset; our splits and official ones."""
    table = corpus.images_table(_COLUMNS).to_pylist()
    found = []
    for column in ("split", "official_split"):
        for unit, name in (("patient", "patient"), ("study", "study"), ("file", "sha256")):
            splits: dict[tuple[str, str], set[str]] = {}
            member: dict[tuple[str, str], str] = {}
            for row in table:
                if row[column] is not None and row[name] is not None:
                    key = (row["dataset"], f"{row['patient']} {row[name]}" if unit == "study" else row[name])
                    splits.setdefault(key, set()).add(row[column])
                    member.setdefault(key, row["image"])
            for dataset in sorted({dataset for dataset, _ in splits}):
                torn = [member[key] for key, in_splits in splits.items() if key[0] == dataset and len(in_splits) > 1]
                if torn:
                    total = sum(key[0] == dataset for key in splits)
                    found.append(TornUnit(dataset, unit, column, len(torn), total, tuple(sorted(torn)[:5])))
    return found


def _side(
    corpus: Corpus, splits: Sequence[str], datasets: Sequence[str] | None, progress: Progress, sight: bool
) -> Side:
    side = Side.of(corpus, splits, datasets, progress, pixels=sight)
    if not side.rows:
        raise EmptyError(
            f"the corpus has no image in {' or '.join(splits)}",
            where=corpus.path,
            fix="name other splits, or prepare more",
        )
    return side


def _compare(
    left: Side,
    right: Side,
    evaluation: Evaluation,
    sight: bool,
    features: Callable[[Films, Films, Progress], list[Twin]] | None,
    progress: Progress,
) -> tuple[list[Leak], list[OpenQuestion]]:
    same = left.films.corpus.fingerprint == right.films.corpus.fingerprint
    found: dict[str, tuple[_Pairs, dict[tuple[int, int], float]]] = {
        how: (_equal(_values(left, how), _values(right, how)), {}) for how in ("patient", "study", "image_id", "file")
    }
    searches: list[tuple[str, Callable[[Films, Films, Progress], list[Twin]]]] = []
    if sight:
        found["pixels"] = (_equal(left.pixels, right.pixels), {})
        searches.append(("near-duplicate", find_twins))
    if features is not None:
        searches.append(("features", features))
    for how, search in searches:
        values = {(twin.left, twin.right): twin.agreement for twin in search(left.films, right.films, progress)}
        found[how] = (sorted(values), values)
    if same:  # an image that is trained and tested on is met by its name; it is no twin of itself
        left_rows, right_rows = left.films.rows, right.films.rows
        for how in ("pixels", "near-duplicate", "features", "file"):
            if how in found:
                pairs, values = found[how]
                found[how] = ([pair for pair in pairs if left_rows[pair[0]] != right_rows[pair[1]]], values)
    leaks = [
        leak for how, (pairs, values) in found.items() for leak in _leaks(how, pairs, values, left, right, evaluation)
    ]
    traced = trace(left.rows, right.rows)
    for each in traced:
        leaks += _leaks("lineage", list(each.pairs), {}, left, right, evaluation, each.relation.note)
    seen = None if not sight else [pair for how in ("pixels", "near-duplicate") for pair in found[how][0]]
    questions = [_question(each, seen, left, right, evaluation) for each in traced if each.open]
    return sorted(leaks, key=lambda leak: (leak.left, leak.right, HOW.index(leak.how))), questions


def _values(side: Side, how: str) -> list[str | None]:
    if how == "study":
        # A study's key is unique within the patients' dataset only.
        return [None if row["study"] is None else f"{row['patient']} {row['study']}" for row in side.rows]
    column = {"patient": "patient", "image_id": "image", "file": "sha256"}[how]
    return [row[column] for row in side.rows]


def _equal(left: Sequence[str | None], right: Sequence[str | None]) -> _Pairs:
    """Return all pairs of places of equal values. Of a patient with many images, each right one meets the first 16."""
    places: dict[str, list[int]] = {}
    for place, value in enumerate(left):
        if value is not None and len(known := places.setdefault(value, [])) < 16:
            known.append(place)
    return [(one, other) for other, value in enumerate(right) if value is not None for one in places.get(value, ())]


def _leaks(
    how: str,
    pairs: _Pairs,
    values: Mapping[tuple[int, int], float],
    left: Side,
    right: Side,
    evaluation: Evaluation,
    note: str = "",
) -> list[Leak]:
    grouped: dict[tuple[str, str], _Pairs] = {}
    for one, other in pairs:
        grouped.setdefault((left.rows[one]["dataset"], right.rows[other]["dataset"]), []).append((one, other))
    return [
        Leak(
            how=how,
            left=names[0],
            right=names[1],
            against=evaluation.name,
            count=len({other for _, other in group}),
            left_count=len({one for one, _ in group}),
            note=note,
            examples=tuple(_example(pair, values.get(pair), left, right) for pair in group[:EXAMPLES]),
        )
        for names, group in sorted(grouped.items())
    ]


def _example(pair: tuple[int, int], agreement: float | None, left: Side, right: Side) -> Example:
    one, other = pair
    names = left.rows[one]["image"], right.rows[other]["image"]
    return Example(*names, int(left.films.rows[one]), int(right.films.rows[other]), agreement)


def _question(traced: Traced, seen: _Pairs | None, left: Side, right: Side, evaluation: Evaluation) -> OpenQuestion:
    count = None
    if seen is not None:
        datasets = (traced.left, traced.right)
        met = {b for a, b in seen if (left.rows[a]["dataset"], right.rows[b]["dataset"]) == datasets}
        count = len(met)
    return OpenQuestion(traced.left, traced.right, evaluation.name, traced.relation.note, count)


def _described(evaluation: Evaluation) -> dict[str, Any]:
    excluded, _ = excluded_images(evaluation.corpus)
    rows = sum(int((~excluded[evaluation.corpus.image_rows(split)]).sum()) for split in evaluation.splits)
    return {
        "name": evaluation.name,
        "splits": list(evaluation.splits),
        "images": rows,
        "fingerprint": evaluation.corpus.fingerprint,
    }


def _fields(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}
