"""Any data set that is sorted into one folder per class: `[train|val|test/]<class>/<picture>`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.errors import LayoutError
from umif.readers.base import Card, Finding, LabelState, Reader, Record
from umif.readers.folders import pictures
from umif.readers.picture_index import IMAGE_FOLDERS, MASK_FOLDERS, in_mask_folder
from umif.readers.table_columns import SPLITS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Split

# Classes that state that nothing is found, so that every other class of the same folder is absent.
NORMAL = frozenset({"normal", "healthy", "health", "no finding", "no findings"})
_NEGATED = re.compile(r"(?:not?|non|without)\s+(.+)")
_HIDDEN = (".", "__")  # such as .thumbnails and __MACOSX
_NO_CLASSES = frozenset({*IMAGE_FOLDERS, *MASK_FOLDERS, "labels", "annotations"})


@register("reader", "folder")
class Folder(Reader):
    """Reader of pictures in one folder per class.

    The folder's name is the label, present. Two kinds of names say more: a folder that means that nothing was found
    (`normal`, `healthy`, `no finding`) makes every other class absent, and `not X`, `no X`, `non X` or `without X`
    beside a folder `X` makes X absent. Nothing else is taken for a negative: who has an effusion may have an enlarged
    heart as well. Folders within a class are walked through. Nothing says who the patients are.
    """

    card: ClassVar[Card] = Card(
        title="Your own pictures, one folder per class",
        licence="that of your data",
        citation="that of your data",
        images=None,
        kinds=("class",),
        how_to_get="your own: sort the pictures into one folder per class",
        layout=(
            "<class>/**/*.png                  one folder per class; jpg, dcm, tif and bmp as well\n"
            "{train,val,test}/<class>/**/*.png   (or so, if you have official splits)"
        ),
        overlaps=("patients are not known, so each picture counts as a patient of its own",),
        excluded="pictures beside the class folders; pictures in folders of masks or in hidden folders",
        checked_on="layout",
        checked_against="generated folders with and without splits",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per picture in a class folder, by path."""
        found = []
        splits = self._splits()
        for relative, path in pictures(self, self.root):
            split, parts = None, relative.split("/")
            if any(part.startswith(_HIDDEN) for part in parts[:-1]):
                self.exclude(relative, "folder is hidden")
                continue
            if splits and len(parts) > 1:
                split, parts = SPLITS[parts[0].casefold()], parts[1:]
            label = parts[0].strip()
            if len(parts) < 2:
                self.exclude(relative, "picture is in no class folder")
            elif in_mask_folder("/".join(parts[1:])):
                self.exclude(relative, "folder holds masks")
            elif not label:
                self.exclude(relative, "folder has no name")
            else:
                found.append((relative, path, label, split))
        classes = tuple(sorted({label for _, _, label, _ in found}))
        self._check(classes, [relative for relative, *_ in found], splits=splits)
        self.note("nothing says who the patients are: each picture counts as a patient of its own", len(found))
        findings = {label: findings_of(label, classes) for label in classes}
        for relative, path, label, split in found:
            yield self._record(relative, path, split, findings[label])

    def _record(self, relative: str, path: Path, split: Split | None, findings: tuple[Finding, ...]) -> Record:
        return Record(image=path, image_id=relative, split=split, findings=findings, where=relative)

    def _splits(self) -> bool:
        """Whether the upper folders are official splits; all of those that hold folders must then be."""
        folders = sorted(p.name for p in self.root.iterdir() if p.is_dir() and not p.name.startswith(_HIDDEN))
        splits = [name for name in folders if name.casefold() in SPLITS]
        if splits and len(splits) < len(folders):
            other = next(name for name in folders if name.casefold() not in SPLITS)
            raise LayoutError(
                f"holds the split {splits[0]!r} beside {other!r}, which is no split",
                where=self.root,
                fix=f"name {other!r} train, val or test, or move it out of this folder",
            )
        return bool(splits)

    def _check(self, classes: tuple[str, ...], found: list[str], *, splits: bool) -> None:
        if not classes:
            raise LayoutError(
                "no picture lies in a class folder here",
                where=self.root,
                fix=f"expected layout:\n{self.card.layout}\nFor pictures without classes list them in a table and "
                "take the reader 'table'.",
            )
        wrong = next((name for name in classes if name.casefold() in _NO_CLASSES), None)
        if wrong is not None:
            raise LayoutError(
                f"the folder {wrong!r} is no class",
                where=self.root,
                fix="give the folder that holds the class folders; for pictures with masks or labels in files take "
                "the reader 'table' or 'coco'",
            )
        if len(classes) == 1:
            deepest = all(name.count("/") > (2 if splits else 1) for name in found)
            if deepest:  # then the folder given is one level too high
                raise LayoutError(
                    f"{classes[0]!r} is the only class, and its pictures lie in folders within it",
                    where=self.root,
                    fix=f"give the folder that holds the class folders, perhaps {self.root / found[0].split('/')[0]}",
                )
            self.note("there is one class only")


def findings_of(label: str, classes: tuple[str, ...]) -> tuple[Finding, ...]:
    """Return what the class `label` says of a picture, among all the classes of its data set."""
    by_words = {_words(name): name for name in classes}
    negated = _NEGATED.fullmatch(_words(label))
    if negated and negated[1] in by_words:
        return (Finding(by_words[negated[1]], LabelState.ABSENT),)
    present = Finding(label, LabelState.PRESENT)
    if _words(label) not in NORMAL:
        return (present,)
    others = [name for words, name in sorted(by_words.items()) if words not in NORMAL and not _is_negation(words)]
    return (present, *(Finding(name, LabelState.ABSENT) for name in others))


def _words(name: str) -> str:
    return " ".join(re.split(r"[\s_\-]+", name.casefold())).strip()


def _is_negation(words: str) -> bool:
    return _NEGATED.fullmatch(words) is not None
