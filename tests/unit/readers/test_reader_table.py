"""A user's own table: what its columns and cells are taken for, and what is said where they cannot be."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reader_checks import states, touch
from umif.errors import ConfigError, LayoutError, TableError, UmifError
from umif.readers.base import Finding, LabelState, Record, Text
from umif.readers.nih_chestxray14 import NihChestxray14
from umif.readers.rsna_pneumonia import RsnaPneumonia
from umif.readers.table import Table
from umif.readers.table_columns import USUAL, USUAL_FINDINGS, plain
from umif.readers.table_config import CONFIG

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from umif.readers.base import Reader


def write(root: Path, table: str, config: str | None = None, name: str = "cases.csv", **how: Any) -> Path:
    (root / name).write_text(table, **{"encoding": "utf-8", "newline": "", **how})
    if config is not None:
        (root / CONFIG).write_text(config, encoding="utf-8")
    return root / name


def read(path: Path) -> tuple[dict[str, Record], Reader]:
    reader = Table(path)
    return {record.image_id: record for record in reader.read()}, reader


def fails(path: Path, *words: str, where: str = "", error: type[UmifError] = TableError) -> None:
    with pytest.raises(error) as caught:
        read(path)
    assert where in str(caught.value.where)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.fix, "an error of a user's own table says what to do"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    touch(tmp_path, "a.png", "images/b.png")
    return tmp_path


# Where the table and the pictures are


def test_the_root_may_be_the_folder_or_the_table(root: Path) -> None:
    path = write(root, "image,label\na.png,Mass\nb.png,\n")
    by_folder, by_file = read(root)[0], read(path)[0]
    assert by_folder == by_file
    assert list(by_file) == ["a.png", "images/b.png"]
    assert all(record.image.is_file() for record in by_file.values())


def test_a_misspelt_table_offers_the_nearest(root: Path) -> None:
    write(root, "image\na.png\n")
    fails(root / "case.csv", "cases.csv", error=LayoutError)


def test_several_tables_in_a_folder_ask_which(root: Path) -> None:
    write(root, "image\na.png\n")
    write(root, "image\nb.png\n", name="more.tsv")
    fails(root, "2 tables", "cases.csv, more.tsv", error=LayoutError)
    assert list(read(root / "more.tsv")[0]) == ["images/b.png"]


def test_a_workbook_says_to_save_it_as_csv(root: Path) -> None:
    (root / "cases.xlsx").write_bytes(b"PK\x03\x04")
    fails(root, "save cases.xlsx as CSV", error=LayoutError)
    fails(root / "cases.xlsx", "workbook", "CSV")


@pytest.mark.parametrize("cell", ["images/b.png", "b.png", "b", "images/b", "B.PNG", "images\\b.png", "./images/b.png"])
def test_a_picture_is_found_by_its_path_its_end_or_without_suffix(root: Path, cell: str) -> None:
    assert list(read(write(root, f"image\n{cell}\n"))[0]) == ["images/b.png"]


def test_a_picture_is_found_by_its_whole_path(root: Path) -> None:
    assert list(read(write(root, f"image\n{root}/images/b.png\n"))[0]) == ["images/b.png"]


def test_two_pictures_that_a_cell_can_mean_are_an_error_that_names_both(root: Path) -> None:
    touch(root, "x/c.png", "y/c.png")
    fails(write(root, "image\na.png\nc.png\n"), "x/c.png", "y/c.png", where="cases.csv:3")
    assert list(read(write(root, "image\na.png\ny/c.png\n"))[0]) == ["a.png", "y/c.png"]


def test_a_mask_never_stands_in_for_a_missing_picture(root: Path) -> None:
    touch(root, "masks/c.png", "lung segmentation/images/d.png")
    records, reader = read(write(root, "image,mask,label\na.png,,\nc.png,,\nd.png,masks/c.png,lung\n"))
    assert list(records) == ["a.png", "lung segmentation/images/d.png"]
    assert {e.item: e.reason for e in reader.account.exclusions} == {
        "c.png": "image file is missing",
        "images/b.png": "no row in cases.csv",
    }


@pytest.mark.parametrize(
    "cell", ["../a.png", "/etc/passwd", "C:\\a.png", "x/../../a.png", "\\\\server\\a.png", "a\0.png", "x" * 300]
)
def test_a_path_that_leaves_the_folder_is_excluded_with_its_line(root: Path, cell: str) -> None:
    records, reader = read(write(root, f"image\na.png\n{cell}\n"))
    assert list(records) == ["a.png"]
    (exclusion,) = (e for e in reader.account.exclusions if e.where)
    assert (exclusion.reason, exclusion.where) == ("path leaves the folder", "cases.csv:3")


def test_image_root_may_lie_elsewhere_and_holds_all_files_of_a_record(root: Path) -> None:
    tables = root / "tables"
    tables.mkdir()
    touch(root, "drawn/b.png")
    config = "image_root: ../images\nmask_root: ../drawn\nmasks: {outline: lung}"
    reader = Table(write(tables, "image,outline\nb.png,b.png\n", config))
    (record,) = reader.read()
    assert record.image.samefile(root / "images" / "b.png")
    (region,) = record.regions
    assert region.mask_path is not None
    assert region.mask_path.samefile(root / "drawn" / "b.png")
    assert {record.image.is_relative_to(reader.root), region.mask_path.is_relative_to(reader.root)} == {True}


def test_strip_prefix_takes_off_the_folders_of_another_machine(root: Path) -> None:
    table = "image\n/home/me/films/a.png\n/home/me/films/images/b.png\n"
    assert list(read(write(root, table, "strip_prefix: /home/me/films"))[0]) == ["a.png", "images/b.png"]


def test_a_table_whose_pictures_are_all_missing_says_where_the_first_is_looked_for(root: Path) -> None:
    path = write(root, "image\nfilms/x.png\ny.png\n")
    fails(path, str(root / "films" / "x.png"), "image_root", where="cases.csv:2")


def test_missing_pictures_are_counted_once_however_often_they_are_listed(root: Path) -> None:
    _, reader = read(write(root, "image,label\na.png,\nb.png,\ngone.png,Mass\ngone.png,Nodule\n"))
    assert reader.account.excluded == {"image file is missing": 1}
    assert reader.account.notes["repeated row of a missing picture"] == 1


def test_blank_rows_are_skipped_and_rows_without_a_picture_counted(root: Path) -> None:
    _, reader = read(write(root, "image,label\na.png,\n\n,,\nb.png,\n,Mass\nnan,Mass\n"))
    assert reader.account.excluded == {"row names no picture": 2}
    assert [e.where for e in reader.account.exclusions] == ["cases.csv:6", "cases.csv:7"]


def test_a_table_without_rows_is_an_error(root: Path) -> None:
    with pytest.raises(TableError, match="holds no rows"):
        read(write(root, "image,label\n"))
    fails(write(root, ""), "empty", where="cases.csv:1")


def test_dicom_files_without_a_suffix_are_found(root: Path) -> None:
    touch(root, "dicom/IM0001")
    assert list(read(write(root, "path\ndicom/IM0001\na.png\n"))[0]) == ["a.png", "dicom/IM0001"]


# Formats


COLUMNS = ["image_path", "patient_id", "age", "report", "Edema", "Pneumothorax"]
ROWS = [["a.png", "7", "61", 'Two\nlines, "quoted".', "1", ""], ["b.png", "8", "", "", "0", "-1"]]
EXPECTED = {
    "a.png": ("7", 61.0, 'Two\nlines, "quoted".', {"Edema": "present"}),
    "images/b.png": ("8", None, None, {"Edema": "absent", "Pneumothorax": "uncertain"}),
}


def outcome(records: Mapping[str, Record]) -> dict[str, Any]:
    return {
        item: (r.patient, r.age_years, r.texts[0].text if r.texts else None, states(r)) for item, r in records.items()
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_way_to_write_the_same_table_gives_the_same_records(
    root: Path, delimiter: str, encoding: str, newline: str
) -> None:
    with (root / "cases.csv").open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator=newline).writerows([COLUMNS, *ROWS])
    if encoding == "utf-16":
        fails(root, "UTF-16", "encoding: utf-16")
        (root / CONFIG).write_text("encoding: utf-16")
    assert outcome(read(root)[0]) == EXPECTED


@pytest.mark.parametrize("name", ["cases.tsv", "cases.tab"])
def test_tab_separated_files_may_hold_more_commas_than_tabs(root: Path, name: str) -> None:
    write(root, "image\treport, with, commas\na.png\tOne, two, three.\nb.png\t\n", name=name)
    assert list(read(root)[0]) == ["a.png", "images/b.png"]


def test_what_a_data_frame_writes_with_blanks_among_whole_numbers_is_understood(root: Path) -> None:
    text = (
        ",image_path,patient_id,age,report,Edema,Pneumothorax\n"  # its index has no name
        '0,a.png,7.0,61.0,"Two\nlines, ""quoted"".",1.0,NaN\n'
        "1,b.png,8.0,NaN,NaN,0.0,-1.0\n"
    )
    assert outcome(read(write(root, text))[0]) == EXPECTED
    (root / "cases.csv").unlink()
    nan = float("nan")
    table = pa.table({
        "image_path": ["a.png", "b.png"], "patient_id": [7.0, 8.0], "age": [61.0, nan],
        "report": ['Two\nlines, "quoted".', None], "Edema": [1.0, 0.0], "Pneumothorax": [nan, -1.0],
        "__index_level_0__": [0, 1],
    })  # fmt: skip
    pq.write_table(table, root / "cases.parquet")
    assert outcome(read(root)[0]) == EXPECTED


def test_parquet_holds_lists_and_truth_values(root: Path) -> None:
    table = pa.table({
        "image": ["a.png", "b.png"], "labels": [["Mass", "Nodule"], []], "Edema": [True, None],
        "sex": pa.array(["F", "M"]).dictionary_encode(),
    })  # fmt: skip
    pq.write_table(table, root / "cases.parquet")
    records, _ = read(root)
    assert states(records["a.png"]) == {"Edema": "present", "Mass": "present", "Nodule": "present"}
    assert (states(records["images/b.png"]), records["images/b.png"].sex) == ({}, "M")


def test_parquet_with_pictures_in_it_says_to_write_them_as_files(root: Path) -> None:
    pq.write_table(pa.table({"image": [b"\x89PNG"]}), root / "cases.parquet")
    fails(root, "bytes", "files")
    (root / "cases.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(TableError, match=r"cases\.parquet: cannot be read as Parquet"):
        read(root)


def test_parquet_under_the_name_of_a_csv_is_recognised(root: Path) -> None:
    pq.write_table(pa.table({"image": ["a.png"]}), root / "cases.csv")
    fails(root, "Parquet", ".parquet")


def test_text_in_another_encoding_is_noted_and_read_once_it_is_named(root: Path) -> None:
    table = "image,report\na.png,Großer Erguss\nb.png,\n"
    _, reader = read(write(root, table, encoding="cp1252"))
    assert reader.account.notes[f"text that is no utf-8: set encoding in {CONFIG}, such as cp1252"] == 1
    (record, _) = read(write(root, table, "encoding: cp1252", encoding="cp1252"))[0].values()
    assert record.texts == (Text("report", "Großer Erguss", "report"),)


@pytest.mark.parametrize(
    ("row", "words"),
    [("b.png", "has 1 cells under 2 columns"), ("b.png,x,y", "has 3 cells under 2 columns"), ('b.png,"x', "valid row")],
)
def test_ragged_rows_and_open_quotes_name_their_line(root: Path, row: str, words: str) -> None:
    fails(write(root, f'image,label\na.png,"Mass\n"\n{row}\n'), words, where="cases.csv:4")


# Columns


@pytest.mark.parametrize("kind", USUAL)
def test_no_usual_name_stands_for_two_things(kind: str) -> None:
    others = {name for other, names in USUAL.items() if other != kind for name in names} | set(USUAL_FINDINGS)
    assert not others.intersection(USUAL[kind])
    assert all(name == plain(name) for name in USUAL[kind])


@pytest.mark.parametrize("header", ["Image Path", "IMAGE_PATH", " imagePath ", "image-path", "Image Index", "filename"])
def test_names_are_known_whatever_their_capitals_and_punctuation(root: Path, header: str) -> None:
    assert len(read(write(root, f"{header},x\na.png,\nb.png,\n"))[0]) == 2


def test_a_header_without_a_picture_column_proposes_one(root: Path) -> None:
    path = write(root, "Fall,Bild\n1,a.png\n")
    fails(path, "columns: {image: Bild}", where="cases.csv:1")
    (root / CONFIG).write_text("columns: {image: Bild, patient: Fall}")
    assert read(path)[0]["a.png"].patient == "1"


def test_columns_that_mean_nothing_are_named(root: Path) -> None:
    _, reader = read(write(root, "image,Tube,smoker\na.png,1,0\nb.png,0,1\n"))
    notes = reader.account.notes
    assert notes["column 'Tube' is not used"] == notes["column 'smoker' is not used"] == 1
    assert notes["no column of patients: each picture counts as a patient of its own"] == 1


def test_a_column_named_findings_is_asked_about(root: Path) -> None:
    path = write(root, "image,findings\na.png,Clear lungs.\n")
    fails(path, "texts or labels", "columns: {report: findings}", where="cases.csv:1")
    write(root, "image,findings,impression\na.png,Clear lungs.,Normal.\nb.png,,\n")
    assert read(path)[0]["a.png"].texts == (Text("report", "Clear lungs.\nNormal.", "report"),)


def test_a_column_that_occurs_twice_is_an_error(root: Path) -> None:
    with pytest.raises(TableError, match=r"cases\.csv:1: the column 'label' occurs 2 times"):
        read(write(root, "image,label,label\na.png,,\n"))


def test_the_config_beats_the_usual_names_and_ignore_leaves_out(root: Path) -> None:
    table = "image,path,report,mass\nb.png,a.png,x,70\n"
    config = "columns: {image: path}\nignore: [mass, image, report]"
    (record,) = read(write(root, table, config))[0].values()
    assert (record.image_id, record.findings, record.texts) == ("a.png", (), ())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("colums: {image: image}", "columns"),
        ("columns: {image: imag}", "image"),
        ("columns: {image: image, patient: image}", "named twice"),
        ("delimiter: ', '", "one character"),
        ("encoding: utf-9", "no such encoding"),
        ("states: {present: x, absent: x}", "stands twice"),
        ("image_root: nowhere", "no folder"),
        ("findings: {label: ''}", "blank"),
        ("- image", ""),
        ("columns: {image: [", ""),
    ],
)
def test_a_wrong_config_names_the_file_and_the_way_out(root: Path, config: str, words: str) -> None:
    path = write(root, "image,label\na.png,\n", config)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert CONFIG in str(caught.value.where)
    assert words in str(caught.value)


def test_a_config_under_a_wrong_name_is_not_passed_over(root: Path) -> None:
    path = write(root, "image\na.png\n")
    (root / "umif_table.yml").write_text("image_root: .")
    fails(path, f"call it {CONFIG}", error=ConfigError)


# Cells


CELLS = {
    "present": ["1", "1.0", "yes", "Y", "True", "positive", "present"],
    "absent": ["0", "0.0", "no", "FALSE", "negative", "absent"],
    "uncertain": ["-1", "-1.0", "u", "uncertain"],
    "not_mentioned": ["", " ", "nan", "NaN", "NA", "None", "null", "<NA>"],
}


@pytest.mark.parametrize(("state", "cell"), [(state, cell) for state, cells in CELLS.items() for cell in cells])
def test_four_states_stay_apart(root: Path, state: str, cell: str) -> None:
    records, _ = read(write(root, f"image,Edema\na.png,{cell}\nb.png,\n"))
    assert states(records["a.png"]) == ({} if state == "not_mentioned" else {"Edema": state})


@pytest.mark.parametrize("cell", ["2", "mild", "0.7", "-2", "1;0"])
def test_a_cell_outside_the_states_names_line_and_way_out(root: Path, cell: str) -> None:
    path = write(root, f"image,Edema\nb.png,\na.png,{cell}\n")
    fails(path, "'Edema'", repr(cell), "states:", "ignore:", where="cases.csv:3")


def test_states_of_a_users_own(root: Path) -> None:
    config = "findings: {Tube: endotracheal tube}\nstates: {present: [mild, 2], uncertain: ['?', 1], absent: no}"
    records, _ = read(write(root, "image,Tube\na.png,mild\nb.png,1\n", config))
    assert states(records["a.png"]) == {"endotracheal tube": "present"}
    assert states(records["images/b.png"]) == {"endotracheal tube": "uncertain"}, "the config's word is the last"


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("Mass", ["Mass"]), ("Mass|Nodule", ["Mass", "Nodule"]), ("Mass; Nodule ;", ["Mass", "Nodule"]),
        ("\"['Mass', 'Nodule']\"", ["Mass", "Nodule"]), ("Mass|Mass", ["Mass"]), ("none", []), ("", []),
        ("\"Nodule, small\"", ["Nodule, small"]), ("[]", []),
    ],
)  # fmt: skip
def test_labels_of_a_cell(root: Path, cell: str, names: list[str]) -> None:
    records, _ = read(write(root, f"image,label\na.png,{cell}\nb.png,\n"))
    assert records["a.png"].findings == tuple(Finding(name, LabelState.PRESENT) for name in names)


@pytest.mark.parametrize("cell", ["1", "0.0", "yes", "x" * 121])
def test_a_label_that_names_nothing_is_an_error(root: Path, cell: str) -> None:
    fails(write(root, f"image,label\na.png,{cell}\n"), "'label'", CONFIG, where="cases.csv:2")


def test_numbers_as_labels_get_names(root: Path) -> None:
    config = "values: {labels: {1: Pneumonia, 0: Normal, 2: }}"
    touch(root, "c.png")
    records, _ = read(write(root, "image,label\na.png,1.0\nb.png,0\nc.png,2\n", config))
    assert [states(record) for record in records.values()] == [{"Pneumonia": "present"}, {}, {"Normal": "present"}]


def test_what_is_not_listed_is_not_mentioned_unless_said_to_be_absent(root: Path) -> None:
    touch(root, "c.png")
    table = "image,label\na.png,Mass\nb.png,Nodule\nc.png,\n"
    assert states(read(write(root, table))[0]["a.png"]) == {"Mass": "present"}
    records, _ = read(write(root, table, "unlisted: absent"))
    assert states(records["a.png"]) == {"Mass": "present", "Nodule": "absent"}
    assert states(records["c.png"]) == {}, "a blank cell says nothing"


def test_a_label_and_its_own_column_must_not_contradict(root: Path) -> None:
    fails_at = write(root, "image,label,Mass\na.png,Mass,0\n")
    with pytest.raises(TableError, match=r"cases\.csv:2.*'Mass' is absent in one column and present in another"):
        read(fails_at)


def test_patient_view_sex_age_and_split(root: Path) -> None:
    table = "image,subject,exam,projection,gender,age,set\na.png,0012,s.1,ANT,w,006M,1\nb.png,12.0,,,m,300,\n"
    config = "values: {view: {ant: AP}, sex: {w: F}, split: {1: train}}\npatient_namespace: nih-chestxray14"
    records, reader = read(write(root, table, config))
    a, b = records.values()
    assert (a.patient, a.study, a.view, a.sex, a.age_years, a.split) == ("0012", "s.1", "AP", "F", 0.5, "train")
    assert (b.patient, b.study, b.view, b.sex, b.age_years, b.split) == ("12", None, None, "M", None, None)
    assert a.patient_namespace == b.patient_namespace == "nih-chestxray14"
    assert reader.account.notes["age is not plausible"] == 1


def test_an_unknown_split_is_an_error(root: Path) -> None:
    fails(write(root, "image,split\na.png,fold 3\n"), "train, val or test", "values:", where="cases.csv:2")


# Masks


def test_masks_with_and_without_a_name(root: Path) -> None:
    touch(root, "masks/a.png", "masks/a2.png")
    table = "image,label,mask\na.png,Mass,a.png|masks/a2.png\nb.png,,\n"
    (region, other) = read(write(root, table))[0]["a.png"].regions
    assert (region.finding, region.shape, region.mask_path) == ("Mass", "mask", root / "masks" / "a.png")
    assert other.mask_path == root / "masks" / "a2.png"
    (region, _) = read(write(root, table, "masks: {mask: lung}"))[0]["a.png"].regions
    assert region.finding == "lung"


@pytest.mark.parametrize("label", ["", "Mass|Nodule"])
def test_a_mask_of_nothing_named_asks_what_it_shows(root: Path, label: str) -> None:
    touch(root, "masks/a.png")
    fails(write(root, f"image,label,mask\na.png,{label},a.png\n"), "masks: {mask: lung}", where="cases.csv:2")


def test_missing_masks_are_noted_but_not_all_of_them(root: Path) -> None:
    touch(root, "masks/a.png")
    path = write(root, "image,label,mask\na.png,Mass,a.png\nb.png,Mass,gone.png\n")
    records, reader = read(path)
    assert records["images/b.png"].regions == ()
    assert reader.account.notes["mask file is missing"] == 1
    (root / "masks/a.png").unlink()
    fails(path, "'a.png'", "mask_root", where="cases.csv:2")


def test_a_mask_path_that_leaves_the_folder_is_not_followed(root: Path) -> None:
    touch(root, "masks/a.png")
    _, reader = read(write(root, "image,label,mask\na.png,Mass,a.png\nb.png,Mass,../../etc/passwd\n"))
    assert reader.account.notes["mask path leaves the folder"] == 1


# Several rows of one picture


def test_rows_of_one_picture_add_up(root: Path) -> None:
    table = "image,patient,label,Edema\na.png,7,Mass,\nb.png,,,\na.png,,Nodule,0\na.png,7,Mass,\n"
    records, reader = read(write(root, table))
    assert records["a.png"].patient == "7"
    assert states(records["a.png"]) == {"Mass": "present", "Nodule": "present", "Edema": "absent"}
    assert reader.account.notes["row that adds to an earlier one of the same picture"] == 1
    assert reader.account.notes["repeated row, nothing new"] == 1


@pytest.mark.parametrize(
    ("row", "words"), [("8,,", "patient"), ("7,F,", "sex"), ("7,,1", "Edema")], ids=["patient", "sex", "finding"]
)
def test_rows_of_one_picture_that_contradict_name_both_lines(root: Path, row: str, words: str) -> None:
    path = write(root, f"image,patient,sex,Edema\na.png,7,M,0\na.png,{row}\n")
    with pytest.raises(TableError) as caught:
        read(path)
    assert words in str(caught.value)
    assert str(caught.value.where).endswith("cases.csv:3")
    assert "cases.csv:2" in str(caught.value)


# Published tables, against their own readers


def test_the_table_of_nih_gives_what_its_own_reader_gives(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "nih-chestxray14"
    (tmp_path / "entries.csv").write_bytes((root / "Data_Entry_2017_v2020.csv").read_bytes())
    (tmp_path / CONFIG).write_text(f"image_root: {root}/images\n")
    records, _ = read(tmp_path)
    # The radiologists' labels are a table of their own, which this one knows nothing of.
    mined = tmp_path / "mined"
    mined.mkdir()
    for item in root.iterdir():
        if not item.name.startswith("google2019"):
            (mined / item.name).symlink_to(item)
    expected = {record.image.name: record for record in NihChestxray14(mined).read()}
    assert {record.image.name for record in records.values()} == expected.keys()
    for record in records.values():
        theirs = expected[record.image.name]
        assert states(record) == states(theirs)
        assert (record.view, record.sex, record.age_years) == (theirs.view, theirs.sex, theirs.age_years)
        assert int(record.patient or "") == int(theirs.patient or "")


def test_the_table_of_rsna_gives_what_its_own_reader_gives(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "rsna-pneumonia-detection"
    (tmp_path / "labels.csv").write_bytes((root / "stage_2_train_labels.csv").read_bytes())
    config = f"image_root: {root}\ncolumns: {{image: patientId}}\nfindings: {{Target: Lung Opacity}}\n"
    (tmp_path / CONFIG).write_text(config)
    records, reader = read(tmp_path)
    expected = {record.image: states(record)["Lung Opacity"] for record in RsnaPneumonia(root).read()}
    assert {record.image: states(record)["Lung Opacity"] for record in records.values()} == expected
    assert reader.account.notes["repeated row, nothing new"] > 0, "a row for each box"
