"""ROC curves of a classification's contenders as SVG, from what its rows keep (`extra["roc"]`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from umif.report.figures import LINE, SERIES, STYLE, row_name, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from umif.report.tables import Comparison, Row

_COLUMNS = 5
# More findings than this and single curves are too small to read; their mean still tells of all.
_MOST_CLASSES = 14


def roc_figure(comparison: Comparison) -> str:
    """Return the curves of all rows: one panel, or of several classes their mean and a panel each; empty without any.

    Trained encoders are drawn solid, baselines dashed. Colours go with the contenders' names, so that one keeps its own
    from figure to figure wherever it comes in the table.
    """
    rows = [row for row in comparison.rows if row.get("extra", {}).get("roc")]
    if not rows:
        return ""
    names = [name for name in rows[0]["extra"]["roc"]["found"] if all(name in _found(row) for row in rows)]
    shown = names if 1 < len(names) <= _MOST_CLASSES else []
    titles = [names[0] if len(names) == 1 else f"Mean of {len(names)} classes", *shown]
    columns = min(_COLUMNS, len(titles))
    lines = -(-len(titles) // columns)
    with mpl.rc_context(STYLE):
        # A single panel stays as large as it has to be for its names below it.
        wide = max(4.4, 2.25 * columns)
        figure = Figure(figsize=(wide, (3.6 if len(titles) == 1 else 2.35) * lines + 0.5), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for axis, title, chosen in zip(axes, titles, [names, *([name] for name in shown)], strict=False):
            _draw(axis, title, rows, chosen)
        for axis in axes[len(titles) :]:
            axis.set_visible(False)
        handles, words = (each[::-1] for each in axes[0].get_legend_handles_labels())
        if "AUC" in comparison.metric:
            words = [f"{word} {row['value']:.3f}" for word, row in zip(words, rows, strict=True)]
        figure.legend(handles, words, loc="outside lower left", ncols=max(2, int(wide / 2.2)), handlelength=2.2)
        alt = ", ".join(words)
        return to_svg(figure, f"ROC curves of {comparison.task}, {comparison.data}: {alt}")


def _found(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = row["extra"]["roc"]["found"]
    return found


def _draw(axis: Axes, title: str, rows: list[Row], names: list[str]) -> None:
    """Draw the mean over some classes of every row's curve."""
    axis.plot([0, 1], [0, 1], color=LINE, linewidth=1)
    named = sorted(rows, key=lambda row: (row["baseline"], row_name(row)))
    colours = {id(row): SERIES[index % len(SERIES)] for index, row in enumerate(named)}
    # The best is drawn last, over the others.
    for row in reversed(rows):
        curve = np.mean([_found(row)[name] for name in names], axis=0)
        axis.plot(
            row["extra"]["roc"]["false_alarms"],
            curve,
            color=colours[id(row)],
            linestyle="--" if row["baseline"] else "-",
            linewidth=1.1 if row["baseline"] else 1.6,
            label=row_name(row),
        )
    axis.set_title(title.replace("_", " "))
    axis.set_xlim(-0.01, 1.01)
    axis.set_ylim(-0.01, 1.01)
    axis.set_aspect("equal")
    ticks = [0, 0.5, 1]
    axis.set_xticks(ticks, ["0", "0.5", "1"])
    axis.set_yticks(ticks, ["0", "0.5", "1"])
    axis.set_xlabel("1 − specificity", fontsize=7.5)
    axis.set_ylabel("sensitivity", fontsize=7.5)
