"""What every registered task promises, whoever wrote it."""

from __future__ import annotations

import json
import textwrap
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from planted_corpus import planted_corpus, registered
from umif.config import REGISTRY
from umif.corpus import Corpus, PrepareConfig, prepare
from umif.encoder import Encoder
from umif.errors import TaskError
from umif.models import ModelConfig, build_model
from umif.readers.base import Card, Reader, Record
from umif.tasks import detection, segmentation
from umif.tasks.base import Result, Task, TaskOptions
from umif.tasks.head_training import HeadTraining
from umif.tokens import TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TASKS = REGISTRY.names("task")
# Form is asked for here, not quality: what trains by steps takes few.
OPTIONS = TaskOptions(labels=(10.0, 100.0), bootstrap=50, progress=False, settings=("vqa.steps=3",))
# Keys that scripts read (`umif evaluate --json`).
KEYS = (
    "task", "data", "protocol", "labels", "metric", "value", "low", "high", "encoder", "baseline", "split_sha256",
    "n_patients",
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return planted_corpus(tmp_path_factory.mktemp("films"), patients=120)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = TextTokenizer.train(["signs of edema", "no evidence of pneumothorax"], vocab_size=100)
    config = ModelConfig(
        backbone="vit_tiny_patch16_224", image_size=32, depth=2, width=48, heads=3, vocab_size=tokenizer.vocab_size
    )
    return Encoder.of_model(build_model(config, seed=7), tokenizer=tokenizer, shorter_side=40, device="cpu")


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Form is asked for here, not quality: heads that take steps take few."""
    training = HeadTraining(steps=12, batch=16, validate_every=6)
    for module in (detection, segmentation):
        monkeypatch.setattr(module, "QUICK", module.QUICK.model_copy(update={"training": training}))


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    made: Task = REGISTRY.get("task", request.param)()
    return made


def test_a_task_says_what_it_is(task: Task) -> None:
    assert isinstance(task, Task)
    assert task.summary
    assert type(task).__doc__


def test_rows_are_the_same_every_time_and_no_global_state_is_touched(
    task: Task, encoder: Encoder, corpus: Corpus
) -> None:
    np.random.seed(5)  # noqa: NPY002 - the global state is what is watched
    torch.manual_seed(5)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index] # noqa: NPY002
    weights = encoder.weights_sha256
    first = task.run(encoder, corpus, OPTIONS)
    again = task.run(encoder, corpus, OPTIONS)
    assert list(first) == list(again)
    assert np.array_equal(np.random.get_state()[1], before[0])  # type: ignore[index] # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])
    assert torch.is_grad_enabled()
    fresh = Encoder(encoder._network, device="cpu")
    assert fresh.weights_sha256 == weights


def test_rows_hold_what_scripts_read(task: Task, encoder: Encoder, corpus: Corpus) -> None:
    rows = task.run(encoder, corpus, OPTIONS)
    assert rows
    assert set(KEYS) <= {field.name for field in fields(Result)}
    for row in rows:
        read = json.loads(json.dumps(row.to_json(), allow_nan=False))
        assert set(KEYS) <= set(read)
        assert np.isfinite(row.value)
        if row.low is not None and row.high is not None:
            assert row.low <= row.value <= row.high
        assert len(row.split_sha256) == 64
        assert row.n_patients > 0
        assert 0 <= row.labels <= 100
        for value in read["extra"].get("per_class", {}).values():  # as reports print them
            assert value is None or isinstance(value, float)


def test_a_baseline_stands_beside_every_row_on_the_same_test_set(task: Task, encoder: Encoder, corpus: Corpus) -> None:
    rows = task.run(encoder, corpus, OPTIONS)
    groups: dict[Any, list[Result]] = {}
    for row in rows:
        groups.setdefault((row.data, row.protocol, row.labels, row.metric), []).append(row)
    for group in groups.values():
        assert {row.baseline for row in group} == {True, False}
        assert len({(row.split_sha256, row.n_patients) for row in group}) == 1
        assert len({row.encoder for row in group}) == len(group)


def test_test_patients_are_those_of_the_corpus(task: Task, encoder: Encoder, corpus: Corpus) -> None:
    table = corpus.images_table(["patient", "split"]).to_pylist()
    test = {row["patient"] for row in table if row["split"] == "test"}
    assert all(row.n_patients <= len(test) for row in task.run(encoder, corpus, OPTIONS))


class Unlabelled(Reader):
    """Pictures without any label."""

    card = Card(licence="none needed: drawn", citation=None, images=None)
    name = "unlabelled"

    def records(self) -> Iterator[Record]:
        for path in sorted(self.root.glob("*.png")):
            yield Record(image=path, image_id=path.name)


def test_data_that_cannot_carry_a_task_is_refused_and_the_way_out_is_told(
    task: Task, encoder: Encoder, corpus: Corpus, tmp_path: Path
) -> None:
    films = corpus.path.parent / "films"
    with registered("reader", "unlabelled-films", Unlabelled):
        prepare(tmp_path / "corpus", [("unlabelled-films", films)], PrepareConfig(shorter_side=40))
    with pytest.raises(TaskError) as caught:
        task.run(encoder, Corpus.open(tmp_path / "corpus"), OPTIONS)
    assert caught.value.fix


def test_a_task_is_one_new_file(
    tmp_path: Path, corpus: Corpus, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"width-{tmp_path.name}"
    (tmp_path / "width_task_plugin.py").write_text(
        textwrap.dedent(f"""
        import umif
        from umif.tasks import Result, Task

        @umif.register("task", {name!r})
        class Width(Task):
            '''Tells the width.'''
            summary = "width"
            def run(self, encoder, corpus, options):
                return [Result(task={name!r}, data="none", protocol="none", labels=0.0, metric="width",
                               value=float(encoder.width), low=None, high=None, encoder="umif", baseline=False,
                               split_sha256="0" * 64, n_patients=0)]
        """),
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    # What is registered from here on is forgotten after the test.
    monkeypatch.setattr(REGISTRY, "_entries", {kind: dict(known) for kind, known in REGISTRY._entries.items()})
    __import__("width_task_plugin")
    assert name in REGISTRY.names("task")
    [row] = REGISTRY.get("task", name)().run(encoder, corpus, OPTIONS)
    assert row.value == encoder.width
