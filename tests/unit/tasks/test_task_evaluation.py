"""From a run folder to rows, and the file that keeps them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import umif
from planted_corpus import planted_corpus
from umif.config import REGISTRY
from umif.corpus import Corpus
from umif.corpus.quarantine import QUARANTINE, read_quarantine
from umif.encoder import load_encoder
from umif.errors import InputError, NonFiniteError, RegistryError, RunError, StorageError, TaskError
from umif.models import ModelConfig, build_model
from umif.tasks import Result, Task, TaskOptions, evaluate, published
from umif.tasks.evaluation import run_evaluation
from umif.tokens import TextTokenizer
from umif.train.checkpoint import save_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


CONFIG = ModelConfig(backbone="vit_tiny_patch16_224", image_size=32, depth=2, width=48, heads=3)
OPTIONS = TaskOptions(bootstrap=20, progress=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return planted_corpus(tmp_path_factory.mktemp("films"), patients=120)


@pytest.fixture
def run(tmp_path: Path, corpus: Corpus) -> Path:
    tokenizer = TextTokenizer.train(["signs of edema", "no evidence of pneumothorax"], vocab_size=100)
    folder = tmp_path / "run"
    folder.mkdir()
    record = {
        "name": "tiny",
        "recipe": {"model": CONFIG.model_dump(mode="json")},
        "corpus": {"path": str(corpus.path), "fingerprint": corpus.fingerprint},
    }
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    tokenizer.save(folder / "tokenizer")
    for step in (1, 2):
        model = build_model(CONFIG, vocab_size=tokenizer.vocab_size, seed=step)
        save_checkpoint(folder, step, {"model": model.state_dict()}, {"step": step})
    return folder


def kept(run: Path, name: str) -> dict[str, object]:
    content: dict[str, object] = json.loads((run / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return content


def test_rows_are_returned_and_kept_with_what_they_were_taken_on(run: Path, corpus: Corpus) -> None:
    results = evaluate(run, ["linear", "zero-shot"], None, OPTIONS)
    assert [row.task for row in results] == ["linear"] * 5 + ["zero-shot"] * 2
    encoder = load_encoder(run)
    for row in results:
        assert row.extra["corpus"] == corpus.fingerprint
        assert row.extra["weights_sha256"] == encoder.weights_sha256
        assert (row.extra["step"], row.extra["weights"]) == (2, "teacher")
    assert encoder.preprocessing.shorter_side == 40  # the corpus's own
    linear = kept(run, "linear")
    assert linear["results"] == json.loads(json.dumps([row.to_json() for row in results[:5]]))
    assert linear["umif"] == umif.__version__
    assert linear["corpus"] == corpus.fingerprint
    assert str(linear["command"]).startswith(f"umif evaluate {run} linear --labels 100%")
    assert sorted(path.name for path in (run / "results").iterdir()) == ["linear.json", "zero-shot.json"]
    # Features were extracted once for both tasks: CLS and patches of two encoders.
    assert len(list((run / "features").iterdir())) == 4


def test_evaluating_again_gives_the_same_rows(run: Path) -> None:
    first = evaluate(run, "linear", options=OPTIONS)
    content = (run / "results" / "linear.json").read_bytes()
    assert evaluate(run, "linear", options=OPTIONS) == first
    assert (run / "results" / "linear.json").read_bytes() == content


def test_rows_of_another_corpus_stay_and_rows_of_other_weights_do_not(
    run: Path, corpus: Corpus, tmp_path: Path
) -> None:
    other = planted_corpus(tmp_path / "other", patients=120, split_seed=1)
    evaluate(run, "zero-shot", corpus, OPTIONS)
    evaluate(run, "zero-shot", other, OPTIONS)
    evaluate(run, "zero-shot", other, OPTIONS)
    rows = kept(run, "zero-shot")["results"]
    assert isinstance(rows, list)
    assert [row["extra"]["corpus"] for row in rows] == [corpus.fingerprint] * 2 + [other.fingerprint] * 2
    tokenizer = TextTokenizer.load(run / "tokenizer")
    model = build_model(CONFIG, vocab_size=tokenizer.vocab_size, seed=3)
    save_checkpoint(run, 3, {"model": model.state_dict()}, {"step": 3})
    evaluate(run, "zero-shot", other, OPTIONS)
    rows = kept(run, "zero-shot")["results"]
    assert isinstance(rows, list)
    assert [row["extra"]["step"] for row in rows] == [3, 3]


def test_results_of_a_checkpoint_do_not_mix_with_the_runs(run: Path) -> None:
    first = run / "checkpoints" / "step-00000001"
    rows = evaluate(first, "zero-shot", options=OPTIONS)
    assert rows[0].extra["step"] == 1
    assert (run / "results" / "step-00000001" / "zero-shot.json").exists()
    assert not (run / "results" / "zero-shot.json").exists()
    load_encoder(first)  # still verifies: nothing was written into it


def test_student_and_teacher_are_told_apart_in_the_rows(run: Path) -> None:
    assert evaluate(run, "zero-shot", options=OPTIONS, weights="student")[0].extra["weights"] == "student"


def test_a_damaged_results_file_is_replaced(run: Path) -> None:
    (run / "results").mkdir()
    (run / "results" / "zero-shot.json").write_text("{", encoding="utf-8")
    evaluate(run, "zero-shot", options=OPTIONS)
    assert kept(run, "zero-shot")["task"] == "zero-shot"


def test_bad_requests_are_refused_before_any_work(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="Did you mean 'linear'"):
        evaluate(run, ["liner"])
    with pytest.raises(TaskError, match="no task is named"):
        evaluate(run, [])
    with pytest.raises(RunError, match="which corpus"):
        evaluate(tmp_path / "nowhere", "linear")
    (run / "results").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot be written"):
        evaluate(run, "zero-shot", options=OPTIONS)


def test_the_built_in_tasks_are_registered() -> None:
    assert {"linear", "zero-shot"} <= set(REGISTRY.names("task"))


def test_results_name_the_quarantine_list_that_they_were_taken_under(run: Path, corpus: Corpus, tmp_path: Path) -> None:
    copy = Corpus.open(shutil.copytree(corpus.path, tmp_path / "copy"))
    before = evaluate(run, "zero-shot", copy, OPTIONS)[0]
    images = copy.take_images(copy.image_rows("test")[:2], ["image"])
    (copy.path / QUARANTINE).write_text("item,decision\n" + "".join(f"{row['image']},exclude\n" for row in images))
    after = evaluate(run, "zero-shot", copy, OPTIONS)[0]
    assert "quarantine_sha256" not in before.extra
    assert after.extra["quarantine_sha256"] == read_quarantine(copy.path).sha256
    assert after.split_sha256 != before.split_sha256


def test_rows_of_clean_and_of_published_splits_are_kept_side_by_side(
    run: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = published.PublishedSplit.model_validate(
        {"dataset": "planted-films", "use": "classification", "unit": "image", "from": {"any": "train"}, "val": 0.2,
         "test": 0.3, "note": "by image"}
    )  # fmt: skip
    monkeypatch.setattr(published, "published_splits", lambda: (rule,))
    evaluate(run, "zero-shot", corpus, OPTIONS)
    paper = evaluate(run, "zero-shot", corpus, replace(OPTIONS, splits="paper"))
    assert paper[0].extra["overlap"]["test_patients_in_train"] > 0
    rows = kept(run, "zero-shot")["results"]
    assert isinstance(rows, list)
    assert [row["extra"].get("splits", "clean") for row in rows] == ["clean", "clean", "paper", "paper"]
    assert len({row["split_sha256"] for row in rows}) == 2
    assert str(kept(run, "zero-shot")["command"]).count("--protocol paper") == 1
    evaluate(run, "zero-shot", corpus, replace(OPTIONS, splits="paper"))
    assert len(kept(run, "zero-shot")["results"]) == 4  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- all, again, against
class Refuses(Task):
    """Cannot be carried by any corpus."""

    summary = "refuses"

    def run(self, encoder: Any, corpus: Any, options: Any) -> list[Result]:
        raise TaskError("nothing to draw here", fix="bring masks")


def test_all_leaves_out_what_cannot_be_carried_and_keeps_the_rest(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY, "_entries", {kind: dict(known) for kind, known in REGISTRY._entries.items()})
    tasks = {"aaa-refuses": Refuses, "zero-shot": REGISTRY.get("task", "zero-shot")}
    monkeypatch.setitem(REGISTRY._entries, "task", tasks)
    outcome = run_evaluation(run, "all", None, OPTIONS)
    assert [row.task for row in outcome.results] == ["zero-shot"] * 2
    [left] = outcome.left_out
    assert (left.task, left.reason, left.fix) == ("aaa-refuses", "nothing to draw here", "bring masks")
    json.dumps(outcome.to_json(), allow_nan=False)
    with pytest.raises(TaskError, match="nothing to draw"):
        run_evaluation(run, ["zero-shot", "aaa-refuses"], None, OPTIONS)


def test_rows_that_answer_the_same_question_are_taken_and_others_are_not(
    run: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[TaskOptions] = []
    original = REGISTRY.get("task", "zero-shot").run

    def counted(self: Any, encoder: Any, data: Any, options: TaskOptions) -> Any:
        done.append(options)
        return original(self, encoder, data, options)

    monkeypatch.setattr(REGISTRY.get("task", "zero-shot"), "run", counted)
    first = run_evaluation(run, "zero-shot", None, OPTIONS)
    second = run_evaluation(run, "zero-shot", corpus, replace(OPTIONS, progress=True))
    assert (len(done), second.taken, second.results) == (1, ("zero-shot",), first.results)
    run_evaluation(run, "zero-shot", None, OPTIONS, again=True)
    run_evaluation(run, "zero-shot", None, replace(OPTIONS, bootstrap=21))
    run_evaluation(run, "zero-shot", None, replace(OPTIONS, bootstrap=21), weights="student")
    monkeypatch.setattr(umif, "__version__", "another")
    run_evaluation(run, "zero-shot", None, replace(OPTIONS, bootstrap=21), weights="student")
    assert len(done) == 5


@pytest.fixture
def rival(tmp_path: Path) -> str:
    file = tmp_path / "weights.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), file)
    return f"timm:test_vit@{file}"


def test_encoders_of_others_stand_beside_the_model_on_the_same_patients(run: Path, rival: str) -> None:
    outcome = run_evaluation(run, ["linear", "zero-shot"], None, OPTIONS, against=[rival, rival])
    rows = {row.encoder: row for row in outcome.results if row.task == "linear"}
    assert len(rows) == 7
    own = rows["umif cls"]
    for name in (f"{rival} cls", f"{rival} patches 4×4"):
        row = rows[name]
        assert row.baseline
        assert (row.split_sha256, row.protocol, row.n_patients) == (own.split_sha256, own.protocol, own.n_patients)
        assert row.extra["preprocessing"]["interpolation"] == "bicubic"
        [gain] = [gain for gain in own.extra["gains"] if gain["over"] == name]
        assert gain["value"] == pytest.approx(own.value - row.value)
        assert gain["low"] <= gain["high"]
    assert not any(rival in row.encoder for row in outcome.results if row.task == "zero-shot")
    assert outcome.notes == (f"zero-shot leaves out {rival}: it reads no words",)
    again = run_evaluation(run, ["linear", "zero-shot"], None, OPTIONS, against=[rival])
    assert (again.taken, again.results, again.notes) == (("linear", "zero-shot"), outcome.results, outcome.notes)
    assert run_evaluation(run, "linear", None, OPTIONS).taken == ()  # without the rival it is another question


def test_an_encoder_of_others_is_evaluated_by_itself(rival: str, corpus: Corpus, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run_evaluation(rival, "all", corpus, OPTIONS, out=out)
    rows = [row for row in outcome.results if row.task == "linear"]
    names = [
        f"{rival} cls",
        f"{rival} patches 4×4",
        f"random {rival} cls",
        f"random {rival} patches 4×4",
        "pixels 32×32",
    ]
    assert [row.encoder for row in rows] == names
    assert [row.baseline for row in rows] == [False, False, True, True, True]
    assert "zero-shot" in [one.task for one in outcome.left_out]
    assert (out / "results" / "linear.json").exists()
    with pytest.raises(InputError, match="--out"):
        run_evaluation(rival, "linear", corpus, OPTIONS)
    with pytest.raises(RunError, match="--data"):
        run_evaluation(rival, "linear", None, OPTIONS, out=out)
    with pytest.raises(TaskError, match="reads no words"):
        run_evaluation(rival, "zero-shot", corpus, OPTIONS, out=out)


def test_a_task_that_knows_no_published_splits_is_refused_them(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clean(Task):
        """Looks at no splits."""

        def run(self, encoder: Any, corpus: Any, options: Any) -> list[Result]:
            words = dict.fromkeys(("task", "data", "protocol", "metric", "encoder", "split_sha256"), "x")
            numbers = {"labels": 0.0, "value": 1.0, "low": None, "high": None, "n_patients": 1}
            return [Result.from_json({**words, **numbers, "baseline": False})]

    monkeypatch.setattr(REGISTRY, "_entries", {**REGISTRY._entries, "task": {"clean": Clean}})
    assert run_evaluation(run, "clean", None, OPTIONS).results[0].extra["splits"] == "clean"
    with pytest.raises(TaskError, match="knows no published splits"):
        run_evaluation(run, "clean", None, replace(OPTIONS, splits="paper"))


def test_features_that_are_no_numbers_stop_the_evaluation(run: Path, corpus: Corpus) -> None:
    tokenizer = TextTokenizer.load(run / "tokenizer")
    model = build_model(CONFIG, vocab_size=tokenizer.vocab_size, seed=3)
    with torch.no_grad():
        model.teacher.vit.norm.weight[:] = float("nan")  # type: ignore[union-attr, operator]
    save_checkpoint(run, 3, {"model": model.state_dict()}, {"step": 3})
    with pytest.raises(NonFiniteError, match="NaN"):
        evaluate(run, "all", corpus, OPTIONS)
