"""A small folder in the native layout of MedICaT: one JSON object a line, figures of all kinds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

HASH = "26491ab76c6e8d6acc582e71bb6b3b5f5601ccc2"
LIST = "release/s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl"


def figure(number: int, caption: str | None, *, radiology: Any = True, references: Any = None) -> dict[str, Any]:
    return {
        "pdf_hash": HASH, "fig_key": f"Figure{number}", "fig_uri": f"3-Figure{number}-1.png", "s2_caption": caption,
        "s2orc_caption": caption and caption.lower(), "s2orc_references": references, "radiology": radiology,
        "scope": False, "predicted_type": "Medical images",
        "oa_info": {"doi": "10.1/x", "oa": {"is_oa": True, "license": None}},
    }  # fmt: skip


ENTRIES = [
    figure(
        1,
        "Figure 1. (A) Chest radiograph on admission\u2028and (B) after drainage.",
        references=[
            "A chest X-ray showed a large effusion (Figure 1 ).",
            "A chest X-ray showed a large effusion (Figure 1 ).",
            "Computed tomography confirmed it (Figure 1, Figure 2).",
            "(Figure 1)",
        ],
    ),
    figure(2, "Figure 2. CT of the chest."),
    figure(3, "Fig. 3 Radiograph of the knee.", radiology=False),
    figure(4, "Radiograph and MRI of the knee."),
    figure(5, None),
    figure(6, "Plain film of the abdomen."),
    figure(7, "Skull x‐ray of a boy."),
    figure(7, "Skull x‐ray of a boy."),
]
REQUIRED = ("release",)
GOLDEN: dict[str, list[tuple[str, str]]] = {f"{HASH}_3-Figure{number}-1.png": [] for number in (1, 7)}
EXCLUDED = {
    "caption names a picture of another kind": 1,
    "caption names no radiograph": 1,
    "caption of fewer than 3 words": 1,
    "figure is not marked as radiology": 1,
    "image file is missing": 1,
    "not in the list": 1,
}
MALFORMED = (
    (LIST, HASH, HASH[:-1], TableError, "public.jsonl:1"),
    (LIST, "3-Figure2-1.png", "../2.png", TableError, "public.jsonl:2"),
    (LIST, '"radiology": false', '"radiology": 0', TableError, "public.jsonl:3"),
    (LIST, '"s2_caption": "Radiograph and MRI', '"s2_caption": ["", "', TableError, "public.jsonl:4"),
    (LIST, '"s2orc_references": [', '"s2orc_references": "[', TableError, "public.jsonl:1"),
    (LIST, '"s2_caption": "Skull', '"s2_caption": "A skull', TableError, "public.jsonl:8"),
)


def build(root: Path) -> None:
    (root / "release" / "figures").mkdir(parents=True)
    (root / LIST).write_text("".join(json.dumps(entry) + "\n" for entry in ENTRIES))
    (root / "subcaptions_public.jsonl").write_text("{}\n")
    names = [f"{HASH}_3-Figure{number}-1.png" for number in (1, 2, 3, 4, 7, 8)]
    for name in names:
        Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10)).save(root / "release" / "figures" / name)
