"""Answers that mean the same are the same; those that do not, are not."""

from __future__ import annotations

import pytest

from umif.tasks.answers import normalise_answer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Yes", "yes."),
        ("Y", "yes"),
        ("true", "yes"),
        ("No", "n"),
        ("The right lower lobe", "right lower-lobe"),
        ("x-ray", "X ray"),
        ("Two", "2"),
        ("5cm", "5 cm"),
        ("50%", "50 percent"),
        ("1,000", "1000"),
        ("Hodgkin’s", "hodgkins"),
        ("a nodule, and an effusion", "nodule and effusion"),
        ("ﬁbrosis", "fibrosis"),
    ],
)
def test_ways_to_write_one_answer_are_one(one: str, other: str) -> None:
    assert normalise_answer(one) == normalise_answer(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("left", "right"), ("5.5", "55"), ("1.5 cm", "1 5 cm"), ("no", "none"), ("yes", "yes, on the left"), ("A", "B")],
)
def test_different_answers_stay_different(one: str, other: str) -> None:
    assert normalise_answer(one) != normalise_answer(other)


@pytest.mark.parametrize("text", ["A", "the", "-", "?!", "The Right lower-lobe.", "5.5cm", "Twelve", "½"])
def test_a_normal_form_is_never_empty_and_is_its_own_normal_form(text: str) -> None:
    normal = normalise_answer(text)
    assert normal
    assert normalise_answer(normal) == normal
