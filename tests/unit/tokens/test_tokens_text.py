"""Texts become ids: trained vocabularies, BERT's own files, and what happens when neither can be had."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umif.errors import ConfigError, EmptyError, InputError
from umif.tokens.text import UNKNOWN, TextTokenizer

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [
    "No pneumothorax. The heart is enlarged.",
    "Small left pleural effusion, without pneumothorax.",
    "The heart size is normal; the lungs are clear.",
    "Œdème aigu du poumon (à droite).",
] * 5
CASED_BERT = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "The", "the", "heart", "is", "large", "##r", "."]


@pytest.fixture(scope="module")
def trained() -> TextTokenizer:
    return TextTokenizer.train(TEXTS, vocab_size=200)


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(CASED_BERT) + "\n")
    return tmp_path


def greedy_wordpiece(word: str, vocabulary: set[str]) -> list[str]:
    """WordPiece as BERT's paper states it: the longest entry first, over and over."""
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                pieces.append(piece)
                start = end
                break
        else:
            return [UNKNOWN]
    return pieces


def test_the_same_texts_give_the_same_file_in_any_order_and_process(tmp_path: Path) -> None:
    for name, texts in (("first", TEXTS), ("again", TEXTS), ("reversed", TEXTS[::-1])):
        TextTokenizer.train(texts, vocab_size=90).save(tmp_path / name)
    script = (
        "import sys\nfrom umif.tokens.text import TextTokenizer\n"
        "TextTokenizer.train(sys.stdin.read().splitlines(), vocab_size=90).save(sys.argv[1])\n"
    )
    elsewhere = [sys.executable, "-c", script, str(tmp_path / "elsewhere")]
    subprocess.run(elsewhere, input="\n".join(TEXTS), text=True, check=True)
    files = {(folder / "tokenizer.json").read_bytes() for folder in tmp_path.iterdir()}
    assert len(files) == 1


def test_a_trained_vocabulary_has_the_size_asked_for_and_knows_frequent_words() -> None:
    tokenizer = TextTokenizer.train([*TEXTS, "heart " * 500], vocab_size=100)
    assert tokenizer.vocab_size == 100
    assert tokenizer.pieces("HEART") == ["heart"]
    assert tokenizer.source == "trained"


def test_trained_words_are_cut_as_bert_cuts_them(trained: TextTokenizer) -> None:
    vocabulary = set(json.loads(trained._json())["model"]["vocab"])
    for word in ("pneumothorax", "effusions", "clearly", "heart", "oedeme"):
        assert trained.pieces(word) == greedy_wordpiece(word, vocabulary)


def test_letters_are_not_matched_inside_words_as_special_tokens(trained: TextTokenizer) -> None:
    assert trained.pieces("the ##e") == ["the", UNKNOWN, UNKNOWN, "e"]


def test_rare_letters_give_way_so_that_a_third_of_the_entries_are_words() -> None:
    many = "".join(chr(code) for code in range(0x4E00, 0x4E00 + 500))
    tokenizer = TextTokenizer.train(["heart size normal " * 50 + " ".join(many)], vocab_size=120)
    assert tokenizer.vocab_size <= 120
    assert UNKNOWN not in tokenizer.pieces("heart size normal")
    assert tokenizer.pieces(many[-1]) == [UNKNOWN]


@pytest.mark.parametrize("texts", [[], ["", "  \n"]])
def test_nothing_to_train_on_is_refused(texts: list[str]) -> None:
    with pytest.raises(EmptyError, match="no text to learn"):
        TextTokenizer.train(texts)


def test_a_vocabulary_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="holds no words"):
        TextTokenizer.train(TEXTS, vocab_size=3)


def test_ids_are_int64_without_cls_and_sep(bert_folder: Path) -> None:
    ids = TextTokenizer.load(bert_folder).encode("The heart is larger.")
    assert ids.dtype == np.int64
    assert ids.tolist() == [CASED_BERT.index(piece) for piece in ("The", "heart", "is", "large", "##r", ".")]


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\u200b\x00"])
def test_a_text_without_words_is_one_unknown_token(trained: TextTokenizer, text: str) -> None:
    assert trained.encode(text).tolist() == [trained.encode("\u4e01")[0]]


def test_long_texts_are_cut_at_the_end(trained: TextTokenizer) -> None:
    whole = trained.encode("the heart is large " * 200, max_tokens=10_000)
    assert len(whole) > 256
    assert trained.encode("the heart is large " * 200).tolist() == whole[:256].tolist()
    assert trained.encode("the heart is large", max_tokens=1).tolist() == whole[:1].tolist()


def test_no_room_for_a_token_is_refused(trained: TextTokenizer) -> None:
    with pytest.raises(ConfigError, match="room for one token"):
        trained.encode("heart", max_tokens=0)


@given(text=st.text(max_size=300), room=st.integers(1, 40))
@settings(deadline=None, max_examples=100)
def test_any_text_becomes_one_to_max_tokens_ids_below_the_size(text: str, room: int) -> None:
    tokenizer = _small()
    ids = tokenizer.encode(text, max_tokens=room)
    assert 1 <= len(ids) <= room
    assert ids.min() >= 0
    assert ids.max() < tokenizer.vocab_size


