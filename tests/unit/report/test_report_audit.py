"""The audit's page and command: what was found, pairs to look at, and an exit code that a script can trust."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from leaky_corpora import OtherFilms, draw_film, listed_corpus, rows_tested, rows_trained
from umif.cli import main
from umif.corpus.audit import Evaluation, audit_corpus
from umif.report.audit_page import render_audit, write_audit

if TYPE_CHECKING:
    from pathlib import Path

    from umif.corpus import Corpus

IDS = [f"{how}:trained>tested" for how in ("patient", "file", "pixels", "near-duplicate")]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Corpus]:
    folder = tmp_path_factory.mktemp("audited")
    rows = [{**row, "image": f"<b>{row['image']}"} for row in rows_tested()]
    trained = listed_corpus(folder, "trained", rows_trained())
    return trained, listed_corpus(folder, "tested", rows, OtherFilms)


def audit_words(corpora: tuple[Corpus, Corpus], *more: str) -> list[str]:
    return ["audit", str(corpora[0].path), "--trained", "val", *more]


def test_the_page_stands_alone_and_shows_both_films_of_a_pair(corpora: tuple[Corpus, Corpus], tmp_path: Path) -> None:
    evaluations = [Evaluation("tested", corpora[1])]
    report = audit_corpus(corpora[0], evaluations, trained=("val",))
    path = write_audit(report, corpora[0], evaluations, tmp_path / "out")
    page = path.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "<b>100" not in page  # names are escaped
    assert "&lt;b&gt;100.png" in page
    for name in IDS:
        assert name.replace(">", "&gt;") in page
    shown = [base64.b64decode(each) for each in re.findall(r"base64,([^\"]+)", page)]
    pictures = [cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_GRAYSCALE) for each in shown]
    # One pair by patient, by file and by pixels, two by sight; two pictures each.
    assert len(pictures) == 10
    film = cv2.resize(draw_film(5), (pictures[0].shape[1], pictures[0].shape[0]), interpolation=cv2.INTER_AREA)
    # The first is the film of patient 5, through two JPEGs.
    assert np.abs(pictures[0].astype(float) - film).mean() < 4
    saved = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert [leak["id"] for leak in saved["leaks"]] == IDS


def test_the_page_says_whether_it_leaks(corpora: tuple[Corpus, Corpus]) -> None:
    evaluations = [Evaluation("tested", corpora[1])]
    report = audit_corpus(corpora[0], evaluations, trained=("val",), sight=False)
    assert "It leaks." in render_audit(report, corpora[0], evaluations)
    known = replace(report, leaks=tuple(replace(leak, acknowledged=True) for leak in report.leaks))
    assert "Every leak is acknowledged." in render_audit(known, corpora[0], evaluations)
    assert "No leak." in render_audit(replace(report, leaks=()), corpora[0], evaluations)


def test_the_command_exits_with_1_on_a_leak_and_0_when_all_are_acknowledged(
    corpora: tuple[Corpus, Corpus], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = audit_words(corpora, "--against", str(corpora[1].path), "--json")
    assert main(words) == 1
    answer = json.loads(capfd.readouterr().out)
    assert [(leak["id"], leak["count"], leak["acknowledged"]) for leak in answer["leaks"]] == [
        (IDS[0], 1, False), (IDS[1], 1, False), (IDS[2], 1, False), (IDS[3], 2, False),
    ]  # fmt: skip
    assert answer["clean"] is False
    assert {"how", "left", "right"} <= answer["leaks"][0].keys()
    known = [word for name in IDS for word in ("--acknowledge", name)]
    assert main([*words, *known, "--out", str(tmp_path / "out")]) == 0
    assert json.loads(capfd.readouterr().out)["report"] == str(tmp_path / "out" / "audit.html")


def test_several_names_after_one_flag_are_all_audited_and_tasks_mean_the_own_test_images(
    corpora: tuple[Corpus, Corpus], capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["audit", str(corpora[1].path), "--against", "linear", str(corpora[0].path), "--trained", "test"]
    assert main([*words, "--tested", "val", "--no-sight", "--json"]) == 1
    answer = json.loads(capfd.readouterr().out)
    assert [each["name"] for each in answer["evaluations"]] == ["linear", "trained"]
    # Trained and tested on the same images: the task meets each of them by name.
    assert {leak["count"] for leak in answer["leaks"] if leak["how"] == "image_id"} == {5}


def test_the_lines_name_each_leak_and_whether_it_is_known(
    corpora: tuple[Corpus, Corpus], capsys: pytest.CaptureFixture[str]
) -> None:
    words = audit_words(corpora, "--against", str(corpora[1].path), "--no-sight", "--acknowledge", IDS[0])
    assert main([*words, "--acknowledge", "file:nothing>here"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith(IDS[0])).split()[-1] == "yes"
    assert next(line for line in lines if line.startswith(IDS[1])).split()[-1] == "NO"
    assert "acknowledged, but not found: file:nothing>here" in lines


def test_a_name_that_is_neither_corpus_nor_task_is_bad_usage(
    corpora: tuple[Corpus, Corpus], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(audit_words(corpora, "--against", "lineer")) == 2
    assert "Did you mean 'linear'?" in capsys.readouterr().err
