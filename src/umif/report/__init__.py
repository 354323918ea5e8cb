"""Reports: curves, sample sheets, results and accounts of runs as one HTML file that stands alone.

`write_report` is loaded when first used: printing a table of results needs no run folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umif.report.build import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    if name == "write_report":
        from umif.report.build import write_report

        return write_report
    raise AttributeError(f"module 'umif.report' has no attribute {name!r}")
