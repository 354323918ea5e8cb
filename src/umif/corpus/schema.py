"""The only home of the corpus's columns, units and values.

A corpus is a folder:

    corpus.json       manifest, written last: format, fingerprint, readers with their accounts, counts (`Manifest`)
    images.lance/     one row per image (`IMAGES`), re-encoded once as 8-bit grey JPEG
    pairs.lance/      one row per (image, supervision) pair (`PAIRS`)
    ledger.jsonl      one line per item that gave no row: dataset, item, stage, reason, where

Geometry is stored as fractions of the image's width and height, so it fits any drawing size.
"""

from __future__ import annotations

import pyarrow as pa

FORMAT = 1

# Pair kinds, in the order of docs/method.md section 1. `image` pairs are made at training time, never stored.
PAIR_KINDS = ("report", "caption", "class", "segment")
ALL_KINDS = (*PAIR_KINDS, "image")
SPLITS = ("train", "val", "test")
LABEL_STATES = ("present", "absent", "uncertain", "not_mentioned")
ANSWER_TYPES = ("open", "closed")
REGION_SHAPES = ("box", "ellipse", "polygon", "rle", "mask")

# raw: the dataset's own spelling; finding: the vocabulary's id, null where it knows none; state: LABEL_STATES.
FINDING = pa.struct([("raw", pa.string()), ("finding", pa.string()), ("state", pa.string())])

# box: x, y, width, height; points: x0, y0, x1, y1, …; both as fractions of width and height.
# runs: COCO column-major run lengths for a grid of `size` = [height, width].
# mask: 1-bit PNG of the whole image at stored size.
REGION = pa.struct(
    [
        ("raw", pa.string()),
        ("finding", pa.string()),
        ("shape", pa.string()),
        ("box", pa.list_(pa.float32())),
        ("points", pa.list_(pa.float32())),
        ("runs", pa.list_(pa.int32())),
        ("size", pa.list_(pa.int32())),
        ("mask", pa.binary()),
    ]
)

# answer_type: ANSWER_TYPES or null; question_type: the dataset's own spelling; official_split: SPLITS or null, as one
# image may have questions of several parts.
QUESTION = pa.struct(
    [
        ("question", pa.string()),
        ("answer", pa.string()),
        ("answer_type", pa.string()),
        ("question_type", pa.string()),
        ("official_split", pa.string()),
    ]
)

IMAGES = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),  # "<dataset>/<image_id>", unique
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # path of the raw file, relative to the reader's root
        pa.field("sha256", pa.string(), nullable=False),  # of the raw file's bytes, hexadecimal
        pa.field("jpeg", pa.large_binary(), nullable=False),  # 8-bit grey
        pa.field("height", pa.int32(), nullable=False),  # of the stored picture, pixels
        pa.field("width", pa.int32(), nullable=False),
        pa.field("original_height", pa.int32(), nullable=False),
        pa.field("original_width", pa.int32(), nullable=False),
        pa.field("patient", pa.string(), nullable=False),  # "<namespace>/<key>"; unique over datasets
        pa.field("study", pa.string()),
        pa.field("view", pa.string()),
        pa.field("sex", pa.string()),  # F, M or null
        pa.field("age_years", pa.float32()),
        pa.field("official_split", pa.string()),  # the dataset's own, SPLITS or null
        pa.field("split", pa.string(), nullable=False),  # ours, by patient: SPLITS
        pa.field("findings", pa.list_(FINDING), nullable=False),
        pa.field("questions", pa.list_(QUESTION)),  # not in corpora made before there were any
    ]
)

PAIRS = pa.schema(
    [
        pa.field("pair", pa.string(), nullable=False),  # "<image>#<kind>", "<image>#report2" for a second text
        pa.field("kind", pa.string(), nullable=False),  # PAIR_KINDS
        pa.field("image", pa.string(), nullable=False),
        pa.field("image_row", pa.int64(), nullable=False),  # row of images.lance
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("text", pa.string()),  # report and caption pairs
        pa.field("text_source", pa.string()),  # report, notes, caption, template, llm
        pa.field("findings", pa.list_(FINDING), nullable=False),
        pa.field("regions", pa.list_(REGION), nullable=False),  # segment pairs
        pa.field("patient", pa.string(), nullable=False),
        pa.field("study", pa.string()),
        pa.field("view", pa.string()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("source", pa.string()),  # file:line of the supervision
        pa.field("hash", pa.string(), nullable=False),  # SHA-256 over image bytes and supervision, hexadecimal
    ]
)
