"""Known lineage: ids that name one image under two datasets' spellings are traced, others are asked about."""

from __future__ import annotations

import pytest

from umif.config import REGISTRY
from umif.corpus.lineage import FILE, Key, known_relations, trace

RSNA = "00436515-870c-4b36-a041-de91049b9ab4"


def row(dataset: str, image_id: str, patient: str | None = None, study: str | None = None) -> dict[str, str | None]:
    key = patient if patient is not None else f"{dataset}/{image_id}"
    return {"dataset": dataset, "image_id": image_id, "patient": key, "study": study, "source": image_id}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (
            row("nih-chestxray14", "00000003_001.png", "nih-chestxray14/3"),
            row("rsna-pneumonia", RSNA, "nih-chestxray14/3"),
        ),
        (row("nih-chestxray14", "00000003_001.png"), row("nih1000-64px", "train/0_normal/00000003_001.png")),
        (
            row("midrc-ricord-1c", "a/b/1-01.dcm", "midrc-ricord-1c/MIDRC-RICORD-1C-419639-000000"),
            row("covidx", "test/MIDRC-RICORD-1C-419639-000000-12345-0.png"),
        ),
        (row("rsna-pneumonia", RSNA), row("covidx", f"test/{RSNA}.png")),
        (row("covid-chestxray", "images/a_1.jpg"), row("covid-segmentations", "images/a_1.jpg")),
        (row("covid-chestxray", "images/a_1.jpg"), row("covidx", "train/A_1.jpg")),
        (
            row("chexpert", "valid/patient64541/study1/view1_frontal.jpg"),
            row("chexlocalize", "CheXpert/val/patient64541_study1_view1_frontal.jpg"),
        ),
        (
            row("chexpert-plus", "valid/patient64541/study1/view1_frontal.png"),
            row("chexpert", "valid/patient64541/study1/view1_frontal.jpg"),
        ),
        (
            row("chexpert", "train/patient00005/study1/view1_frontal.jpg"),
            row("chexpert-5x200", "train/patient00005/study1/view1_frontal.jpg"),
        ),
        (row("vindr-cxr", "train/" + "0a" * 16), row("vinbigdata", "0a" * 16 + ".dicom")),
    ],
)
def test_one_image_under_two_names_is_traced_whichever_side_it_is_on(
    left: dict[str, str | None], right: dict[str, str | None]
) -> None:
    other = row(str(left["dataset"]), "something-else.xyz", f"{left['dataset']}/other")
    for ours, theirs in ((left, right), (right, left)):
        found = [each for each in trace([other, ours], [theirs]) if each.pairs]
        assert [(each.left, each.right, each.pairs) for each in found] == [
            (ours["dataset"], theirs["dataset"], ((1, 0),))
        ]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (row("nih-chestxray14", "1", "nih-chestxray14/3"), row("rsna-pneumonia", RSNA, f"rsna-pneumonia/{RSNA}")),
        (row("chexpert", "train/patient1/study1/view1_frontal.jpg"), row("chexlocalize", "patient1_study1_view2_side")),
        (row("nih-chestxray14", "00000003_001.png"), row("nih1000-64px", "00000003_002.png")),
        (row("chest-xray-pneumonia", "a.png"), row("covidx", "a.png")),
    ],
)  # fmt: skip
def test_other_images_are_not(left: dict[str, str | None], right: dict[str, str | None]) -> None:
    assert [each.pairs for each in trace([left], [right])] == []


def test_a_relation_without_ids_is_an_open_question() -> None:
    (found,) = trace([row("nih-chestxray14", "00000003_001.png")], [row("siim-acr-pneumothorax", "1.2.3")])
    assert found.open
    assert found.pairs == ()
    assert "no map" in found.relation.note


def test_every_relation_says_how_it_is_known_and_names_readers_that_are_here_or_are_well_known() -> None:
    relations = known_relations()
    assert FILE.exists()
    assert len({(each.inside, each.of) for each in relations}) == len(relations)
    here = set(REGISTRY.names("reader"))
    assert {"nih-chestxray14", "rsna-pneumonia", "covid-chestxray", "covid-segmentations"} <= here
    assert all(each.inside != each.of and each.note for each in relations)


def test_a_pattern_without_a_group_is_refused() -> None:
    with pytest.raises(ValueError, match="no group"):
        Key(column="patient", pattern="abc")
