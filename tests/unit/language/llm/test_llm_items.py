"""Files in, tables out; damaged rows are named by file and line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from umif.errors import ConfigError, LayoutError, TableError
from umif.language.llm import Generated, load_prompts, own_prompts, read_generated, read_items, table_bytes
from umif.language.llm.prompts import DATA
from umif.readers.base import LabelState

if TYPE_CHECKING:
    from pathlib import Path

P, A, U = LabelState.PRESENT, LabelState.ABSENT, LabelState.UNCERTAIN
ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "Sin\u2028derrame, ni \"nada\"", "labels": {"Effusion": "absent", "Edema": "uncertain"}},
    {"id": "b", "text": "", "labels": ["Mass", ["Edema", "absent"], {"finding": "Nodule", "state": "uncertain"}]},
    {"id": "c", "text": "x", "labels": "Mass; Edema=absent|Nodule=uncertain", "dataset": "padchest"},
    {"id": "d", "text": "y", "labels": '[["Mass", "present"]]'},
    {"image_id": "e", "text": None},
]  # fmt: skip


def test_rows_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "i.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), encoding="utf-8")
    items = read_items(tmp_path / "i.jsonl", "mine")
    assert [item.id for item in items] == list("abcde")
    assert [item.dataset for item in items] == ["mine", "mine", "padchest", "mine", "mine"]
    assert items[0].labels == (("Effusion", A), ("Edema", U))
    assert items[1].labels == items[2].labels == (("Mass", P), ("Edema", A), ("Nodule", U))
    assert items[3].labels == (("Mass", P),)
    assert items[0].text == ROWS[0]["text"]
    assert items[0].where == f"{tmp_path / 'i.jsonl'}:1"

    table = pa.table({"id": ["a", "b"], "text": ["u", None], "labels": [[("Mass", "present")], []]}, pa.schema(
        [("id", pa.string()), ("text", pa.string()), ("labels", pa.map_(pa.string(), pa.string()))]
    ))  # fmt: skip
    pq.write_table(table, tmp_path / "i.parquet")
    assert [item.labels for item in read_items(tmp_path / "i.parquet")] == [(("Mass", P),), ()]
    (tmp_path / "i.csv").write_text('\ufeffid,text,labels\na,"two\nlines",Mass=present\n', encoding="utf-8")
    assert [(i.text, i.labels) for i in read_items(tmp_path / "i.csv")] == [("two\nlines", (("Mass", P),))]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"id": "a"}\n{"id"', r"x.jsonl:2: is not valid JSON"),
        ("x.jsonl", "[1]", r"x.jsonl:1: is no JSON object"),
        ("x.jsonl", '{"text": "a"}', r"x.jsonl:1: has no id"),
        ("x.jsonl", '{"id": "a", "text": 3}', "'text' is no text"),
        ("x.jsonl", '{"id": "a"}\n\n{"id": "a"}', r"x.jsonl:3: the id 'a' stands in .*:1 already"),
        ("x.jsonl", '{"id": "a", "labels": {"Mass": "maybe"}}', "has the state 'maybe'"),
        ("x.jsonl", '{"id": "a", "labels": 3}', "'labels' is no mapping"),
        ("x.jsonl", '{"id": "a", "labels": [3]}', "no finding with a state"),
        ("x.csv", "id,text\na\n", r"x.csv:2: has 1 cells under 2"),
        ("x.csv", 'id,text\na,"b\n', r"x.csv:2: is no valid row"),
        ("x.parquet", "no parquet", "cannot be read as Parquet"),
        ("x.xlsx", "", "is no table of texts"),
    ],
)
def test_damaged_files_are_refused_by_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(LayoutError, match=message):
        read_items(tmp_path / name)
    with pytest.raises(LayoutError):
        read_items(tmp_path / f"no-{name}")


def generated(**changes: Any) -> Generated:
    values = {"id": "a", "dataset": "padchest", "kind": "report", "text": "No\u2028effusion.", "source": "llm"}
    values |= {"job": "translate", "model": "m", "prompt": "f" * 64, "request": "e" * 64, "labels": "[]"}
    return Generated(**{**values, **changes})


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl"])
def test_tables_come_back_as_they_were_and_can_be_an_input(tmp_path: Path, name: str) -> None:
    rows = [generated(), generated(job="polish"), generated(id="b", labels='[["Mass", "present"]]')]
    (tmp_path / name).write_bytes(table_bytes(rows, tmp_path / name))
    assert read_generated(tmp_path / name) == rows
    (tmp_path / name).write_bytes(table_bytes(rows[1:], tmp_path / name))
    items = read_items(tmp_path / name)
    assert [(item.id, item.dataset, item.labels) for item in items] == [
        ("a", "padchest", ()),
        ("b", "padchest", (("Mass", P),)),
    ]
    (tmp_path / name).write_bytes(table_bytes([], tmp_path / name))
    assert read_generated(tmp_path / name) == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([generated(dataset=None)], "has no dataset"),
        ([generated(prompt=" ")], "has no prompt"),
        ([generated(source="report")], "not one that a model wrote"),
        ([generated(), generated(text="other")], "repeats .*:1"),
    ],
)
def test_a_table_whose_texts_are_not_flagged_is_refused(tmp_path: Path, rows: list[Generated], message: str) -> None:
    (tmp_path / "t.jsonl").write_bytes(table_bytes(rows, tmp_path / "t.jsonl"))
    with pytest.raises(TableError, match=message):
        read_generated(tmp_path / "t.jsonl")


def test_prompts_are_data_with_a_hash_over_every_word(tmp_path: Path) -> None:
    own = own_prompts()
    assert len({own.translate.sha256, own.polish.sha256, own.reports.sha256}) == 3
    data = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    data["polish"]["system"] += "."
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(data))
    other = load_prompts(tmp_path / "p.yaml")
    assert other.polish.sha256 != own.polish.sha256
    assert other.translate.sha256 == own.translate.sha256
    assert "{order} {x}" in own.translate.messages(text="{order} {x}")[1]["content"]
    data["polish"]["user"] = "Report: {report}"
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match="polish"):
        load_prompts(tmp_path / "p.yaml")
