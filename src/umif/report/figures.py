"""Figures of a report as SVG text: training curves and intervals. No global plotting state is touched."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from umif.report.tables import Comparison

INK, MUTED, LINE = "#1d2733", "#64707d", "#dfe4ea"
# Told apart by most colour-blind readers too (after Okabe and Ito), and by lightness in print.
SERIES = ("#1f6aa5", "#c8590b", "#2a8a6a", "#8a5aa8", "#b3922b", "#4d5a68")
TRAINED, BASELINE = SERIES[0], "#8b95a1"

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 8.5,
    "svg.fonttype": "none",  # text stays text: small, sharp, searchable
    "svg.hashsalt": "umif",
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One small plot of curves over steps.

    `keys` are paths into a row of the log (`losses.align`) with the words for the legend.
    """

    title: str
    keys: tuple[tuple[str, str], ...]
    note: str = ""
    level: float | None = None


PANELS = (
    Panel("Alignment loss (eq. 1)", (("losses.align", "align"),)),
    Panel("Consistency loss (eq. 2)", (("losses.con", "con"),)),
    Panel("Feature spread", (("std", "std × √D"),), note="1 = over the whole sphere, 0 = collapsed"),
    Panel(
        "Uniformity and alignment",
        (("uniformity", "uniformity"), ("alignment", "alignment")),
        note="both: lower is better",
    ),
    Panel(
        "In-batch accuracy",
        (("accuracy", "accuracy"), ("chance", "chance")),
        note="nearest feature is the pair's other group",
    ),
    Panel("Gradient norm", (("grad_norm", "norm"),)),
    Panel("Learning rate", (("lr", "rate"),)),
    Panel("Throughput", (("pairs_per_s", "pairs/s"),)),
)


