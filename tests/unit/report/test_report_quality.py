"""The page of an inspection, and the verb that makes it."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from markupsafe import escape

from planted_corpus import planted_corpus
from umif.cli import main
from umif.corpus import Corpus
from umif.corpus.quality import Inspection, inspect_corpus
from umif.corpus.quality_base import Issue
from umif.errors import UmifError
from umif.report import write_inspection
from umif.report.quality import render_inspection

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return planted_corpus(tmp_path_factory.mktemp("films"), patients=20)


@pytest.fixture(scope="module")
def inspection(corpus: Corpus) -> Inspection:
    return inspect_corpus(corpus, workers=1)


@pytest.fixture(scope="module")
def page(corpus: Corpus, inspection: Inspection) -> str:
    return render_inspection(corpus, inspection, command="umif inspect corpus")


def test_the_page_loads_nothing_from_anywhere(page: str) -> None:
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_every_check_and_every_dataset_has_its_place(page: str, inspection: Inspection) -> None:
    for issue in inspection.issues:
        assert escape(issue.title) in page
        assert (f'id="{issue.check}"' in page) == bool(issue.count)
    assert 'id="sheet-planted-films"' in page
    assert page.count("<article") >= 6


def test_links_within_the_page_lead_somewhere(page: str) -> None:
    targets = set(re.findall(r'id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= targets


def test_samples_show_labels_texts_and_pictures(page: str) -> None:
    section = page[page.index('id="sheets"') : page.index('id="quarantine"')]
    assert "data:image/jpeg;base64," in section
    assert "pulmonary edema" in section
    assert re.search(r'class="text">(No edema|Edema)\.', section)


def test_names_from_data_are_text_and_never_markup(corpus: Corpus, inspection: Inspection) -> None:
    issue = Issue("constant", "Pictures", "defect", "exclude", "What it is.")
    issue.add("<script>alert(1)</script>", "films", "<b>bold</b>", 0)
    spiked = Inspection(
        inspection.fingerprint, inspection.datasets, (issue,), inspection.quarantine, inspection.added, 0, 0.0
    )
    page = render_inspection(corpus, spiked, command="umif inspect '<i>'")
    assert "<script" not in page
    assert "<b>bold" not in page
    assert "&lt;script&gt;" in page


def test_the_same_inspection_gives_the_same_page(corpus: Corpus, inspection: Inspection, page: str) -> None:
    assert render_inspection(corpus, inspection, command="umif inspect corpus") == page


def test_a_place_that_cannot_be_written_is_named(corpus: Corpus, inspection: Inspection, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UmifError, match=r"cannot be written.*\n.*choose another --out"):
        write_inspection(corpus, inspection, tmp_path / "file")


def test_the_verb_prints_the_promised_keys_and_writes_page_and_list(
    corpus: Corpus, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(
        corpus.path, tmp_path / "corpus", ignore=shutil.ignore_patterns("inspect", "quarantine.csv")
    )
    assert main(["inspect", str(folder), "--workers", "1", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["images"] == corpus.manifest.images
    assert answer["pairs"] == corpus.manifest.pairs
    assert set(answer["findings"]["edema"]) == {"present", "absent", "uncertain"}
    assert all({"check", "count", "examples"} <= set(issue) for issue in answer["issues"])
    assert (folder / "inspect" / "quality.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    written = json.loads((folder / "inspect" / "quality.json").read_text(encoding="utf-8"))
    assert {key: answer[key] for key in written} == written
    assert Corpus.open(folder).fingerprint == corpus.fingerprint


def test_the_verb_says_in_words_what_it_found_and_where_to_look(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(corpus.path), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert str(tmp_path / "out" / "quality.html") in printed
    assert "to review" in printed


def test_a_folder_that_is_no_corpus_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 2
    assert "holds no corpus.json" in capsys.readouterr().err
