"""Native dataset folders → streams of `Record`; one file per dataset, found by scanning this package."""

from umif.readers.base import (
    Account,
    Card,
    Exclusion,
    Finding,
    LabelState,
    Question,
    Reader,
    Record,
    Region,
    Text,
)

__all__ = [
    "Account",
    "Card",
    "Exclusion",
    "Finding",
    "LabelState",
    "Question",
    "Reader",
    "Record",
    "Region",
    "Text",
]
