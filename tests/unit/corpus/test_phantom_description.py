"""What a series of descriptions holds: patients, shares, labels, and nuisances that carry no hint."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from umif.corpus.phantom_description import (
    CARDIOMEGALY,
    FAINT,
    FINDINGS,
    FRACTURE,
    NO_FINDING,
    NODULE,
    Description,
    describe,
)

COUNT = 1500


@pytest.fixture(scope="module")
def series() -> list[Description]:
    return [describe(0, index) for index in range(COUNT)]


def test_a_description_depends_on_seed_and_index_only(series: list[Description]) -> None:
    assert describe(0, 1111) == series[1111]
    assert describe(1, 1111) != series[1111]


def test_json_gives_the_same_description_back(series: list[Description]) -> None:
    for description in series[:50]:
        assert Description.from_json(json.loads(json.dumps(description.to_json()))) == description


def test_of_six_images_patients_have_one_two_and_three(series: list[Description]) -> None:
    for start in range(0, 600, 6):
        by_patient: dict[str, list[int]] = defaultdict(list)
        for description in series[start : start + 6]:
            by_patient[description.patient].append(description.followup)
        assert sorted(by_patient.values()) == [[0], [0, 1], [0, 1, 2]]


def test_followups_share_the_body_and_the_chronic_findings(series: list[Description]) -> None:
    by_patient: dict[str, list[Description]] = defaultdict(list)
    for description in series:
        by_patient[description.patient].append(description)
    acute_differ = 0
    for images in by_patient.values():
        assert len({(image.habitus, image.sex, image.age_years) for image in images}) == 1
        assert len({image.study for image in images}) == len(images)
        for name in (CARDIOMEGALY, FRACTURE):
            assert len({image.finding(name) for image in images}) == 1
        nodules = [image.finding(NODULE) for image in images]
        assert len({nodule and nodule.size for nodule in nodules}) == 1
        acute_differ += len({image.findings for image in images}) > 1
    assert acute_differ > 50


def test_every_finding_is_common_and_a_quarter_is_normal(series: list[Description]) -> None:
    for name in FINDINGS:
        share = np.mean([description.finding(name) is not None for description in series])
        assert 0.12 < share < 0.30, name
    assert 0.20 < np.mean([not description.findings for description in series]) < 0.32


def test_labels_tell_the_truth_in_four_states(series: list[Description]) -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    for description in series:
        for name in FINDINGS:
            finding, state = description.finding(name), description.label(name)
            seen[name].add(state)
            if finding is None:
                assert state in ("absent", "not_mentioned")
            else:
                assert state == "present" or (state == "uncertain" and finding.contrast < FAINT)
        normal = description.label(NO_FINDING)
        assert (normal == "present") == (not description.findings)
        if any(description.label(name) == "present" for name in FINDINGS):
            assert normal == "absent"
    assert all(states == {"present", "absent", "uncertain", "not_mentioned"} for states in seen.values())


def test_nuisances_carry_no_hint_of_any_finding(series: list[Description]) -> None:
    def numbers(description: Description) -> list[float]:
        nuisance: dict[str, Any] = asdict(description.nuisance)
        nuisance["collimation"] = sum(nuisance["collimation"])
        nuisance["marker"], nuisance["word"] = nuisance["marker"] == "L", nuisance["word"] != ""
        return [float(value) for value in nuisance.values()] + [float(description.view == "AP")]

    table = np.array([numbers(description) for description in series])
    for name in FINDINGS:
        has = np.array([description.finding(name) is not None for description in series])
        there, missing = table[has], table[~has]
        spread = np.sqrt(there.var(axis=0) / len(there) + missing.var(axis=0) / len(missing))
        # Some 200 comparisons in all; follow-ups share findings but not nuisances, so the images count singly.
        assert np.abs((there.mean(axis=0) - missing.mean(axis=0)) / spread).max() < 4.5, name


def test_a_large_effusion_hides_nothing_beneath_it(series: list[Description]) -> None:
    hidden = 0
    for description in series:
        effusion = description.finding("Pleural Effusion")
        for finding in description.findings:
            if effusion is not None and effusion.size > 0.3 and finding.name in (NODULE, "Consolidation"):
                hidden += effusion.side in ("both", finding.side) and finding.zone == "lower"
    assert hidden == 0


def test_a_clear_series_has_no_faint_finding_and_a_straying_one_moves_nothing_else(series: list[Description]) -> None:
    for index in range(0, COUNT, 7):
        clear, plain = describe(0, index, clarity=0.6, spread=3.0), series[index]
        assert [f.name for f in clear.findings] == [f.name for f in plain.findings]
        for one, other in zip(clear.findings, plain.findings, strict=True):
            assert one.contrast == pytest.approx(0.6 + 0.4 * other.contrast, abs=1e-4)
            assert one.size == pytest.approx(0.6 + 0.4 * other.size, abs=1e-4)
        assert "uncertain" not in dict(clear.labels).values()
        assert clear.nuisance.rotation_degrees == pytest.approx(3 * plain.nuisance.rotation_degrees, abs=1e-3)
        assert clear.nuisance.gamma == pytest.approx(plain.nuisance.gamma**3, abs=1e-3)
        assert (clear.nuisance.marker, clear.nuisance.noise) == (plain.nuisance.marker, plain.nuisance.noise)
        assert (clear.patient, clear.habitus, clear.view) == (plain.patient, plain.habitus, plain.view)


def test_a_series_of_few_findings_has_them_where_they_were_and_speaks_of_no_others(series: list[Description]) -> None:
    only = ("Edema", "Pleural Effusion")
    for index in range(0, COUNT, 7):
        few, plain = describe(0, index, only=only), series[index]
        assert {f.name for f in few.findings} == {f.name for f in plain.findings} & set(only)
        assert few.finding("Pleural Effusion") == plain.finding("Pleural Effusion")
        labels = dict(few.labels)
        assert {name: labels[name] for name in only} == {name: plain.label(name) for name in only}
        assert {labels[name] for name in labels.keys() - {*only, "No Finding"}} == {"not_mentioned"}
        assert (labels["No Finding"] == "present") == (not few.findings)
        assert few.nuisance == plain.nuisance
