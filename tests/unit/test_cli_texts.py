"""`umif texts` on the command line: nothing is sent unasked, a kill loses nothing, texts reach the next corpus."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from chat_server import Reply, serving, told
from umif.cli import main
from umif.corpus import Corpus
from umif.language.llm import read_generated
from umif.language.llm.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COUNT = 1000


def right(body: dict[str, Any], _: int = 0) -> Reply:
    number = body["messages"][1]["content"].rpartition(" ")[2]
    return Reply(told(f"There is a pleural effusion in image {number}"))


def table(folder: Path, count: int, dataset: str | None = "covid-chestxray") -> Path:
    path = folder / "in.jsonl"
    rows = [{"id": f"i{n}", "text": f"derrame pleural en imagen {n}", "dataset": dataset} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def arguments(source: Path, url: str, *more: str) -> list[str]:
    out = source.parent / "out.parquet"
    return ["texts", "translate", str(source), "--out", str(out), "--endpoint", url, "--model", "m", *more]


def test_without_send_the_estimate_and_an_example_are_printed_and_nothing_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(right) as server:
        prices = ("--price-in", "2", "--price-out", "10", "--requests-per-min", "60")
        assert main(arguments(table(tmp_path, 30), server.url, *prices)) == 0
        output = capsys.readouterr()
        assert "nothing was sent" in output.out
        assert "requests   30, at most 90" in output.err
        assert "derrame pleural en imagen 0" in output.err
        assert main(arguments(table(tmp_path, 30), server.url, *prices, "--json")) == 0
        answer = json.loads(capsys.readouterr().out)
        assert not server.seen.bodies
    told_before = answer["estimate"]
    assert (told_before["items"], told_before["requests"], told_before["requests_most"], answer["sent"]) == (
        30,
        30,
        90,
        0,
    )
    tokens_in, tokens_out = told_before["tokens_in"], told_before["tokens_out"]
    assert told_before["cost"] == pytest.approx((2 * tokens_in + 10 * tokens_out) / 1e6)
    assert told_before["cost_most"] == pytest.approx((2 * 3 * tokens_in + 10 * 90 * 800) / 1e6)
    assert told_before["seconds"] == pytest.approx(30)
    assert answer["example"][0]["role"] == "system"
    assert not (tmp_path / "out.parquet").exists()


def test_the_estimate_learns_from_the_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(right) as server:
        assert main(arguments(table(tmp_path, 40), server.url, "--send", "--yes", "--limit", "25")) == 0
        capsys.readouterr()
        assert main(arguments(table(tmp_path, 40), server.url, "--json")) == 0
    estimate = json.loads(capsys.readouterr().out)["estimate"]
    assert (estimate["cached"], estimate["requests"], estimate["measured"]) == (25, 15, True)
    assert estimate["tokens_out"] == 15 * 20  # the server says 20 for each


def test_sending_unasked_is_refused_where_nobody_can_be_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(right) as server:
        assert main(arguments(table(tmp_path, 3), server.url, "--send")) == 2
        assert "--yes" in capsys.readouterr().err
        assert not server.seen.bodies
        assert main(arguments(table(tmp_path, 3), server.url, "--send", "--yes", "--json")) == 0
        answer = json.loads(capsys.readouterr().out)
        assert (answer["accepted"], answer["rejected"], answer["unfinished"], answer["sent"]) == (3, 0, 0, 3)
        # What needs nothing sent needs no yes.
        assert main(arguments(table(tmp_path, 3), server.url, "--send")) == 0
        assert len(server.seen.bodies) == 3
    rows = read_generated(tmp_path / "out.parquet")
    assert [(row.id, row.text) for row in rows] == [
        (f"i{n}", f"There is a pleural effusion in image {n}") for n in range(3)
    ]


@pytest.mark.parametrize("agreed", [True, False])
def test_somebody_at_a_terminal_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agreed: bool) -> None:
    asked: list[str] = []

    def confirm(question: str, **_: Any) -> bool:
        asked.append(question)
        return agreed

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", confirm)
    with serving(right) as server:
        assert main(arguments(table(tmp_path, 3), server.url, "--send")) == (0 if agreed else 2)
        assert len(server.seen.bodies) == (3 if agreed else 0)
    assert asked == ["Send?"]


@pytest.mark.parametrize("dataset", [None, "rsna-pneumonia", "padchest", "mimic-cxr"])
def test_restricted_data_are_refused_for_a_machine_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, dataset: str | None
) -> None:
    source = table(tmp_path, 2, dataset)
    with serving(right) as server:
        port = server.server_address[1]
        # An endpoint that counts as somebody else's but leads back here, so that what is sent can be seen.
        elsewhere = Endpoint("127.0.0.1", port, "/v1/chat/completions", https=False, local=False)
        monkeypatch.setattr("umif.language.llm.endpoint", lambda *_: elsewhere)
        asked = arguments(source, "https://api.example.org/v1", "--send", "--yes")
        assert main(asked) == 2
        assert "restricted" in capsys.readouterr().err
        assert not server.seen.bodies
        assert main([*asked, "--i-am-permitted-to-send"]) == 0
        assert len(server.seen.bodies) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--out", "x.csv"], "no table"),
        (["--budget", "3"], "prices"),
        (["--key-env", "UMIF_NO_SUCH_VARIABLE"], "not set"),
        (["--endpoint", "localhost:11434"], "no address"),
        (["--field", "model=other"], "cannot be set"),
        (["--field", "top_p"], "key=value"),
        (["--prompts", "gone.yaml"], "gone.yaml"),
        (["--dataset", "a", "--dataset", "b"], "one dataset"),
    ],
)
def test_bad_usage_is_two_with_a_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    assert main(arguments(table(tmp_path, 2), "http://127.0.0.1:9/v1", *change)) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err


def test_fields_are_added_and_left_out(tmp_path: Path) -> None:
    fields = ("--field", "top_p=0.5", "--field", "temperature=null", "--field", "response_format.type=json_object")
    with serving(right) as server:
        assert main(arguments(table(tmp_path, 1), server.url, "--send", "--yes", *fields)) == 0
        body = server.seen.bodies[0]
    assert body["top_p"] == 0.5
    assert "temperature" not in body
    assert body["response_format"] == {"type": "json_object"}


def test_rejected_items_are_listed_and_unfinished_ones_make_the_work_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(body: dict[str, Any], _: int) -> Reply:
        number = int(body["messages"][1]["content"].rpartition(" ")[2])
        return Reply("nonsense") if number == 1 else Reply(status=500, raw=b"") if number == 2 else right(body)

    with serving(script) as server:
        assert main(arguments(table(tmp_path, 4), server.url, "--send", "--yes", "--retries", "0")) == 1
    printed = capsys.readouterr().out
    assert "2 texts, 1 rejected, 1 unfinished" in printed
    rejected = [json.loads(line) for line in (tmp_path / "out.parquet.rejected.jsonl").read_text().splitlines()]
    assert [(row["id"], row["reasons"]) for row in rejected] == [("i1", ["is no JSON object"] * 3)]
    assert [row.id for row in read_generated(tmp_path / "out.parquet")] == ["i0", "i3"]


def command(source: Path, url: str, concurrency: int) -> list[str]:
    more = ("--send", "--yes", "--json", "--concurrency", str(concurrency))
    return [sys.executable, "-m", "umif", *arguments(source, url, *more)]


def wait_for(condition: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


class Gate:
    """Answers so many requests; later ones wait until it is opened, so that the machine's load decides nothing."""

    def __init__(self, limit: int, pace: float = 0.0) -> None:
        self.limit, self.pace = limit, pace
        self._asked, self._lock, self._opened = 0, threading.Lock(), threading.Event()

    def __call__(self, body: dict[str, Any], _: int) -> Reply:
        with self._lock:
            self._asked += 1
            late = self._asked > self.limit
        if late:
            self._opened.wait(60)
            time.sleep(self.pace)
        return right(body)

    def move(self, limit: int) -> None:
        """Let those that wait go on, and answer until `limit` in all."""
        with self._lock:
            self.limit, opened, self._opened = limit, self._opened, threading.Event()
        opened.set()

    def open(self) -> None:
        """Let all go on, for good."""
        self._opened.set()


