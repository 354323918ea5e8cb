"""The quarantine list: added to and never overwritten, and believed line by line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from planted_corpus import planted_corpus
from umif.corpus.quarantine import (
    QUARANTINE,
    Quarantine,
    QuarantineRow,
    add_to_quarantine,
    quarantined,
    read_quarantine,
)
from umif.errors import CorpusError

if TYPE_CHECKING:
    from umif.corpus import Corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return planted_corpus(tmp_path_factory.mktemp("films"), patients=12)


def write(folder: Path, text: str) -> Path:
    (folder / QUARANTINE).write_bytes(text.encode())
    return folder


def rows(*items: str, decision: str = "review") -> list[QuarantineRow]:
    return [QuarantineRow(item, decision, f'found: "{item}", twice') for item in items]


def test_no_list_excludes_nothing(tmp_path: Path) -> None:
    quarantine = read_quarantine(tmp_path)
    assert (quarantine.rows, quarantine.excluded, quarantine.sha256) == ((), {}, None)


def test_what_a_user_wrote_stays_byte_for_byte(tmp_path: Path) -> None:
    mine = '\ufeffitem,who,decision,reason\r\na,me,keep,looked at it\r\n\r\nb,me,exclude,"blurred, badly"'
    write(tmp_path, mine)
    _, added = add_to_quarantine(tmp_path, rows("a", "b", "c"))
    text = (tmp_path / QUARANTINE).read_bytes().decode()
    assert added == 1
    assert text.startswith(mine + "\n")
    quarantine = read_quarantine(tmp_path)
    assert {row.item: row.decision for row in quarantine.rows} == {"a": "keep", "b": "exclude", "c": "review"}
    assert quarantine.rows[2].reason == 'found: "c", twice'
    before = (tmp_path / QUARANTINE).read_bytes()
    assert add_to_quarantine(tmp_path, rows("a", "b", "c"))[1] == 0
    assert (tmp_path / QUARANTINE).read_bytes() == before


def test_ids_with_commas_quotes_and_line_breaks_come_back_as_they_were(tmp_path: Path) -> None:
    odd = ('films/a,b "c".png', "films/ü\n2.png", "#1")
    add_to_quarantine(tmp_path, rows(*odd, decision="exclude"))
    assert tuple(read_quarantine(tmp_path).excluded) == odd


def test_the_hash_is_that_of_what_is_left_out_alone(tmp_path: Path) -> None:
    def digest(text: str) -> str | None:
        return read_quarantine(write(tmp_path, text)).sha256

    one = digest("item,decision,reason\na,exclude,x\nb,exclude,y\nc,keep,z\n")
    assert one == digest("item,decision\nb,exclude\na,exclude\nd,review\n")
    assert one != digest("item,decision\nb,exclude\n")
    assert digest("item,decision\nb,keep\n") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,decision\na,keep\n", r"quarantine\.csv:1: the column 'item' is missing\n.*item,decision,reason"),
        ("item,decision\na,keep\na,exclude\n", r"quarantine\.csv:3: 'a' is listed already, in line 2"),
        ("item,decision\na,exlude\n", r"quarantine\.csv:2: the decision 'exlude' is unknown\n.*'exclude'"),
        ("item,decision\n,exclude\n", r"quarantine\.csv:2: the line names no item"),
        ('item,decision\n"a,exclude\n', r"quarantine\.csv:\d: is no CSV"),
        ("item,decision\na\n", r"quarantine\.csv:2: the decision '' is unknown"),
    ],
)
def test_a_list_that_says_nothing_clear_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        read_quarantine(write(tmp_path, text))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / QUARANTINE).write_bytes(b"item,decision\n\xff\xfe,keep\n")
    with pytest.raises(CorpusError, match="cannot be read as text"):
        read_quarantine(tmp_path)


def listed(*items: str) -> Quarantine:
    found = tuple(QuarantineRow(item, "exclude", "", line) for line, item in enumerate(items, start=2))
    return Quarantine(Path("quarantine.csv"), found)


def test_an_image_takes_its_pairs_with_it_and_a_pair_only_itself(corpus: Corpus) -> None:
    table = corpus.pairs_table(["pair", "image"]).to_pylist()
    image, pair = table[0]["image"], table[-1]["pair"]
    by_image, by_pair = quarantined(corpus, listed(image, pair))
    names = corpus.images_table(["image"]).column("image").to_pylist()
    assert [name for name, out in zip(names, by_image, strict=True) if out] == [image]
    expected = {row["pair"] for row in table if row["image"] == image} | {pair}
    assert {row["pair"] for row, out in zip(table, by_pair, strict=True) if out} == expected


def test_an_item_that_the_corpus_lacks_is_named_with_its_line(corpus: Corpus) -> None:
    image = corpus.images_table(["image"]).column("image")[0].as_py()
    with pytest.raises(CorpusError, match=r"quarantine\.csv:3: 'planted-films/typo\.png' is neither"):
        quarantined(corpus, listed(image, "planted-films/typo.png"))
