"""Model card and data card of a run, as Markdown, after the formats of Mitchell et al. (2019) and Gebru et al. (2021).

Only what the run folder and the corpus know is stated. What a reader of the card needs and no file can tell (intended
use, consent, ethics) is said once, in general words, or asked for in square brackets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import umif
from umif.config import REGISTRY
from umif.errors import RegistryError
from umif.report.tables import interval, number, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.report.runs import RunData
    from umif.report.tables import Comparison, Verdict


def model_card(run: RunData, comparisons: Sequence[Comparison], verdicts: Sequence[Verdict]) -> str:
    """Return the model card of one run as Markdown."""
    model, data, optim = run.recipe["model"], run.recipe["data"], run.recipe["optim"]
    steps = run.log[-1]["step"] if run.log else 0
    seen = sum(row.get("pairs", 0) for row in run.log)
    start = run.info["starts"][-1]
    there = run.manifest.pairs if run.manifest else {}
    kinds = [kind for kind in data["kinds"] if there.get(kind, 1)]
    lines = [
        f"# Model card: {run.label}",
        "",
        "A radiograph encoder: a picture becomes one feature vector and a grid of patch features.",
        "",
        "## What it is",
        "",
        f"- Network: {model['backbone']}, {_shape(model)}{model['image_size']} × {model['image_size']} px, grey.",
        f"- Method: UmiF; image and supervision tokens in one space and two groups (p = {data['p_separate']:g}).",
        f"- Trained: {steps:,} steps, {seen:,} pairs of kinds {', '.join(kinds)}; AdamW, rate {optim['lr']:g}; "
        f"seed {run.recipe['seed']}.",
        f"- Started from: {'random weights' if model.get('init') == 'random' else model.get('init')}.",
        f"- Made with: umif {start['versions'].get('umif', umif.__version__)}, "
        f"torch {start['versions'].get('torch', '?')}, {start.get('dtype', '?')}; {start['time']}.",
        f"- Corpus: fingerprint `{run.info['corpus']['fingerprint']}`; see the data card.",
        "",
        "## What it is for",
        "",
        "Features for research: probes, segmentation, detection and retrieval on radiographs like those that it was",
        "trained on. It is **no medical device**. Nothing here was validated for use in care; scores are not",
        "calibrated probabilities of disease.",
        "",
        "## What it reached",
        "",
    ]
    if comparisons:
        lines += [
            "Test patients were never trained on, neither by the encoder nor by a head, unless a leak is named below.",
            "Intervals: 95 %, patients resampled.",
            "",
            "| task | data | labels | metric | encoder | value | 95 % interval | best baseline | its value |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for one in comparisons:
            ours, rival = one.trained, one.rival
            if ours is None:
                continue
            beside = f"{rival['encoder']} | {number(rival['value'])}" if rival else "– | –"
            lines.append(
                f"| {one.task} | {one.data} | {share(one.labels)} | {one.metric} | {ours['encoder']} "
                f"| {number(ours['value'])} | {interval(ours)} | {beside} |"
            )
    else:
        lines.append("Nothing was evaluated yet.")
    lost = [one for one in verdicts if one.outcome != "above"]
    lines += ["", "## Where it falls short", ""]
    for verdict in lost:
        what = verdict.comparison
        values = f"{number(verdict.ours['value'])} against {number(verdict.rival['value'])}"
        lines.append(f"- {what.task}, {what.data}, labels {share(what.labels)}: {verdict.words} ({values}).")
    if not lost:
        lines.append(
            "- No baseline that was tried wins or ties. Others may."
            if verdicts
            else "- Not known: no baseline was tried."
        )
    lines += _slices(comparisons)
    if leaks := _leaks(comparisons):
        lines += ["- **Leaks that the recipe acknowledges**: " + leaks + "."]
    lines += [
        "- Radiographs of other devices, ages, views or countries than the corpus's are untested.",
        "",
        "## Do it again",
        "",
        "```sh",
        f"umif pretrain {run.path / 'recipe.yaml'}",
        *run.commands,
        "```",
    ]
    return "\n".join(lines) + "\n"


def data_card(run: RunData) -> str | None:
    """Return the data card of the run's corpus as Markdown; `None` where the corpus is no longer at its place."""
    manifest = run.manifest
    if manifest is None:
        return None
    pairs = ", ".join(f"{count:,} {kind}" for kind, count in manifest.pairs.items() if count)
    splits = ", ".join(f"{count:,} {split}" for split, count in manifest.splits.items())
    lines = [
        f"# Data card: {run.corpus.name}",
        "",
        f"{manifest.images:,} images; pairs: {pairs}. Images by split: {splits}; no patient is in two splits.",
        f"Fingerprint `{manifest.fingerprint}` (corpus format {manifest.format}, umif {manifest.umif}).",
        "",
        "## Where it comes from",
        "",
        "| dataset | what | licence | seen | left out | unreadable | images | pairs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for reader in manifest.readers:
        card = _card(reader.name)
        own = ", ".join(f"{count:,} {kind}" for kind, count in reader.pairs.items() if count)
        lines.append(
            f"| {reader.name} | {getattr(card, 'title', '') or '–'} | {getattr(card, 'licence', '[fill in]')} "
            f"| {reader.seen:,} | {sum(reader.excluded.values()):,} | {reader.quarantined:,} | {reader.images:,} "
            f"| {own} |"
        )
    citations = [
        (reader.name, card.citation) for reader in manifest.readers if (card := _card(reader.name)) and card.citation
    ]
    if citations:
        lines += ["", "## To cite", "", *(f"- {name}: {citation}" for name, citation in citations)]
    lines += ["", "## What was left out, and why", ""]
    reasons = [
        f"- {reader.name}: {count:,} {reason}"
        for reader in manifest.readers
        for reason, count in reader.excluded.items()
    ]
    lines += reasons or ["Nothing."]
    config = manifest.config
    lines += [
        "",
        "## How it was made",
        "",
        f"- Pictures: grey, 8 bit, shorter side {config.shorter_side} px, JPEG quality {config.jpeg_quality}.",
        f"- Splits: {config.splits}, by patient; seed {config.split_seed}, val {config.val_share:g}, "
        f"test {config.test_share:g}.",
        f"- {manifest.duplicates:,} files repeat an earlier one; they are kept, in its split.",
        f"- Texts by language models: {manifest.generated or 'none'}.",
    ]
    overlaps = [
        f"- {reader.name}: {text}"
        for reader in manifest.readers
        for text in getattr(_card(reader.name), "overlaps", ())
    ]
    lines += ["", "## Known overlaps with other datasets", "", *(overlaps or ["None is known."])]
    lines += [
        "",
        "## What the files cannot tell",
        "",
        "- Whether patients consented, and to what: [see each dataset's own page].",
        "- Who may see this corpus: it holds derived pictures and texts, so each dataset's terms hold for it too.",
    ]
    return "\n".join(lines) + "\n"


def _card(name: str) -> Any:
    try:
        return REGISTRY.get("reader", name).card
    except RegistryError:  # a plug-in that is not installed here
        return None


def _shape(model: dict[str, Any]) -> str:
    parts = [f"{key} {model[key]}" for key in ("width", "depth", "heads") if model.get(key)]
    return f"{', '.join(parts)}, " if parts else ""


def _slices(comparisons: Sequence[Comparison]) -> list[str]:
    """Largest gaps between groups of patients, where a task measured them (`extra["slices"]`)."""
    lines = []
    for one in comparisons:
        slices = (one.trained or {}).get("extra", {}).get("slices")
        for name, group in slices.items() if isinstance(slices, dict) else ():
            gap = group.get("gap") if isinstance(group, dict) else None
            if isinstance(gap, dict) and gap.get("low") is not None and gap["low"] > 0:
                lines.append(
                    f"- {one.task}, {one.data}: differs by {name}, gap {number(gap['value'])} {interval(gap)}."
                )
    return lines


def _leaks(comparisons: Sequence[Comparison]) -> str:
    found = {
        leak["id"]: leak["count"]
        for one in comparisons
        for row in one.rows
        for leak in row.get("extra", {}).get("leaks", ())
    }
    return "; ".join(f"{name} ({count:,} images)" for name, count in sorted(found.items()))
