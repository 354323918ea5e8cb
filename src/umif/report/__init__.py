"""Reports: runs, and corpora that were looked over, as HTML files that stand alone.

`write_report` is loaded when first used: printing a table of results needs no run folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umif.report.build import write_report
    from umif.report.quality import write_inspection

__all__ = ["write_inspection", "write_report"]


def __getattr__(name: str) -> Any:
    if name == "write_report":
        from umif.report.build import write_report

        return write_report
    if name == "write_inspection":
        from umif.report.quality import write_inspection

        return write_inspection
    raise AttributeError(f"module 'umif.report' has no attribute {name!r}")
