"""No run begins on a corpus that leaks into what it will be tested on, unless the recipe says that this is known.

The audit is made once: a run that goes on, over the same corpora and quarantine lists, takes what its `run.json` holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from umif.corpus import Corpus
from umif.corpus.audit import Evaluation, audit_corpus
from umif.corpus.quarantine import read_quarantine
from umif.errors import LeakError

if TYPE_CHECKING:
    from umif.train.recipe import Recipe

KEY = "audit"


def declared_leaks(recipe: Recipe, known: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what the run folder keeps of the audit; `None` where the recipe declares no evaluation.

    Args:
        recipe: As given.
        known: The run's `run.json`, if it has one.

    Raises:
        LeakError: a leak that the recipe does not acknowledge; all of them are named.
        CorpusError: a declared corpus cannot be opened.
        EmptyError: a declared split has no image.
    """
    if not recipe.evaluations:
        return None
    corpus = Corpus.open(recipe.corpus)
    evaluations = [
        Evaluation(declared.corpus.name, Corpus.open(declared.corpus), (declared.split,))
        for declared in recipe.evaluations
    ]
    about: dict[str, Any] = {
        "corpus": corpus.fingerprint,
        "split": recipe.data.split,
        "datasets": None if recipe.data.datasets is None else list(recipe.data.datasets),
        "evaluations": [
            {"name": each.name, "split": each.splits[0], "fingerprint": each.corpus.fingerprint} for each in evaluations
        ],
    }
    lists = [read_quarantine(each.path).sha256 for each in (corpus, *(declared.corpus for declared in evaluations))]
    if any(lists):
        about["quarantine"] = lists
    before = (known or {}).get(KEY)
    if before is not None and before.get("about") == about:
        leaks = before["leaks"]
    else:
        report = audit_corpus(
            corpus, evaluations, trained=(recipe.data.split,), datasets=recipe.data.datasets, shortcuts=False
        )
        leaks = [{name: value for name, value in leak.to_json().items() if name != "examples"} for leak in report.leaks]
    leaks = [{**leak, "acknowledged": leak["id"] in recipe.acknowledged_leaks} for leak in leaks]
    _refuse(recipe, [leak for leak in leaks if not leak["acknowledged"]])
    return {"about": about, "leaks": leaks}


def leaks_into(record: dict[str, Any] | None, fingerprint: str) -> list[dict[str, Any]] | None:
    """Return a run's leaks into the corpus of some fingerprint; `None` where the run did not declare that corpus.

    Args:
        record: The run's `run.json`.
        fingerprint: Of the corpus that is tested on.
    """
    audit = (record or {}).get(KEY)
    if audit is None:
        return None
    names = {each["name"] for each in audit["about"]["evaluations"] if each["fingerprint"] == fingerprint}
    if not names:
        return None
    kept = ("id", "how", "left", "right", "count", "acknowledged")
    return [{name: leak[name] for name in kept} for leak in audit["leaks"] if leak["against"] in names]


def _refuse(recipe: Recipe, leaks: list[dict[str, Any]]) -> None:
    if not leaks:
        return
    lines = "; ".join(f"{leak['id']} ({leak['count']} images of {leak['against']})" for leak in leaks)
    ids = ", ".join(sorted({leak["id"] for leak in leaks}))
    raise LeakError(
        f"the corpus leaks into what the recipe declares as tested on: {lines}",
        where=recipe.corpus,
        fix="leave those images out (umif audit shows them, quarantine.csv excludes them), or acknowledge the leaks, "
        f"which the report will then say: acknowledged_leaks: [{ids}]",
    )
