"""About a thousand images of NIH ChestX-ray14 at 64 × 64 pixels, sorted into normal and abnormal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.errors import LayoutError
from umif.readers.base import Card, Finding, LabelState, Reader, Record
from umif.readers.folders import pictures
from umif.readers.nih_chestxray14 import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator

NORMAL = "normal"
PARTS = ("train", "valid", "test")
STATES = {"0_normal": LabelState.PRESENT, "1_abnormal": LabelState.ABSENT}
_NAME = re.compile(r"(\d{8})_\d{3}\.png")


@register("reader", "nih1000-64px")
class Nih1000(Reader):
    """Reader of the folders `NIH1000`.

    `0_normal` and `1_abnormal` become `normal`, present or absent; which finding makes an image abnormal is not said.
    Patients are those of ChestX-ray14, by the file name. The folders' parts share patients, so they are no split.
    """

    card: ClassVar[Card] = Card(
        title="NIH1000: small images of ChestX-ray14",
        licence="not stated; the NIH's terms for ChestX-ray14",
        citation="Wang et al., ChestX-ray8: Hospital-scale Chest X-ray Database, CVPR 2017; selection and folders by "
        "dinbe0527/kcr2019d1, 2019",
        images=None,
        access="open",
        kinds=("class",),
        how_to_get="git clone https://github.com/dinbe0527/kcr2019d1",
        layout="[NIH1000/]{train,valid,test}/{0_normal,1_abnormal}/<NIH name>.png     64 × 64",
        overlaps=(
            "nih-chestxray14: the same images at 1/16 of the size (same patient keys)",
            "its own parts: 27 of 220 patients seen are in more than one",
        ),
        excluded="pictures in other folders, or under other names than the NIH's; an image that is there twice",
        checked_on="images",
        checked_against="902 images; of 7 that nih-chestxray14 has here as well one is normal here and has a finding "
        "there",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per image, by path."""
        base = self.root / "NIH1000" if (self.root / "NIH1000").is_dir() else self.root
        if not any((base / part / label).is_dir() for part in PARTS for label in STATES):
            fix = f"expected layout:\n{self.card.layout}"
            raise LayoutError("no folder train/0_normal or the like here", where=self.root, fix=fix)
        seen: set[str] = set()
        for relative, path in pictures(self, base):
            parts, match = path.relative_to(base).parts, _NAME.fullmatch(path.name)
            if len(parts) != 3 or parts[0] not in PARTS or parts[1] not in STATES:
                self.exclude(relative, "folder is not part/class")
            elif match is None:
                self.exclude(relative, "file name is not the NIH's")
            elif path.name in seen:
                self.exclude(relative, "the same image is in another folder")
            else:
                seen.add(path.name)
                yield Record(
                    image=path,
                    image_id=relative,
                    patient=match[1],
                    patient_namespace=NAMESPACE,
                    findings=(Finding(NORMAL, STATES[parts[1]]),),
                    where=relative,
                )
