"""What every reader was checked against, as a table for the docs.

python -m umif.readers.overview docs/readers.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from umif.config import REGISTRY
from umif.errors import InputError

BEGIN, END = "<!-- checks: begin -->", "<!-- checks: end -->"
_ON = {"images": "real images", "tables": "real tables", "layout": "layout description", None: "not stated"}


def checks_table() -> str:
    """Return a Markdown table of UmiF's own readers: on what each was checked, and against what exactly."""
    lines = ["| reader | checked on | in detail |", "|---|---|---|"]
    for name in REGISTRY.names("reader"):
        reader = REGISTRY.get("reader", name)
        if reader.__module__.startswith("umif."):
            on = "its own images" if reader.card.access == "built-in" else _ON[reader.card.checked_on]
            lines.append(f"| `{name}` | {on} | {reader.card.checked_against} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """Return a page with the table between its marks.

    Raises:
        InputError: the marks are not there.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"no {BEGIN} … {END}", where="page", fix="put both lines where the table is to stand")
    return f"{before}{BEGIN}\n{checks_table()}\n{END}{after}"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(with_table(file.read_text(encoding="utf-8")), encoding="utf-8")
