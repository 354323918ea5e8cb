"""Texts to WordPiece ids.

P: the paper uses BioClinicalBERT's cased vocabulary. It cannot be had everywhere, so by default a run trains its own
WordPiece vocabulary on its corpus's texts and keeps it in its folder (C). Either way a text becomes ids without BERT's
`[CLS]` and `[SEP]`: UmiF puts its own class token before each group.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, WhitespaceSplit
from tokenizers.trainers import WordPieceTrainer

from umif.corpus.quarantine import kept_texts
from umif.errors import ConfigError, EmptyError, InputError
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from umif.corpus import Corpus

UNKNOWN = "[UNK]"
MAX_TEXT_TOKENS = 256
_FORMAT = 1
_FILE, _META, _WORDS = "tokenizer.json", "meta.json", "vocab.txt"
# Passages of each finding and state that a trained vocabulary sees, so that it sees many templates.
_PASSAGES_PER_STATE = 20


class TextTokenizer:
    """A WordPiece vocabulary; immutable, picklable and safe to share between threads and processes.

    Attributes:
        source: `trained`, or the hub id or folder that the vocabulary came from.
        vocab_size: Every id lies below it.

    Example:
        >>> tokenizer = TextTokenizer.train(["no pneumothorax", "small pneumothorax"], vocab_size=60)
        >>> tokenizer.encode("No pneumothorax.").dtype
        dtype('int64')
    """

    def __init__(self, tokenizer: Tokenizer, source: str) -> None:
        # What a file brings along for BERT would cut, pad or frame texts; here all of it is ours to do.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.source = source
        # Not the number of entries: a file may leave out or repeat some.
        self.vocab_size: int = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        unknown = tokenizer.token_to_id(UNKNOWN)
        if unknown is None:
            raise InputError(
                f"the vocabulary has no entry {UNKNOWN}", where=source, fix="use a BERT WordPiece vocabulary"
            )
        self._unknown: int = unknown

    def encode(self, text: str, max_tokens: int = MAX_TEXT_TOKENS) -> NDArray[np.int64]:
        """Return the ids of a text, cut after `max_tokens`; a text without words is one `[UNK]`.

        Shapes: returns (n,), 1 ≤ n ≤ max_tokens.
        """
        if max_tokens < 1:
            raise ConfigError(f"a text needs room for one token at least, not {max_tokens}", where="max_tokens")
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids[:max_tokens]
        return np.array(ids or [self._unknown], dtype=np.int64)

    def pieces(self, text: str) -> list[str]:
        """Return the word pieces of a whole text, for people to read."""
        found: list[str] = self._tokenizer.encode(text, add_special_tokens=False).tokens
        return found

    def id_of(self, piece: str) -> int | None:
        """Return the id of a word piece or special token, `None` where the vocabulary has none."""
        found: int | None = self._tokenizer.token_to_id(piece)
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """Return word pieces as text, inner ones joined to what they continue; ids beyond the vocabulary are left out.

        Example:
            >>> tokenizer = TextTokenizer.train(["no pneumothorax"], vocab_size=60)
            >>> tokenizer.decode(tokenizer.encode("No pneumothorax"))
            'no pneumothorax'
        """
        pieces = [piece for one in ids if (piece := self._tokenizer.id_to_token(int(one))) is not None]
        return " ".join(pieces).replace(" ##", "")

    @property
    def sha256(self) -> str:
        """SHA-256 of everything that decides which ids a text becomes, hexadecimal."""
        return hashlib.sha256(self._json().encode()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` (which `transformers` and `tokenizers` read too) and `meta.json`."""
        home = Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        (home / _FILE).write_text(self._json(), encoding="utf-8")
        meta = {"format": _FORMAT, "source": self.source, "vocab_size": self.vocab_size, "sha256": self.sha256}
        (home / _META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, source: str | Path) -> TextTokenizer:
        """Load a folder that `save` wrote, any folder with `vocab.txt` or `tokenizer.json`, or a hub id.

        `vocab.txt` is looked for first: it says whether a vocabulary is cased, while BioClinicalBERT's cased one
        comes without settings and is lower-cased by most loaders' defaults.

        Raises:
            InputError: no such folder, nothing readable in it, or the hub cannot be reached.
        """
        folder = Path(source)
        if folder.is_dir():
            return cls._load_folder(folder)
        name = str(source)
        if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise InputError("there is no tokenizer folder here", where=source, fix=_ways_out(name))
        return cls._load_hub(name)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 4096) -> TextTokenizer:
        """Train a lower-casing WordPiece vocabulary; the same texts, in any order, give the same one.

        Differs: P is BioClinicalBERT's cased vocabulary. C: lower case, since a few thousand entries learned from few
            texts are better spent on words than on their capitals.

        Raises:
            EmptyError: the texts hold no word.
            ConfigError: `vocab_size` is no size.
        """
        if vocab_size < 4:
            raise ConfigError(f"a vocabulary of {vocab_size} entries holds no words", where="tokenizer.vocab_size")
        words = _count_words(texts)
        counts = Counter({letter: 0 for word in words for letter in word})
        for word, count in words.items():
            for letter in word:
                counts[letter] += count
        # A third of the entries are kept for words; rare letters beyond that make their words unknown.
        ranked = sorted(counts, key=lambda letter: (-counts[letter], letter))
        letters = set(ranked[: (vocab_size - 1) // 3])
        known = {word: count for word, count in words.items() if letters.issuperset(word)}
        if not known:
            raise EmptyError("there is no text to learn words from", where="texts", fix="give the path of a vocabulary")
        # Left to itself the trainer numbers inner letters in the order of a randomly keyed hash map, and ties between
        # merges follow those numbers. Named up front they have fixed places.
        fixed = [UNKNOWN, *sorted(letters), *(f"##{letter}" for letter in sorted(letters))]
        trained = Tokenizer(WordPiece({UNKNOWN: 0}, unk_token=UNKNOWN))
        trained.pre_tokenizer = WhitespaceSplit()
        trainer = WordPieceTrainer(vocab_size=vocab_size, special_tokens=fixed, show_progress=False)
        trained.train_from_iterator(_repeated(known), trainer)
        # A fresh one: in the trained one all letters are special tokens, which are matched inside words.
        return cls(_with_words(trained.get_vocab(), lowercase=True), "trained")

    @classmethod
    def _load_folder(cls, folder: Path, source: str | None = None) -> TextTokenizer:
        name = source or str(folder)
        try:
            if (folder / _WORDS).is_file():
                return cls(_from_entries((folder / _WORDS).read_text(encoding="utf-8").split("\n")), name)
            if not (folder / _FILE).is_file():
                raise InputError(f"holds neither {_WORDS} nor {_FILE}", where=folder, fix=_ways_out(name))
            meta = json.loads((folder / _META).read_text(encoding="utf-8")) if (folder / _META).is_file() else {}
            text = (folder / _FILE).read_text(encoding="utf-8")
            if meta and hashlib.sha256(text.encode()).hexdigest() != meta.get("sha256"):
                raise InputError(f"differs from what {_META} says", where=folder / _FILE, fix="restore the run's copy")
            tokenizer = Tokenizer.from_str(text)
        except InputError:
            raise
        # tokenizers raises bare Exception for what it cannot parse.
        except Exception as error:
            raise InputError(f"cannot be read as a vocabulary: {error}", where=folder, fix=_ways_out(name)) from error
        return cls(tokenizer, str(meta.get("source", name)))

    @classmethod
    def _load_hub(cls, name: str) -> TextTokenizer:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        for file in (_WORDS, _FILE):
            try:
                path = Path(hf_hub_download(name, file))
            # Whatever stands between here and the hub (no network, no such name, no right to it) has one way out.
            except Exception as error:
                if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                    continue
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                raise InputError(f"cannot be had from the hub: {reason}", where=name, fix=_ways_out(name)) from error
            return cls._load_folder(path.parent, name)
        raise InputError(f"has neither {_WORDS} nor {_FILE} on the hub", where=name, fix=_ways_out(name))

    def _json(self) -> str:
        text: str = self._tokenizer.to_str(pretty=True)
        return text

    def __getstate__(self) -> dict[str, Any]:
        return {"tokenizer": self._tokenizer.to_str(), "source": self.source}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(Tokenizer.from_str(state["tokenizer"]), state["source"])  # type: ignore[misc]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextTokenizer) and self._json() == other._json()

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        return f"TextTokenizer({self.source!r}: {self.vocab_size} entries)"


def vocabulary_texts(corpus: Corpus) -> Iterator[str]:
    """Yield the texts that a vocabulary for this corpus is trained on; the same ones every time.

    They are the training split's reports and captions, without what the quarantine list excludes, and, so that label
    passages and zero-shot prompts are made of whole words too, passages and prompts of every finding of the vocabulary
    and of every label in the corpus that the vocabulary does not know.
    """
    from umif.language import prompts, vocabulary, write_passage

    yield from kept_texts(corpus, "train")
    findings = [entry.id for entry in vocabulary().entries if entry.kind == "finding"]
    for index, name in enumerate([*findings, *sorted(corpus.manifest.unmapped)]):
        for state_index, state in enumerate(("present", "absent", "uncertain")):
            for repeat in range(_PASSAGES_PER_STATE):
                rng = keyed_rng(0, "vocabulary", index, state_index * _PASSAGES_PER_STATE + repeat)
                yield write_passage([(name, state)], rng)
    for finding in findings:
        for sentences in prompts(finding):
            yield from sentences


def _ways_out(name: str) -> str:
    return (
        f"download {name!r} where there is a network and give the folder with its {_WORDS} or {_FILE}, "
        "or write tokenizer.source: auto to train a vocabulary on the corpus"
    )


def _with_words(vocabulary: dict[str, int], *, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=100))
    # strip_accents=None follows lowercase, as BERT does.
    tokenizer.normalizer = BertNormalizer(lowercase=lowercase, strip_accents=None)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


def _from_entries(entries: list[str]) -> Tokenizer:
    """A BERT's `vocab.txt`: one entry a line, its id the line's number. Cased if any entry has a capital."""
    cased = any(entry != entry.lower() for entry in entries if not (entry.startswith("[") and entry.endswith("]")))
    return _with_words({entry: index for index, entry in enumerate(entries) if entry}, lowercase=not cased)


def _count_words(texts: Iterable[str]) -> Counter[str]:
    rules = _with_words({UNKNOWN: 0}, lowercase=True)
    counts: Counter[str] = Counter()
    for text in texts:
        normal = rules.normalizer.normalize_str(text)
        counts.update(word for word, _ in rules.pre_tokenizer.pre_tokenize_str(normal))
    return counts


def _repeated(words: dict[str, int], most: int = 1000) -> Iterator[str]:
    """Texts that hold each word as often as it was counted, since the trainer takes nothing but texts."""
    for word in sorted(words):
        whole, rest = divmod(words[word], most)
        for count in (*[most] * whole, rest):
            yield " ".join([word] * count)
