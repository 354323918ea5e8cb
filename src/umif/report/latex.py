"""Rows of results → LaTeX: one table a task and data, for booktabs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from umif.report.tables import Comparison, number, share

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$", "→": r"$\to$", "≥": r"$\geq$", "–": "--",
}  # fmt: skip


def escape(text: str) -> str:
    """Return `text` so that LaTeX prints it as it is."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def results_latex(comparisons: Sequence[Comparison]) -> str:
    """Return the comparisons as LaTeX tables; the best row of each share of labels is bold, baselines are in italics.

    Needs the package booktabs.
    """
    grouped: dict[tuple[str, str, str, str], list[Comparison]] = {}
    for one in comparisons:
        grouped.setdefault((one.task, one.data, one.metric, one.protocol), []).append(one)
    parts = ["% Needs \\usepackage{booktabs}."]
    for (task, data, metric, protocol), group in grouped.items():
        shares = [one.labels for one in group]
        encoders = list(dict.fromkeys(_name(row) for one in group for row in one.rows))
        head = " & ".join(["encoder", *(escape(share(labels)) for labels in shares)])
        lines = [
            "\\begin{table}",
            f"\\caption{{{escape(f'{task}, {data}, {metric}')}, with 95\\,\\% intervals over patients. "
            f"{escape(protocol)}.}}",
            f"\\begin{{tabular}}{{l{'r' * len(shares)}}}",
            "\\toprule",
            f"{head} \\\\",
            "\\midrule",
        ]
        for encoder in encoders:
            cells = [_cell(one, encoder) for one in group]
            baseline = any(row["baseline"] for one in group for row in one.rows if _name(row) == encoder)
            name = f"\\textit{{{escape(encoder)}}}" if baseline else escape(encoder)
            lines.append(" & ".join([name, *cells]) + " \\\\")
        parts.append("\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]))
    return "\n\n".join(parts) + "\n"


def _name(row: dict[str, object]) -> str:
    return f"{row['encoder']} ({row['run']})" if row.get("show_run") and not row["baseline"] else str(row["encoder"])


def _cell(comparison: Comparison, encoder: str) -> str:
    row = next((row for row in comparison.rows if _name(row) == encoder), None)
    if row is None:
        return "--"
    value = number(row["value"])
    if row is comparison.rows[0]:
        value = f"\\textbf{{{value}}}"
    if row["low"] is None or row["high"] is None:
        return value
    return f"{value} {{\\scriptsize [{row['low']:.3f}, {row['high']:.3f}]}}"
