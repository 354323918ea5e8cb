"""What stands beside the results: the paper's figures, LaTeX, cards, and pictures of test cases."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch

from umif.encoder import Encoder
from umif.models import ModelConfig, TokenEncoder
from umif.report.latex import escape, results_latex
from umif.report.looks import _varied, heat, task_sheets
from umif.report.published import published, published_tables
from umif.report.tables import compare

if TYPE_CHECKING:
    from pathlib import Path


def row(value: float, encoder: str = "umif cls", **changes: Any) -> dict[str, Any]:
    return {
        "run": "mine", "task": "linear", "data": "rsna-pneumonia: pneumonia vs none", "protocol": "clean",
        "labels": 1.0, "metric": "AUC", "value": value, "low": value - 0.01, "high": value + 0.01, "encoder": encoder,
        "baseline": False, "split_sha256": "x", "n_patients": 40, "extra": {}, **changes,
    }  # fmt: skip


class TestThePapersFigures:
    def table(self, rows: list[dict[str, Any]], title: str, recipe: dict[str, Any] | None = None) -> Any:
        tables = published_tables(rows, {"mine": recipe or {}})
        return next(table for table in tables if title in table.title)

    def test_ours_stand_in_the_column_of_their_share_with_what_differs(self) -> None:
        recipe = {"model": {"backbone": "vit_tiny_patch16_224", "depth": 6, "image_size": 128}, "pairs_seen": 96000}
        table = self.table([row(0.8), row(0.9, labels=100.0)], "RSNA pneumonia, AUC", recipe)
        assert table.columns == ("1 %", "10 %", "100 %")
        assert [line.cells for line in table.lines] == [
            ("92.2", "93.4", "93.8"), ("91.9", "93.1", "93.7"), ("80.0 [79.0, 81.0]", "–", "90.0 [89.0, 91.0]"),
        ]  # fmt: skip
        differs = table.lines[2].differs
        assert differs.startswith("not comparable: network: vit_tiny_patch16_224 (depth 6), theirs ViT-B/16")
        assert "128 px, theirs 224" in differs
        assert "96,000 pairs seen" in differs
        assert "patient-wise split with 40 test patients" in differs

    def test_the_same_network_on_the_same_split_is_comparable(self) -> None:
        recipe = {"model": {"backbone": "vit_base_patch16_224", "image_size": 224}}
        table = self.table([row(0.8, extra={"protocol": "paper"})], "RSNA pneumonia, AUC", recipe)
        assert table.lines[2].differs == "comparable in network and split; other weights"

    def test_a_line_is_one_encoder_and_baselines_are_none(self) -> None:
        rows = [
            row(0.8), row(0.6, labels=100.0), row(0.7, "umif patches"), row(0.9, "umif patches", labels=100.0),
            row(0.99, "random cls", baseline=True),
        ]  # fmt: skip
        (line,) = self.table(rows, "RSNA pneumonia, AUC").lines[2:]
        assert line.who == "mine, umif patches"
        assert line.cells[0].startswith("70.0")
        assert line.cells[2].startswith("90.0")

    @pytest.mark.parametrize(
        "other",
        [
            {"data": "nih-chestxray14: pneumonia vs none"},
            {"data": "nih-chestxray14, rsna-pneumonia: 4 findings"},
            {"metric": "macro AUC"},
            {"task": "knn"},
            {"labels": 5.0},
        ],
    )
    def test_numbers_of_something_else_do_not_stand_there(self, other: dict[str, Any]) -> None:
        table = self.table([row(0.8, **other)], "RSNA pneumonia, AUC")
        assert not table.measured
        assert len(table.lines) == 2

    def test_every_figure_has_as_many_values_as_columns(self) -> None:
        for entry in published()["downstream"]:
            for key in ("umif", "med-unic"):
                assert len(entry.get(key, entry["umif"])) == len(entry["labels"])


class TestLatex:
    def test_the_best_is_bold_baselines_are_italic_and_signs_are_safe(self) -> None:
        rows = [row(0.8, data="a_b & 5 %: x"), row(0.7, "pixels 32×32", data="a_b & 5 %: x", baseline=True)]
        text = results_latex(compare(rows))
        assert r"umif cls & \textbf{0.800} {\scriptsize [0.790, 0.810]} \\" in text
        assert r"\textit{pixels 32$\times$32} & 0.700 {\scriptsize [0.690, 0.710]} \\" in text
        assert r"a\_b \& 5 \%: x" in text
        assert text.count(r"\begin{tabular}{lr}") == text.count(r"\end{tabular}") == 1

    def test_shares_of_labels_are_columns(self) -> None:
        text = results_latex(compare([row(0.8), row(0.9, labels=10.0), row(0.5, "other", labels=10.0)]))
        assert r"encoder & 1 \% & 10 \% \\" in text
        assert "other & -- & 0.500" in text

    def test_escaping_leaves_no_special_sign_bare(self) -> None:
        assert not re.search(r"(?<!\\)[&%$#_]", escape("50 % & $5 #1 a_b"))


class TestPicturesOfTestCases:
    def test_heat_is_strongest_where_the_share_is(self) -> None:
        view = np.full((64, 64), 100, dtype=np.uint8)
        share = np.zeros((4, 4), dtype=np.float32)
        share[0, 3] = 0.5
        laid = heat(view, share).astype(int)
        assert laid[4, 60, 0] - laid[4, 60, 2] > 100
        assert (laid[40:, :24] == 100).all()

    def test_different_findings_come_first(self) -> None:
        def image(*names: str) -> dict[str, Any]:
            return {"findings": [{"finding": name, "raw": name, "state": "present"} for name in names]}

        rows = list(enumerate([image("a"), image("a"), image("b"), image(), image("a")]))
        assert [number for number, _ in _varied(rows, 4)] == [0, 2, 3, 1]

    def test_sheets_are_taken_once_and_only_from_the_run_itself(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        (run / "results" / "sheets").mkdir(parents=True)
        picture = np.zeros((4, 4, 3), np.uint8)
        for path in (run / "results" / "sheets" / "a.png", tmp_path / "outside.png"):
            cv2.imwrite(str(path), picture)
        names = ["results/sheets/a.png", "results/sheets/a.png", "../outside.png", "results/sheets/gone.png", 7]
        rows = [row(0.5, extra={"sheet": name}) for name in names]
        (sheet,) = task_sheets(rows, {"mine": run})
        assert sheet.picture.startswith("data:image/png;base64,")
        assert "linear" in sheet.title


@pytest.mark.parametrize("depth", [1, 3])
def test_attention_is_the_last_blocks_own(depth: int) -> None:
    config = ModelConfig(backbone="vit_tiny_patch16_224", image_size=64, depth=depth, width=48, heads=3, vocab_size=90)
    torch.manual_seed(0)
    network = TokenEncoder(config).eval()
    views = torch.randint(0, 255, (2, 64, 64), dtype=torch.uint8)
    seen: list[torch.Tensor] = []
    block = network.vit.get_submodule(f"blocks.{depth - 1}")
    norm = block.get_submodule("norm1")
    handle = norm.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        shares = network.cls_attention(views)
    handle.remove()
    assert shares.shape == (2, 3, 16)
    # The slow way, from the block's own weights.
    x = seen[0].view(2, 17, 48)
    with torch.no_grad():
        qkv = block.get_submodule("attn").get_submodule("qkv")(x).view(2, 17, 3, 3, 16).permute(2, 0, 3, 1, 4)
    full = torch.softmax(qkv[0] @ qkv[1].transpose(-1, -2) / 4.0, dim=-1)
    torch.testing.assert_close(shares, full[:, :, 0, 1:], rtol=1e-4, atol=1e-6)
    maps = Encoder(network, shorter_side=64, device="cpu").attention(list(views.numpy()))
    torch.testing.assert_close(maps.flatten(1), shares.mean(1), rtol=1e-4, atol=1e-6)