def series(log: Sequence[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and values of `key` (dots go into nested objects) where the log has finite ones.

    Shapes: (n,), (n,).
    """
    steps, values = [], []
    for row in log:
        value: Any = row
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, (int, float)) and np.isfinite(value):
            steps.append(row["step"])
            values.append(float(value))
    return np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64)


def smooth(values: np.ndarray, span: float) -> np.ndarray:
    """Return the exponential moving average with its start corrected; `span` in points.

    Shapes: (n,) → (n,).
    """
    keep = 1 - 2 / (span + 1)
    averaged = np.empty_like(values)
    total = weight = 0.0
    for index, value in enumerate(values):
        total, weight = keep * total + value, keep * weight + 1
        averaged[index] = total / weight
    return averaged


def training_curves(logs: dict[str, Sequence[dict[str, Any]]]) -> str:
    """Return the training curves of one or more runs as SVG, a small plot each; empty if nothing was logged."""
    panels = [
        panel for panel in (*PANELS[:2], *_other_losses(logs), *PANELS[2:])
        if any(len(series(log, key)[0]) for log in logs.values() for key, _ in panel.keys)
    ]  # fmt: skip
    if not panels:
        return ""
    columns = 4
    rows = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.2, 2.35 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, panel in zip(axes, panels, strict=False):
            _draw_panel(axis, panel, logs)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        return to_svg(figure, "Training curves over steps: " + ", ".join(panel.title.lower() for panel in panels))


def _other_losses(logs: dict[str, Sequence[dict[str, Any]]]) -> list[Panel]:
    """A panel for each objective beside the paper's two; the total says nothing that they do not."""
    names = {name for log in logs.values() for row in log[:1] for name in row.get("losses", {})}
    return [Panel(f"Loss {name}", ((f"losses.{name}", name),)) for name in sorted(names - {"align", "con", "total"})]


def _draw_panel(axis: Axes, panel: Panel, logs: dict[str, Sequence[dict[str, Any]]]) -> None:
    several = len(logs) > 1
    for run_index, (run, log) in enumerate(logs.items()):
        for key_index, (key, word) in enumerate(panel.keys):
            steps, values = series(log, key)
            if not len(steps):
                continue
            colour = SERIES[(run_index if several else key_index) % len(SERIES)]
            style = ("-", "--", ":")[key_index % 3] if several else "-"
            label = (f"{run}: {word}" if len(panel.keys) > 1 else run) if several else word
            if len(values) > 60:
                axis.plot(*_thin(steps, values), color=colour, alpha=0.22, linewidth=0.7)
                axis.plot(*_thin(steps, smooth(values, len(values) / 25)), color=colour, linestyle=style, label=label)
            else:
                axis.plot(steps, values, color=colour, linestyle=style, label=label)
    axis.set_title(panel.title, pad=14 if panel.note else 6)
    if panel.note:
        axis.text(0, 1.03, panel.note, transform=axis.transAxes, fontsize=7, color=MUTED)
    if several or len(panel.keys) > 1:
        axis.legend(loc="best", handlelength=1.4)
    axis.set_xlabel("step", fontsize=7.5)
    axis.margins(x=0.02)
    if panel.keys[0][0] == "lr":
        axis.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


def _thin(steps: np.ndarray, values: np.ndarray, most: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Keep at most `most` points, evenly, so that a long run's report stays small."""
    if len(steps) <= most:
        return steps, values
    chosen = np.linspace(0, len(steps) - 1, most).round().astype(np.int64)
    return steps[chosen], values[chosen]


def interval_plot(comparisons: Sequence[Comparison]) -> str:
    """Return the rows of comparisons as dots with their 95 % intervals, one line a row, as SVG."""
    rows = [(comparison, row) for comparison in comparisons for row in comparison.rows]
    if not rows:
        return ""
    heads = len(comparisons) > 1
    lines = len(rows) + (len(comparisons) if heads else 0)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.0, 0.5 + 0.25 * lines), layout="constrained")
        axis = figure.subplots()
        places, words, place = [], [], 0.0
        for comparison in comparisons:
            if heads:
                axis.annotate(
                    f"{comparison.labels:g} % of the labels", (0, place), xycoords=("axes fraction", "data"),
                    xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5, color=MUTED,
                    fontweight="bold",
                )  # fmt: skip
                place += 1
            for row in comparison.rows:
                _draw_row(axis, row, place)
                places.append(place)
                words.append(row_name(row))
                place += 1
        axis.set_yticks(places, words, fontsize=8)
        axis.set_ylim(place - 0.4, -0.6)
        axis.grid(visible=False, axis="y")
        axis.set_xlabel(f"{comparisons[0].metric}, 95 % interval over patients", fontsize=7.5)
        axis.margins(x=0.08)
        alt = "; ".join(f"{row_name(row)} {row['value']:.3f}" for _, row in rows)
        return to_svg(figure, f"{comparisons[0].task}, {comparisons[0].data}, {comparisons[0].metric}: {alt}")


def _draw_row(axis: Axes, row: dict[str, Any], place: float) -> None:
    colour = BASELINE if row["baseline"] else TRAINED
    if row["low"] is not None and row["high"] is not None:
        axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2, solid_capstyle="round")
    axis.plot(
        row["value"], place, "o", color=colour, markersize=6, markerfacecolor="white" if row["baseline"] else colour
    )


def row_name(row: dict[str, Any]) -> str:
    """Return what a row is called: its encoder, and the run where several are shown."""
    return f"{row['encoder']} ({row['run']})" if row.get("show_run") and not row["baseline"] else str(row["encoder"])


def to_svg(figure: Figure, description: str) -> str:
    """Return a figure as SVG that the page sizes, without anything that changes from time to time.

    Args:
        figure: Drawn under `STYLE`.
        description: What it shows, for those who cannot see it.
    """
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Sized by the page; the drawing's own size stays as its largest.
    width = re.search(r'width="([\d.]+)pt"', svg)
    most = f"max-width:{float(width[1]) * 4 / 3:.0f}px" if width else ""
    svg = re.sub(r'width="[\d.]+pt"', "", re.sub(r'height="[\d.]+pt"', "", svg, count=1), count=1)
    label = description.replace("&", "and").replace("<", " ").replace('"', "'")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}" style="{most}"', 1)
