"""A small folder in the native layout of the chest_xray folders of Kermany et al."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

FILES = (
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/NORMAL/NORMAL2-IM-0385-0001-0002.jpeg",
    "train/PNEUMONIA/person1_bacteria_2.jpeg",
    "train/PNEUMONIA/person1_virus_6.jpeg",
    "val/PNEUMONIA/scan7.jpeg",
    "test/PNEUMONIA/person1_virus_12.jpeg",
    "test/OTHER/person9_virus_1.jpeg",
)
REQUIRED = ()
BACTERIA = [("PNEUMONIA", "present"), ("BACTERIAL PNEUMONIA", "present"), ("VIRAL PNEUMONIA", "absent")]
VIRUS = [("PNEUMONIA", "present"), ("BACTERIAL PNEUMONIA", "absent"), ("VIRAL PNEUMONIA", "present")]
NORMAL = [("NORMAL", "present"), ("PNEUMONIA", "absent")]
GOLDEN = {
    FILES[0]: NORMAL,
    FILES[1]: NORMAL,
    FILES[2]: BACTERIA,
    FILES[3]: VIRUS,
    FILES[4]: [("PNEUMONIA", "present")],
    FILES[5]: VIRUS,
}
EXCLUDED = {"folder is neither NORMAL nor PNEUMONIA": 1}
MALFORMED = ()


def build(root: Path) -> None:
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(root / name)
    (root / "train" / ".DS_Store").write_bytes(b"\0")
    (root / "__MACOSX").mkdir()
