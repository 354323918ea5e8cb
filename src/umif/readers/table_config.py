"""The optional file `umif-table.yaml` beside a table: other column names, label encodings, where the pictures lie."""

from __future__ import annotations

import codecs
import re
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from umif.config import Config, parse_config, read_yaml
from umif.errors import ConfigError
from umif.readers.base import LabelState

CONFIG = "umif-table.yaml"
_NEARLY = re.compile(r"umif[-_ ]?tables?\.ya?ml", re.IGNORECASE)
# What cells hold where there is nothing; the words are what pandas, R and databases write.
BLANKS = frozenset({"", "nan", "na", "n/a", "<na>", "nat", "none", "null"})
_TOO_LONG_FOR_BLANK = 20  # characters, so that reports are not searched for it
_WHOLE = re.compile(r"-?\d+\.0+")
STATES: dict[str, LabelState] = {
    **dict.fromkeys(("1", "yes", "y", "true", "t", "present", "positive", "pos"), LabelState.PRESENT),
    **dict.fromkeys(("0", "no", "n", "false", "f", "absent", "negative", "neg"), LabelState.ABSENT),
    **dict.fromkeys(("-1", "u", "uncertain"), LabelState.UNCERTAIN),
    **dict.fromkeys((*BLANKS, "not_mentioned", "not mentioned"), LabelState.NOT_MENTIONED),
}


def simple(text: str) -> str:
    """Return a cell as it is looked up: without capitals, and `1.0` as `1`."""
    text = text.strip().casefold()
    return text.partition(".")[0] if text.endswith("0") and _WHOLE.fullmatch(text) else text


def is_blank(text: str) -> bool:
    """Return whether a cell holds nothing, or a word for it."""
    return len(text) < _TOO_LONG_FOR_BLANK and simple(text) in BLANKS


def _texts(value: Any) -> tuple[str, ...]:
    """One cell value or a list of them, as text; YAML turns `yes` and `no` into booleans, which are meant as words."""
    texts: list[str] = []
    for one in value if isinstance(value, list | tuple) else (value,):
        if isinstance(one, bool):
            texts += ["yes", "true"] if one else ["no", "false"]
        elif one is None or isinstance(one, str | int | float):
            texts.append(simple("" if one is None else str(one)))
        else:
            raise ValueError("write one value or a list of them")
    return tuple(texts)


def _meanings(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("write value: meaning lines")
    meanings: dict[str, str] = {}
    for key, meaning in value.items():
        if not isinstance(meaning, str | int | float | None):
            raise ValueError(f"the meaning of {key!r} must be one value")
        meanings.update(dict.fromkeys(_texts(key), "" if meaning is None else str(meaning).strip()))
    return meanings


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _named(value: Any) -> Any:
    """A list of columns means that each is named like its finding."""
    return {name: name for name in value} if isinstance(value, list) else value


CellTexts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
Meanings = Annotated[dict[str, str], BeforeValidator(_meanings)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class ColumnNames(Config):
    """Which column of the table is what; names are as in its header. What is left out is found by its usual name."""

    image: str | None = Field(None, description="Paths of the pictures")
    patient: str | None = Field(None, description="Patient keys")
    study: str | None = Field(None, description="Keys of studies (examinations)")
    view: str | None = Field(None, description="View, such as PA")
    sex: str | None = Field(None, description="F, M, female or male")
    age: str | None = Field(None, description="Years, or DICOM's 058Y, 006M, 003W, 010D")
    split: str | None = Field(None, description="train, val or test")
    report: Names = Field((), description="Report; several columns are joined in this order")
    caption: Names = Field((), description="Caption; several columns are joined in this order")
    labels: Names = Field((), description="Names of labels, one or a list of them per cell")


class StateWords(Config):
    """Further cell values for each state; those of the usual encodings stay, unless one is named here."""

    present: CellTexts = ()
    absent: CellTexts = ()
    uncertain: CellTexts = ()
    not_mentioned: CellTexts = ()

    @model_validator(mode="after")
    def _one_state_each(self) -> Self:
        words = [*self.present, *self.absent, *self.uncertain, *self.not_mentioned]
        for word in words:
            if words.count(word) > 1:
                raise ValueError(f"{word!r} stands twice")
        return self

    @property
    def table(self) -> dict[str, LabelState]:
        """Every cell value → its state."""
        return STATES | {word: state for state in LabelState for word in getattr(self, state.value)}


class Values(Config):
    """What cell values mean, column by column: `labels: {1: Pneumonia, 0: Normal}`."""

    view: Meanings = Field({}, description="Value → view")
    sex: Meanings = Field({}, description="Value → F or M")
    split: Meanings = Field({}, description="Value → train, val or test")
    labels: Meanings = Field({}, description="Value → label's name; blank = none")


class TableConfig(Config):
    """Everything about a table that its header does not say.

    Attributes:
        findings: Columns about one finding each: a list, or column → finding.
        masks: Column of mask paths → what the masks show.
        ignore: Columns that are not what their name says.
        unlisted: What it means that a label stands in other rows and not in this one.
    """

    image_root: str = Field(".", min_length=1, description="Folder that picture paths start from, beside the table")
    mask_root: str | None = Field(None, min_length=1, description="The same for masks; image_root unless told")
    strip_prefix: str = Field("", description="Beginning of picture and mask paths that is left out")
    delimiter: str | None = Field(None, description="One character or 'tab'; found in the header unless told")
    encoding: str = Field("utf-8-sig", description="Encoding of the table, such as cp1252")
    patient_namespace: str | None = Field(
        None, min_length=1, description="Dataset whose patients these are, such as nih-chestxray14"
    )
    columns: ColumnNames = ColumnNames()
    findings: Annotated[dict[str, str], BeforeValidator(_named)] = Field({}, description="Columns of one finding each")
    masks: dict[str, str] = Field({}, description="Column of mask paths → what they show")
    ignore: Names = ()
    states: StateWords = StateWords()
    values: Values = Values()
    separators: str = Field("|;", min_length=1, description="Characters between the labels of one cell")
    unlisted: Literal["not_mentioned", "absent"] = "not_mentioned"

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        value = "\t" if value in ("tab", "\\t") else value
        if value is not None and (len(value) != 1 or value in '\r\n" '):
            raise ValueError("write one character, or tab")
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            return codecs.lookup(value).name
        except LookupError:
            raise ValueError("there is no such encoding; usual ones are utf-8, cp1252 and utf-16") from None

    @field_validator("findings", "masks")
    @classmethod
    def _not_blank(cls, value: dict[str, str]) -> dict[str, str]:
        if not all(name.strip() for name in value.values()):
            raise ValueError("a finding's name is blank")
        return {column: name.strip() for column, name in value.items()}

    @property
    def named_columns(self) -> tuple[str, ...]:
        """All columns that are given a meaning here."""
        single = (
            getattr(self.columns, field) for field in ("image", "patient", "study", "view", "sex", "age", "split")
        )
        lists = (*self.columns.report, *self.columns.caption, *self.columns.labels, *self.findings, *self.masks)
        return (*(name for name in single if name is not None), *lists)


def load_config(folder: Path) -> TableConfig:
    """Return the config beside a table; the default where there is none.

    Raises:
        ConfigError: it holds an unknown key (the nearest is offered) or an unusable value, or its name is misspelt.
    """
    path = folder / CONFIG
    if path.exists():
        return parse_config(TableConfig, read_yaml(path), where=path)
    for other in sorted(folder.iterdir()):
        if _NEARLY.fullmatch(other.name):
            raise ConfigError("is not read under this name", where=other, fix=f"call it {CONFIG}")
    return TableConfig()
