"""The vocabulary of a run: taken from somewhere, or trained on the corpus, and kept in the run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from umif.corpus import Corpus
from umif.errors import StorageError
from umif.tokens.text import TextTokenizer, vocabulary_texts
from umif.train.durable import DISK, remove_folder, sync

if TYPE_CHECKING:
    from pathlib import Path

    from umif.train.distributed import Processes
    from umif.train.recipe import Recipe

FOLDER = "tokenizer"


def prepare_tokenizer(recipe: Recipe, processes: Processes) -> TextTokenizer:
    """Return the run's tokeniser; the first start makes it and puts it into the run folder.

    Raises:
        InputError: `tokenizer.source` cannot be had.
        StorageError: the disk refused a write.
    """
    folder = recipe.out / FOLDER
    processes.on_main(lambda: None if folder.exists() else _make(recipe, folder))
    return TextTokenizer.load(folder)


def _make(recipe: Recipe, folder: Path) -> None:
    if recipe.tokenizer.source == "auto":
        texts = vocabulary_texts(Corpus.open(recipe.corpus))
        tokenizer = TextTokenizer.train(texts, vocab_size=recipe.tokenizer.vocab_size)
    else:
        tokenizer = TextTokenizer.load(recipe.tokenizer.source)
    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        if temporary.exists():
            remove_folder(temporary)
        tokenizer.save(temporary)
        for file in temporary.iterdir():
            sync(file)
        sync(temporary)
        DISK.rename(temporary, folder)
        sync(folder.parent)
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror or error}", where=folder, fix="make room, or mend the disk"
        ) from error
