"""Tokens of pictures and wordings that a network made once, so that a decoder can learn on them for many steps.

Shape legend: I pictures, Q wordings, S tokens of a picture, L tokens of a wording, D width, n questions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from umif.rng import keyed_rng

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from umif.tasks.vqa_data import Pictures
    from umif.tasks.vqa_decoder import Memory
    from umif.tasks.vqa_model import VqaModel

# Tokens of pictures that are held at a time, fp32.
_KEPT_BYTES = 1024 * 2**20
_AT_ONCE = 64
# Questions that are answered together.
MOST_QUESTIONS = 512


class KeptTokens:
    """Tokens of some pictures and wordings as the network is now; what becomes of it later does not reach them."""

    def __init__(
        self, model: VqaModel, pictures: Pictures, rows: NDArray[np.int64], wordings: NDArray[np.str_]
    ) -> None:
        self._model = model
        self.rows_I, self.words_Q = np.unique(rows), np.unique(wordings)
        with torch.inference_mode():
            seen = [model.see(pictures.take(self.rows_I[some])) for some in blocks(len(self.rows_I), _AT_ONCE)]
            read = [model.read(self.words_Q[some].tolist()) for some in blocks(len(self.words_Q), _AT_ONCE)]
        self.images_ISD = torch.cat(seen)
        longest = max(texts.shape[1] for texts, _ in read)
        self.texts_QLD = torch.cat([F.pad(texts, (0, 0, 0, longest - texts.shape[1])) for texts, _ in read])
        self.real_QL = torch.cat([F.pad(real, (0, longest - real.shape[1])) for _, real in read])

    def standardise(self, rows: NDArray[np.int64]) -> None:
        """Let the model standardise tokens by those of some pictures and of all wordings."""
        chosen = torch.from_numpy(np.searchsorted(self.rows_I, np.unique(rows))).to(self.images_ISD.device)
        self._model.standard_image.measure(self.images_ISD[chosen])
        self._model.standard_text.measure(self.texts_QLD, self.real_QL)

    def memory(self, rows_n: NDArray[np.int64], questions_n: NDArray[np.str_]) -> Memory:
        """Return the memory of questions about pictures, all of them among those kept."""
        rows, image_n = np.unique(rows_n, return_inverse=True)
        words, text_n = np.unique(questions_n, return_inverse=True)
        device = self.images_ISD.device
        images = torch.from_numpy(np.searchsorted(self.rows_I, rows)).to(device)
        texts = torch.from_numpy(np.searchsorted(self.words_Q, words)).to(device)
        longest = int(self.real_QL[texts].sum(1).max())
        return self._model.recall(
            self.images_ISD[images],
            self.texts_QLD[texts, :longest],
            self.real_QL[texts, :longest],
            image_n.reshape(-1),
            text_n.reshape(-1),
        )


def some_rows(rows_N: NDArray[np.int64], most: int, token_bytes: int, seed: int) -> NDArray[np.int64]:
    """Return the pictures that are kept: all, or as many drawn ones as are wanted and fit into memory.

    Args:
        rows_N: Rows of the corpus, repeats allowed.
        most: How many are wanted.
        token_bytes: Size of one picture's tokens.
        seed: Draws them.
    """
    rows = np.unique(rows_N)
    most = max(1, min(most, _KEPT_BYTES // token_bytes))
    return rows if len(rows) <= most else keyed_rng(seed, "vqa kept images").permutation(rows)[:most]


def memory_of(model: VqaModel, pictures: Pictures, rows_n: NDArray[np.int64], questions_n: NDArray[np.str_]) -> Memory:
    """Return the memory of questions about pictures; each picture and each wording is encoded once."""
    rows, image_n = np.unique(rows_n, return_inverse=True)
    words, text_n = np.unique(questions_n, return_inverse=True)
    return model.remember(pictures.take(rows), words.tolist(), image_n.reshape(-1), text_n.reshape(-1))


def blocks(count: int, size: int) -> list[slice]:
    """Return the slices that cut `count` things into runs of `size`."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