def test_a_thousand_items_survive_kills_and_are_paid_for_once(tmp_path: Path) -> None:
    concurrency, kills = 8, (150, 600)
    source = table(tmp_path, COUNT)
    gate = Gate(0)
    with serving(gate) as server:
        for when in kills:
            gate.move(when + concurrency)
            with subprocess.Popen(command(source, server.url, concurrency), stdout=-3, stderr=-3) as child:
                wait_for(lambda when=when: sum(server.seen.delivered.values()) >= when, child)  # type: ignore[misc]
                assert child.poll() is None, "it was done before it was killed"
                child.kill()
        gate.open()
        assert not (tmp_path / "out.parquet").exists()
        done = subprocess.run(command(source, server.url, concurrency), capture_output=True, check=True)
        answer = json.loads(done.stdout)
        twice = sum(count - 1 for count in server.seen.delivered.values())
    assert (answer["accepted"], answer["rejected"], answer["unfinished"]) == (COUNT, 0, 0)
    assert twice <= len(kills) * concurrency, "more was sent again than can have been in flight"
    rows = read_generated(tmp_path / "out.parquet")
    expected = [(f"i{n}", f"There is a pleural effusion in image {n}") for n in range(COUNT)]
    assert [(row.id, row.text) for row in rows] == expected
    assert {row.source for row in rows} == {"llm"}


