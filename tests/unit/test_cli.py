from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umif.cli import main
from umif.cli.arguments import dataset_source, percent, spread_lists
from umif.cli.output import plain, print_manifest, standard_output
from umif.errors import InputError, UmifError


class TestSpreadLists:
    @pytest.mark.parametrize(
        ("given_", "expected"),
        [
            ("m t --labels 1% 10% 100%", "m t --labels 1% --labels 10% --labels 100%"),
            ("m --labels 1% 10 linear --json", "m --labels 1% --labels 10 linear --json"),
            ("m t --labels=1%,10%", "m t --labels 1% --labels 10%"),
            ("m t --labels 0.5%,10 100", "m t --labels 0.5% --labels 10 --labels 100"),
            ("m t --labels=1% 10%", "m t --labels 1% --labels 10%"),
            ("m t --labels 1% --labels 10%", "m t --labels 1% --labels 10%"),
            ("m t --labels", "m t --labels"),
            ("m t --labels --json", "m t --labels --json"),
            ("m t --seed 3 100", "m t --seed 3 100"),
            ("m t --labels 1% -- 10%", "m t --labels 1% -- 10%"),
            (
                "evaluate m t --against a b --labels 1% 10%",
                "evaluate m t --against a --against b --labels 1% --labels 10%",
            ),
            ("evaluate m --labels 1% 10% t --against a", "evaluate m --labels 1% --labels 10% t --against a"),
        ],
    )
    def test_each_value_gets_its_own_flag(self, given_: str, expected: str) -> None:
        assert spread_lists(given_.split()) == expected.split()

    @given(st.lists(st.text().filter(lambda text: not text.startswith("--labels"))))
    def test_anything_without_the_flag_passes_unchanged(self, arguments: list[str]) -> None:
        assert spread_lists(arguments) == arguments

    @given(st.lists(st.sampled_from(["--labels", "1%", "10", "x", "--json", "--", "--labels=5%", "--labels="])))
    def test_spreading_twice_changes_nothing_more(self, arguments: list[str]) -> None:
        once = spread_lists(arguments)
        assert spread_lists(once) == once


class TestPercent:
    @pytest.mark.parametrize(("text", "value"), [("1%", 1.0), ("100", 100.0), ("0.5%", 0.5), (" 10% ", 10.0)])
    def test_reads_shares(self, text: str, value: float) -> None:
        assert percent(text) == value

    @pytest.mark.parametrize("text", ["0%", "101", "-1%", "nan", "inf", "ten", "", "1%%"])
    def test_refuses_what_is_no_share(self, text: str) -> None:
        with pytest.raises(InputError, match="--labels"):
            percent(text)


class TestDatasetSource:
    def test_splits_at_the_first_equals_sign(self) -> None:
        assert dataset_source("phantom=/data/a=b") == ("phantom", Path("/data/a=b"))

    @pytest.mark.parametrize("text", ["phantom", "=folder", "phantom="])
    def test_says_how_to_write_one(self, text: str) -> None:
        with pytest.raises(InputError, match="NAME=ROOT"):
            dataset_source(text)

    def test_offers_the_nearest_reader(self) -> None:
        with pytest.raises(InputError, match="Did you mean 'phantom'"):
            dataset_source("phantm=folder")


