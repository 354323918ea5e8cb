"""`umif search` and `umif embed`: what they print and write, and what they refuse."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from planted_corpus import draw_film, planted_corpus
from umif.cli import main
from umif.encoder import load_encoder
from umif.encoder.load import save_encoder
from umif.errors import EmptyError, InputError
from umif.models import ModelConfig, build_model
from umif.tasks.search import read_query, search
from umif.tokens import TextTokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from umif.corpus import Corpus
    from umif.encoder import Encoder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return planted_corpus(tmp_path_factory.mktemp("films"), patients=40)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from umif.encoder import Encoder

    tokenizer = TextTokenizer.train(["signs of edema", "no evidence of pneumothorax"], vocab_size=100)
    config = ModelConfig(
        backbone="vit_tiny_patch16_224", image_size=32, depth=2, width=48, heads=3, vocab_size=tokenizer.vocab_size
    )
    encoder = Encoder.of_model(build_model(config, seed=7), tokenizer=tokenizer, shorter_side=40, device="cpu")
    return save_encoder(encoder, tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def encoder(model: Path) -> Encoder:
    return load_encoder(model, device="cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with three pictures, one of them deeper and one of them broken, and what is none."""
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    for seed, name in enumerate(("b.png", "deeper/a.png")):
        cv2.imwrite(str(folder / name), draw_film(np.random.default_rng(seed), visible=bool(seed)))
    (folder / "broken.png").write_bytes((folder / "b.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes((folder / "b.png").read_bytes())
    return folder


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main([*map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([*map(str, arguments)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "→" in output.err or "umif:" in output.err
    assert "Traceback" not in output.err
    return output.err


class TestSearch:
    def test_a_picture_of_the_corpus_is_found_by_its_file_and_not_by_itself(
        self, encoder: Encoder, corpus: Corpus
    ) -> None:
        film = corpus.path.parent / "films" / "0005_0.png"
        [first, *_] = search(encoder, corpus, read_query(corpus, str(film)), 3)
        assert first.image == "planted-films/0005_0.png"
        own = search(encoder, corpus, read_query(corpus, "planted-films/0005_0.png"), corpus.manifest.images)
        assert len(own) == corpus.manifest.images - 1
        assert "planted-films/0005_0.png" not in {hit.image for hit in own}

    def test_hits_are_the_nearest_by_cosine_with_what_is_known_of_them(self, encoder: Encoder, corpus: Corpus) -> None:
        hits = search(encoder, corpus, read_query(corpus, "signs of edema"), 7, split="test")
        rows = corpus.image_rows("test")
        text = encoder.unit_vectors(encoder.encode_texts(["signs of edema"]))
        cosines = encoder.cosines(torch_of(encoder.encode_corpus(corpus, rows)), text)[:, 0].numpy()
        order = np.argsort(-cosines, kind="stable")[:7]
        assert [hit.row for hit in hits] == rows[order].tolist()
        assert [hit.cosine for hit in hits] == pytest.approx(cosines[order].tolist(), abs=1e-6)
        assert [hit.rank for hit in hits] == list(range(1, 8))
        for hit in hits:
            assert hit.split == "test"
            assert hit.texts == (("Edema.",) if "edema" in hit.findings else ("No edema.",))

    def test_the_own_patient_can_be_left_out(self, encoder: Encoder, corpus: Corpus) -> None:
        images = corpus.images_table(["image", "patient"]).to_pylist()
        patients = [image["patient"] for image in images]
        twice = next(name for name in patients if patients.count(name) == 2)
        own = [image["image"] for image in images if image["patient"] == twice]
        query = read_query(corpus, own[0])
        everyone = search(encoder, corpus, query, 1000)
        others = search(encoder, corpus, query, 1000, other_patients=True)
        assert own[1] in {hit.image for hit in everyone}
        assert twice not in {hit.patient for hit in others}
        assert len(others) == len(everyone) - 1
        with pytest.raises(InputError, match="patient is not known"):
            search(encoder, corpus, read_query(corpus, "edema"), other_patients=True)

    def test_json_holds_the_query_and_the_hits(
        self, capsys: pytest.CaptureFixture[str], model: Path, corpus: Corpus
    ) -> None:
        found = answer(capsys, "search", model, corpus.path, "signs of edema", "-k", 4)
        assert found["query"] == {"kind": "text", "words": "signs of edema"}
        assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3, 4]
        assert {"cosine", "image", "row", "patient", "split", "findings", "texts"} <= set(found["hits"][0])
        assert found["corpus"] == corpus.fingerprint

    def test_the_table_has_one_line_a_hit_and_the_page_stands_alone(
        self, capsys: pytest.CaptureFixture[str], model: Path, corpus: Corpus, tmp_path: Path
    ) -> None:
        film = corpus.path.parent / "films" / "0005_0.png"
        page = tmp_path / "new" / "found.html"
        assert main(["search", str(model), str(corpus.path), str(film), "-k", "5", "--out", str(page)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 6
        assert lines[0].split()[0] == "1"
        assert "planted-films/0005_0.png" in lines[0]
        assert lines[-1] == str(page)
        html = page.read_text(encoding="utf-8")
        assert html.count("<img ") == 6  # the query's too
        assert html.count('src="data:image/jpeg;base64,') == 6
        assert "http" not in html
        assert "planted-films/0005_0.png" in html

    def test_words_of_a_query_stay_words_on_the_page(self, corpus: Corpus, encoder: Encoder) -> None:
        from umif.report.search_page import render_search

        query = read_query(corpus, "<script>alert(1)</script>")
        html = render_search(search(encoder, corpus, query, 1), query, corpus, encoder)
        assert "<script>" not in html

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["no/such.png"], "there is no such file"),
            (["edema", "--as", "image"], "there is no such file"),
            (["  "], "the query is empty"),
            (["edema", "--out", "page.pdf"], "ends in .html"),
            (["edema", "--dataset", "planted-film"], "Did you mean 'planted-films'"),
            (["edema", "-k", "0"], "greater than or equal to 1"),
            (["edema", "--other-patients"], "patient is not known"),
        ],
    )
    def test_what_cannot_be_searched_is_refused(
        self, capsys: pytest.CaptureFixture[str], model: Path, corpus: Corpus, arguments: list[str], message: str
    ) -> None:
        assert message in refused(capsys, "search", model, corpus.path, *arguments)

    def test_a_text_that_looks_like_a_file_can_be_forced(self, corpus: Corpus) -> None:
        assert read_query(corpus, "no/such.png", "text").kind == "text"
        assert read_query(corpus, "a" * 5000).kind == "text"

    def test_faiss_asked_for_and_absent_is_refused(
        self, capsys: pytest.CaptureFixture[str], model: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import sys

        monkeypatch.setitem(sys.modules, "faiss", None)
        assert "umif[faiss]" in refused(capsys, "search", model, corpus.path, "edema", "--engine", "faiss")

    def test_an_encoder_without_words_still_finds_pictures(
        self, capsys: pytest.CaptureFixture[str], model: Path, corpus: Corpus, tmp_path: Path
    ) -> None:
        deaf = tmp_path / "deaf"
        shutil.copytree(model, deaf)
        shutil.rmtree(deaf / "tokenizer")
        assert "no tokeniser" in refused(capsys, "search", deaf, corpus.path, "edema")
        assert answer(capsys, "search", deaf, corpus.path, "planted-films/0005_0.png", "-k", 2)["hits"]


class TestEmbed:
    def test_pictures_become_rows_that_the_encoder_gives(
        self, capsys: pytest.CaptureFixture[str], model: Path, encoder: Encoder, pictures: Path, tmp_path: Path
    ) -> None:
        (pictures / "broken.png").unlink()
        out = tmp_path / "features.parquet"
        found = answer(capsys, "embed", model, pictures, "--out", out, "--batch", 1)
        names = [str(pictures / "b.png"), str(pictures / "deeper" / "a.png")]
        assert (found["rows"], found["width"], found["left_out"]) == (2, 48, [])
        table = pq.read_table(out)
        assert table["input"].to_pylist() == names
        assert np.allclose(table["features"].to_pylist(), encoder.encode_images(names).numpy(), atol=1e-5)
        told = json.loads(table.schema.metadata[b"umif"])
        assert told["weights_sha256"] == encoder.weights_sha256 == found["weights_sha256"]
        assert (told["space"], told["kind"]) == ("cls", "image")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["features.parquet", "pictures"]

    def test_the_first_unreadable_picture_stops_it_and_nothing_is_written(
        self, capsys: pytest.CaptureFixture[str], model: Path, pictures: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "features.parquet"
        assert "broken.png" in refused(capsys, "embed", model, pictures, "--out", out)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures"]

    def test_unreadable_pictures_can_be_left_out_by_name(
        self, capsys: pytest.CaptureFixture[str], model: Path, pictures: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "features.parquet"
        found = answer(capsys, "embed", model, pictures, "--out", out, "--skip-unreadable")
        assert found["rows"] == 2
        [left_out] = found["left_out"]
        assert left_out["input"] == str(pictures / "broken.png")
        assert left_out["reason"]
        capsys.readouterr()
        one = tmp_path / "one.parquet"
        assert "no picture could be read" in refused(
            capsys, "embed", model, pictures / "broken.png", "--out", one, "--skip-unreadable"
        )
        assert not one.exists()

    def test_texts_become_rows_too(
        self, capsys: pytest.CaptureFixture[str], model: Path, encoder: Encoder, tmp_path: Path
    ) -> None:
        texts, out = tmp_path / "texts.txt", tmp_path / "texts.parquet"
        texts.write_text("\ufeffsigns of edema\n\n  no pneumothorax \n", encoding="utf-8")
        assert answer(capsys, "embed", model, "--texts", texts, "--out", out, "--space", "joint")["rows"] == 2
        table = pq.read_table(out)
        words = ["signs of edema", "no pneumothorax"]
        assert table["input"].to_pylist() == words
        expected = encoder.unit_vectors(encoder.encode_texts(words)).numpy()
        assert np.allclose(table["features"].to_pylist(), expected, atol=1e-5)

    def test_patches_are_flat_and_their_shape_is_told(
        self, capsys: pytest.CaptureFixture[str], model: Path, encoder: Encoder, pictures: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "patches.pq"
        answer(capsys, "embed", model, pictures / "b.png", "--out", out, "--space", "patches")
        table = pq.read_table(out)
        shape = json.loads(table.schema.metadata[b"umif"])["shape"]
        features = np.array(table["features"].to_pylist()).reshape(-1, *shape)
        assert np.allclose(features, encoder.encode_patches([str(pictures / "b.png")]).numpy(), atol=1e-5)

    def test_dicom_files_without_a_suffix_are_found(self, tmp_path: Path) -> None:
        from umif.cli.embed import picture_files

        (tmp_path / "1.2.840.99").write_bytes(bytes(128) + b"DICM" + bytes(10))
        (tmp_path / "1.2.840.98").write_bytes(bytes(140))
        (tmp_path / "README").write_text("none")
        assert picture_files([tmp_path]) == [tmp_path / "1.2.840.99"]
        (tmp_path / "1.2.840.99").unlink()
        with pytest.raises(EmptyError, match="no picture"):
            picture_files([tmp_path])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--out", "x.parquet"], "nothing to embed"),
            (["p.png", "--texts", "t.txt", "--out", "x.parquet"], "cannot go into one table"),
            (["p.png", "--out", "x.csv"], "ends in .parquet"),
            (["p.png", "--out", "x.parquet"], "no such file or folder"),
            (["--texts", "t.txt", "--out", "x.parquet"], "cannot be read"),
            (["--texts", "t.txt", "--out", "x.parquet", "--space", "patches"], "texts have no patches"),
            (["--texts", "empty.txt", "--out", "x.parquet"], "there is no text"),
            (["--texts", "latin.txt", "--out", "x.parquet"], "no text in UTF-8"),
            (["p.png", "--out", "there.parquet"], "is there already"),
            (["p.png"], "--out"),
        ],
    )
    def test_what_cannot_be_embedded_is_refused(
        self, capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        arguments: list[str], message: str,
    ) -> None:  # fmt: skip
        monkeypatch.chdir(tmp_path)
        (tmp_path / "empty.txt").write_text("\n \n")
        (tmp_path / "latin.txt").write_bytes("œdème".encode("utf-16"))
        (tmp_path / "there.parquet").write_text("mine")
        assert message in refused(capsys, "embed", model, *arguments)
        assert (tmp_path / "there.parquet").read_text() == "mine"
        assert not (tmp_path / "x.parquet").exists()


def torch_of(features: Any) -> Any:
    import torch

    return torch.from_numpy(features)
