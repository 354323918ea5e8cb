"""Real radiographs: cut-out masks land where the same masks, drawn in full by somebody else, have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2

from umif.corpus import Corpus, PrepareConfig, prepare, region_mask

ORGANS = ("Left Lung", "Right Lung", "Cardiomediastinum")


def test_cut_out_masks_of_organs_agree_with_their_full_pictures(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "covid-19-chest-xray-segmentations-dataset"
    config = PrepareConfig(shorter_side=4096)  # at their own size, so that nothing but the placing differs
    manifest = prepare(tmp_path / "corpus", [("covid-segmentations", root)], config, workers=1, progress=False)
    assert manifest.images == manifest.readers[0].seen == 79
    assert manifest.dropped_regions == 0
    corpus = Corpus.open(tmp_path / "corpus")
    images = corpus.images_table(["source", "height", "width"]).to_pylist()
    overlaps = []
    for pair in corpus.take_pairs(corpus.pair_rows("segment")):
        image = images[pair["image_row"]]
        drawn: dict[str, Any] = {}
        for region in pair["regions"]:
            mask = region_mask(region, image["height"], image["width"])
            drawn[region["raw"]] = mask | drawn.get(region["raw"], False)
        for raw, mask in drawn.items():
            organ = raw.removeprefix("COVID-19 ")
            if organ in ORGANS:
                name = f"{organ.replace(' ', '_')}.png"
                full = cv2.imread(str(root / "masks_full" / Path(image["source"]).stem / name), cv2.IMREAD_GRAYSCALE)
                assert full is not None
                overlaps.append((mask & (full > 0)).sum() / (mask | (full > 0)).sum())
    assert len(overlaps) == 235  # 79 × 3 organs, two of them without a mask
    # The cut-outs were resized apart from their pictures: edges may differ by a pixel, places may not.
    assert min(overlaps) > 0.95