class TestExitCodes:
    def test_help_and_version_are_done(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--version"]) == 0
        assert main([]) == 0
        assert "pretrain" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["pretain"], "Did you mean 'pretrain'"),
            (["datasets", "--jsn"], "--json"),
            (["evaluate"], "MODEL"),
            (["datasets", "phantm"], "Did you mean 'phantom'"),
            (["prepare", "out", "--from", "nothing"], "NAME=ROOT"),
            (["evaluate", "m", "linear", "--labels", "0%"], "0%"),
            (["report", "no-such-run", "--out", "o"], "no-such-run"),
            (["pretrain", "no-such.yaml"], "no-such.yaml"),
        ],
    )
    def test_bad_usage_and_bad_input_are_two_with_a_way_out_and_no_traceback(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.chdir(tmp_path)
        assert main(arguments) == 2
        output = capsys.readouterr()
        assert message in output.err
        assert "→" in output.err
        assert "Traceback" not in output.err
        assert output.out == ""

    @pytest.mark.parametrize(
        ("error", "code", "message"),
        [
            (UmifError("the work failed", fix="do it again"), 1, "do it again"),
            (InputError("bad input"), 2, "bad input"),
            (KeyboardInterrupt(), 130, "same command"),
            (OSError(28, "No space left on device", "/data/x"), 1, "/data/x: No space left on device"),
            (ZeroDivisionError("division by zero"), 1, "UMIF_DEBUG=1"),
        ],
    )
    def test_what_a_verb_raises_decides_the_code(
        self, error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        def fail(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr("umif.cli.print_cards", fail)
        assert main(["datasets"]) == code
        output = capsys.readouterr()
        assert message in output.err
        assert "Traceback" not in output.err

    def test_debugging_shows_where(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UMIF_DEBUG", "1")
        assert main(["datasets", "phantm"]) == 2
        assert "Traceback" in capsys.readouterr().err


class TestDatasets:
    def test_json_has_the_promised_keys_for_every_reader(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["datasets", "--json"]) == 0
        readers = json.loads(capsys.readouterr().out)["readers"]
        assert "phantom" in {reader["name"] for reader in readers}
        for reader in readers:
            assert {"name", "kinds", "licence", "access", "images", "checked_against", "overlaps"} <= set(reader)

    def test_the_table_names_every_reader(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from umif.config import REGISTRY

        monkeypatch.setenv("COLUMNS", "200")
        assert main(["datasets"]) == 0
        printed = capsys.readouterr().out
        assert all(name in printed for name in REGISTRY.names("reader"))

    def test_one_reader_shows_layout_and_licence(self, capsys: pytest.CaptureFixture[str]) -> None:
        from umif.config import REGISTRY

        card = REGISTRY.get("reader", "nih-chestxray14").card
        assert main(["datasets", "nih-chestxray14"]) == 0
        printed = capsys.readouterr().out
        assert card.licence.splitlines()[0] in printed
        assert card.layout.strip().splitlines()[0].strip() in printed


class TestJsonOutput:
    def test_standard_output_holds_the_object_alone_even_if_children_print(self, tmp_path: Path) -> None:
        script = tmp_path / "noisy.py"
        script.write_text(
            "import os, subprocess, sys\n"
            "from umif.cli.output import print_json, standard_output\n"
            "with standard_output(reserved=True):\n"
            "    print('noise')\n"
            "    os.write(1, b'raw noise\\n')\n"
            "    subprocess.run([sys.executable, '-c', 'print(\"child noise\")'], check=True)\n"
            "print_json({'a': 1})\n"
        )
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == {"a": 1}
        assert {"noise", "raw noise", "child noise"} <= set(done.stderr.splitlines())

    def test_streams_that_are_no_files_are_redirected_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        with standard_output(reserved=True):
            print("noise")
        output = capsys.readouterr()
        assert (output.out, output.err) == ("", "noise\n")

    def test_numbers_that_json_lacks_become_null(self) -> None:
        value = {"a": float("nan"), "b": (1, float("inf")), "c": Path("x"), 3: None, "d": True}
        assert plain(value) == {"a": None, "b": [1, None], "c": "x", "3": None, "d": True}


@pytest.mark.parametrize("arguments", ["datasets --json", "--version"])
def test_when_whoever_reads_stops_reading_nothing_is_complained_about(arguments: str) -> None:
    command = f"{sys.executable} -m umif {arguments} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


class TestManifest:
    def test_what_was_left_out_noted_and_not_known_is_printed(self, capsys: pytest.CaptureFixture[str]) -> None:
        reader = {
            "name": "table", "yielded": 2, "seen": 3, "excluded": {"image file is missing": 1},
            "notes": {"column 'Tube' is not used": 1},
        }  # fmt: skip
        print_manifest(
            Path("corpora/mine"),
            {
                "readers": [reader], "images": 2, "pairs": {"class": 2}, "quarantined": 0, "fingerprint": "f",
                "unmapped": {"Drain": 2},
            },
        )  # fmt: skip
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "table: 2 of 3 read (left out: 1 image file is missing)"
        assert lines[1] == "  1 × column 'Tube' is not used"
        assert "labels that the vocabulary does not know (kept under their own spelling): Drain (2)" in lines