def test_ctrl_c_keeps_what_was_in_flight(tmp_path: Path) -> None:
    source = table(tmp_path, 400)
    gate = Gate(40, pace=0.1)
    with serving(gate) as server:
        with subprocess.Popen(command(source, server.url, 8), stdout=-3, stderr=subprocess.PIPE) as child:
            wait_for(lambda: sum(server.seen.delivered.values()) >= 40, child)
            os.kill(child.pid, signal.SIGINT)
            time.sleep(0.5)
            gate.open()
            _, said = child.communicate(timeout=60)
        assert child.returncode == 130
        assert b"same command goes on" in said
        kept = (tmp_path / "out.parquet.answers.jsonl").read_bytes().count(b"\n")
        assert kept == sum(server.seen.delivered.values()) == len(server.seen.bodies) < 400
        gate.pace = 0.0
        subprocess.run(command(source, server.url, 8), capture_output=True, check=True)
        assert set(server.seen.delivered.values()) == {1}


def test_reports_written_for_a_corpus_reach_the_next_corpus_flagged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    from PIL import Image

    raw = tmp_path / "raw"
    (raw / "images").mkdir(parents=True)
    lines = ["image_path,patient_id,report,Effusion,Pneumothorax"]
    for n in range(6):
        pixels = np.random.default_rng(n).integers(0, 255, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(raw / "images" / f"{n}.png")
        report = ["", "", "Clear lungs.", "Se observa derrame pleural izquierdo.", "", ""][n]
        lines.append(f"images/{n}.png,p{n},{report},{n % 2},0" if n != 5 else f"images/{n}.png,p{n},,,")
    (raw / "cases.csv").write_text("\n".join(lines) + "\n")

    def script(body: dict[str, Any], _: int) -> Reply:
        asked = body["messages"][1]["content"]
        if "Spanish" in asked:
            return Reply(told("There is a left pleural effusion." if "derrame" in asked else "?"))
        stated = "A pleural effusion is seen." if "pleural effusion: present" in asked else "No pleural effusion."
        return Reply(told(f"{stated} There is no pneumothorax."))

    prepare = ["prepare", "--from", f"table={raw}", "--workers", "1", "--json"]
    assert main([*prepare, str(tmp_path / "first")]) == 0
    files = []
    with serving(script) as server:
        for job, count in (("reports", 3), ("translate", 1)):
            out = tmp_path / f"{job}.parquet"
            files.append(out)
            capsys.readouterr()
            asked = ["texts", job, str(tmp_path / "first"), "--out", str(out), "--endpoint", server.url, "--model", "m"]
            assert main([*asked, "--send", "--yes", "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["accepted"] == count
    added = [word for file in files for word in ("--texts", str(file))]
    assert main([*prepare, str(tmp_path / "second"), *added]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["pairs"]["report"] == 2 + 4
    assert (manifest["generated"]["texts"], manifest["generated"]["without_image"]) == (4, 0)
    origins = {(row["job"], row["model"], row["texts"]) for row in manifest["generated"]["origins"]}
    assert origins == {("reports", "m", 3), ("translate", "m", 1)}
    assert {row["prompt"] for row in manifest["generated"]["origins"]} == {
        row.prompt for file in files for row in read_generated(file)
    }
    pairs = Corpus.open(tmp_path / "second").pairs_table(["image", "kind", "text", "text_source"]).to_pylist()
    written = {row["image"]: row["text"] for row in pairs if row["text_source"] == "llm"}
    assert written["table/images/1.png"] == "A pleural effusion is seen. There is no pneumothorax."
    assert written["table/images/3.png"] == "There is a left pleural effusion."
    assert len(written) == 4
    # Made again it is the same, and without the texts it is the first one.
    assert main([*prepare, str(tmp_path / "second"), *added]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["fingerprint"] == manifest["fingerprint"] != Corpus.open(tmp_path / "first").fingerprint
    assert main([*prepare, str(tmp_path / "second")]) == 2