def _small(made: list[TextTokenizer] = []) -> TextTokenizer:  # noqa: B006 - Hypothesis takes no module fixtures
    if not made:
        made.append(TextTokenizer.train(TEXTS, vocab_size=120))
    return made[0]


def test_a_cased_vocabulary_keeps_capitals_apart(bert_folder: Path) -> None:
    tokenizer = TextTokenizer.load(bert_folder)
    assert tokenizer.pieces("The the") == ["The", "the"]
    assert tokenizer.vocab_size == len(CASED_BERT)


def test_an_uncased_vocabulary_is_lower_cased(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\nthe\nheart\noedeme\n")
    assert TextTokenizer.load(tmp_path).pieces("The HEART") == ["the", "heart"]


def test_bert_files_give_the_ids_that_transformers_gives(bert_folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertTokenizer.from_pretrained(str(bert_folder), do_lower_case=False)
    ours = TextTokenizer.load(bert_folder)
    for text in ("The heart is larger.", "the Heart,is large", "THE heart larger larger."):
        assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False)


def test_saving_and_loading_change_nothing(trained: TextTokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path / "tokenizer")
    loaded = TextTokenizer.load(tmp_path / "tokenizer")
    assert loaded == trained
    assert (loaded.source, loaded.vocab_size, loaded.sha256) == ("trained", trained.vocab_size, trained.sha256)
    assert loaded.encode(TEXTS[1]).tolist() == trained.encode(TEXTS[1]).tolist()


def test_a_saved_bert_vocabulary_still_says_where_it_came_from(bert_folder: Path, tmp_path: Path) -> None:
    original = TextTokenizer.load(bert_folder)
    original.save(tmp_path / "run")
    assert TextTokenizer.load(tmp_path / "run").source == str(bert_folder)


def test_pickling_changes_nothing(trained: TextTokenizer) -> None:
    copy = pickle.loads(pickle.dumps(trained))
    assert copy == trained
    assert hash(copy) == hash(trained)
    assert copy.encode(TEXTS[0]).tolist() == trained.encode(TEXTS[0]).tolist()


def test_truncation_padding_and_framing_of_a_foreign_file_are_switched_off(
    trained: TextTokenizer, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    foreign = Tokenizer.from_str(trained._json())
    foreign.enable_truncation(2)
    foreign.enable_padding(length=50)
    foreign.post_processor = TemplateProcessing(single="[UNK] $A", special_tokens=[(UNKNOWN, 0)])
    foreign.save(str(tmp_path / "tokenizer.json"))
    assert TextTokenizer.load(tmp_path).encode(TEXTS[0]).tolist() == trained.encode(TEXTS[0]).tolist()


def test_a_changed_file_in_a_run_folder_is_noticed(trained: TextTokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text().replace('"heart"', '"theart"'))
    with pytest.raises(InputError, match=r"differs from what meta\.json says"):
        TextTokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "{}", '{"model": {"type": "WordPiece"}}', "\x00\xff"])
def test_an_unreadable_file_is_a_typed_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match="cannot be read as a vocabulary"):
        TextTokenizer.load(tmp_path)


def test_a_vocabulary_without_unknown_entry_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("the\nheart\n")
    with pytest.raises(InputError, match=r"no entry \[UNK\]"):
        TextTokenizer.load(tmp_path)


def test_an_empty_folder_and_a_missing_one_name_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither vocab\.txt nor tokenizer\.json.*\n.*tokenizer\.source: auto"):
        TextTokenizer.load(tmp_path)
    with pytest.raises(InputError, match="no tokenizer folder here"):
        TextTokenizer.load(tmp_path / "missing")


def test_a_hub_that_cannot_be_reached_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(InputError, match=r"no route to host\n.*give the folder") as caught:
        TextTokenizer.load("emilyalsentzer/Bio_ClinicalBERT")
    assert caught.value.where == "emilyalsentzer/Bio_ClinicalBERT"


def test_an_offline_hub_without_the_file_in_its_cache_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("outgoing traffic has been disabled")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(InputError, match="outgoing traffic has been disabled"):
        TextTokenizer.load("emilyalsentzer/Bio_ClinicalBERT")


def test_a_hub_name_is_kept_as_the_source(monkeypatch: pytest.MonkeyPatch, bert_folder: Path) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file: str(bert_folder / file))
    tokenizer = TextTokenizer.load("emilyalsentzer/Bio_ClinicalBERT")
    assert tokenizer.source == "emilyalsentzer/Bio_ClinicalBERT"
    assert tokenizer.pieces("The heart") == ["The", "heart"]


def test_encoding_is_safe_from_several_threads(trained: TextTokenizer) -> None:
    from concurrent.futures import ThreadPoolExecutor

    expected = [trained.encode(text).tolist() for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: trained.encode(text).tolist(), TEXTS * 20))
    assert found == expected * 20
