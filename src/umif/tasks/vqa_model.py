"""A model that answers questions: a trainable copy of an encoder's network and a decoder behind it.

    picture  ── network ──► CLS and patches ── standardised ┐
    question ── network ──► CLS and words   ── standardised ┴─ memory ── decoder ──► answer, token by token

Shape legend: N questions, I pictures, Q wordings, K answers of a question, T tokens, S×S pixels, D width.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umif.errors import ConfigError, TaskError
from umif.tasks.vqa_decoder import AnswerDecoder, bert_decoder, scratch_shape
from umif.tokens import TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from umif.encoder import Encoder
    from umif.models import TokenEncoder
    from umif.tasks.vqa_config import VqaConfig
    from umif.tasks.vqa_decoder import Memory

# Longest answer with its end, in tokens; a longer one is cut, and both ways of answering see it cut.
MAX_ANSWER_TOKENS = 16
PAD = -1


class AnswerTokens:
    """Answers ↔ token ids, with a start and an end.

    BERT's own `[CLS]` and `[SEP]` are start and end where the vocabulary has them; else two ids after its last.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        start, end = tokenizer.id_of("[CLS]"), tokenizer.id_of("[SEP]")
        own = start is None or end is None
        self.start = tokenizer.vocab_size if own or start is None else start
        self.end = tokenizer.vocab_size + 1 if own or end is None else end
        self.vocabulary = tokenizer.vocab_size + (2 if own else 0)

    def encode(self, answer: str) -> tuple[int, ...]:
        """Return the ids of an answer and the end."""
        return (*self.tokenizer.encode(answer, MAX_ANSWER_TOKENS - 1).tolist(), self.end)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, up to the end."""
        stop = ids.index(self.end) if self.end in ids else len(ids)
        return self.tokenizer.decode(ids[:stop])

    @staticmethod
    def pad(answers: Sequence[Sequence[int]]) -> Tensor:
        """Return answers as a block, padded by −1. Shape (K, T)."""
        longest = max(len(ids) for ids in answers)
        return torch.tensor([[*ids, *[PAD] * (longest - len(ids))] for ids in answers], dtype=torch.int64)


class Standardised(nn.Module):
    """Tokens less their mean and over their deviation, feature by feature; CLS apart from the tokens after it.

    What tells two pictures apart is small beside what all pictures have in common. A decoder that is handed both as
    they are spends its training on the latter and answers by the question alone. The statistics are those of the
    training pictures under the network as it came; they stay when the network is tuned.
    """

    mean_2D: Tensor
    scale_2D: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean_2D", torch.zeros(2, width))
        self.register_buffer("scale_2D", torch.ones(2, width))

    @torch.no_grad()
    def measure(self, tokens_NLD: Tensor, real_NL: Tensor | None = None) -> None:
        """Take the statistics of some tokens; without `real_NL` all are real."""
        parts = (
            tokens_NLD[:, 0],
            tokens_NLD[:, 1:].flatten(0, 1) if real_NL is None else tokens_NLD[:, 1:][real_NL[:, 1:]],
        )
        for kind, rows_XD in enumerate(parts):
            deviation_D = rows_XD.std(dim=0, correction=0)
            # A feature that is alike everywhere says nothing; it stays small instead of being blown up.
            floor = max(1e-6, 1e-2 * float(deviation_D.mean()))
            self.mean_2D[kind] = rows_XD.mean(dim=0)
            self.scale_2D[kind] = 1 / deviation_D.clamp(min=floor)

    def forward(self, tokens_NLD: Tensor) -> Tensor:
        """Shapes: (N, L, D), CLS first, as they are returned."""
        parts = (tokens_NLD[:, :1], tokens_NLD[:, 1:])
        return torch.cat([(part - self.mean_2D[k]) * self.scale_2D[k] for k, part in enumerate(parts)], dim=1)


class VqaModel(nn.Module):
    """Network and decoder; `frozen` leaves the network as it came."""

    def __init__(
        self, network: TokenEncoder, decoder: AnswerDecoder, tokens: AnswerTokens, *, frozen: bool, max_words: int
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(not frozen)
        self.decoder = decoder
        self.standard_image, self.standard_text = Standardised(network.width), Standardised(network.width)
        self.tokens = tokens
        self.frozen = frozen
        self.max_words = min(max_words, network.config.max_text_tokens)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.decoder.positions.device

    @property
    def image_tokens(self) -> int:
        """Tokens that the network makes of a picture."""
        rows, columns = self.network.grid
        return 1 + rows * columns

    def remember(
        self,
        views_ISS: NDArray[np.uint8],
        questions: Sequence[str],
        image_of_N: NDArray[np.int64],
        text_of_N: NDArray[np.int64],
    ) -> Memory:
        """Encode pictures and wordings once each, and return the memory of N questions that use them."""
        return self.recall(self.see(views_ISS), *self.read(questions), image_of_N, text_of_N)

    def see(self, views_ISS: NDArray[np.uint8]) -> Tensor:
        """Return the network's tokens of pictures, CLS first. Shape (I, tokens, D)."""
        with torch.no_grad() if self.frozen else nullcontext():
            cls_ID, patches_IPD = self.network.encode_images(torch.from_numpy(views_ISS).to(self.device))
            return torch.cat([cls_ID[:, None], patches_IPD], dim=1)

    def read(self, questions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the network's tokens of wordings, CLS first, and which are real. Shapes (Q, L, D), (Q, L)."""
        with torch.no_grad() if self.frozen else nullcontext():
            ids = [self.tokens.tokenizer.encode(question, self.max_words) for question in questions]
            return self.network.encode_text_tokens(ids)

    def recall(
        self,
        images_ISD: Tensor,
        texts_QLD: Tensor,
        real_QL: Tensor,
        image_of_N: NDArray[np.int64],
        text_of_N: NDArray[np.int64],
    ) -> Memory:
        """Return the memory of N questions from what the network made of pictures and wordings."""
        image_of, text_of = (torch.from_numpy(index).to(self.device) for index in (image_of_N, text_of_N))
        return self.decoder.remember(
            self.standard_image(images_ISD), self.standard_text(texts_QLD), real_QL, image_of, text_of
        )

    def log_likelihoods(self, memory: Memory, answers_NKT: Tensor) -> Tensor:
        """Log-likelihood of whole answers, ends included; the sum over their tokens.

        Shapes: (N, K, T) int64 padded by −1 → (N, K).
        """
        answers_NKT = answers_NKT.to(self.device)
        start = torch.full_like(answers_NKT[:, :, :1], self.tokens.start)
        ids_NKT = torch.cat([start, answers_NKT[:, :, :-1].clamp(min=0)], dim=2)
        # The vocabulary is the dear part, so it is asked where there is a token only.
        real_NKT = answers_NKT != PAD
        logits_XV = self.decoder.logits(self.decoder.states(ids_NKT, memory)[real_NKT]).float()
        losses_X = F.cross_entropy(logits_XV, answers_NKT[real_NKT], reduction="none")
        losses_NKT = losses_X.new_zeros(answers_NKT.shape).masked_scatter(real_NKT, losses_X)
        return -losses_NKT.sum(2)

    def first_log_probs(self, memory: Memory) -> Tensor:
        """Log-probability of every token as an answer's first. Shape (N, V)."""
        start = torch.full((len(memory.real_NS), 1, 1), self.tokens.start, device=self.device)
        return F.log_softmax(self.decoder(start, memory)[:, 0, 0].float(), dim=1)

    def generate(self, memory: Memory, most: int = MAX_ANSWER_TOKENS) -> list[tuple[int, ...]]:
        """Take the likeliest next token until the end. Returns ids, the end included where it was reached in time."""
        ids_NT = torch.full((len(memory.real_NS), 1), self.tokens.start, device=self.device)
        ended_N = torch.zeros(len(ids_NT), dtype=torch.bool, device=self.device)
        for _ in range(most):
            next_N = self.decoder(ids_NT[:, None], memory)[:, 0, -1].argmax(1)
            ids_NT = torch.cat([ids_NT, next_N[:, None]], dim=1)
            ended_N |= next_N == self.tokens.end
            if bool(ended_N.all()):
                break
        return [_up_to(ids, self.tokens.end) for ids in ids_NT[:, 1:].tolist()]


def build_vqa_model(encoder: Encoder, config: VqaConfig, seed: int) -> VqaModel:
    """Return the model that is to be trained: a copy of the encoder's network and a fresh decoder.

    Raises:
        TaskError: the encoder has no tokeniser.
        ConfigError: the BERT named cannot be had, or has another vocabulary than the encoder.
    """
    if encoder.tokenizer is None:
        raise TaskError(
            "this encoder has no tokeniser, so it can read no question",
            where=encoder.name,
            fix="use an encoder of a run, which keeps its tokeniser",
        )
    tokens, network = AnswerTokens(encoder.tokenizer), encoder.trainable_copy()
    # What is drawn here is drawn by the seed alone, and the caller's random state is left alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.decoder == "scratch":
            heads = int(network.vit.blocks[0].attn.num_heads)  # type: ignore[index, union-attr]
            shape = scratch_shape(network.width, heads, config.depth, tokens.vocabulary, MAX_ANSWER_TOKENS + 1)
            decoder = AnswerDecoder(shape)
        else:
            _check_vocabulary(config.decoder, encoder.tokenizer)
            decoder = bert_decoder(config.decoder, encoder.width)
            if decoder.shape.vocabulary < tokens.vocabulary:
                raise ConfigError(f"{config.decoder!r} has no room for a start and an end", where="vqa.decoder")
    model = VqaModel(network, decoder, tokens, frozen=config.frozen, max_words=config.max_question_tokens)
    return model.to(encoder.device)


def _check_vocabulary(source: str, tokenizer: TextTokenizer) -> None:
    if TextTokenizer.load(source).sha256 != tokenizer.sha256:
        raise ConfigError(
            f"the BERT at {source!r} and the encoder have different vocabularies",
            where="vqa.decoder",
            fix=f"pre-train with tokenizer.source={source}, or use vqa.decoder=scratch",
        )


def _up_to(ids: list[int], end: int) -> tuple[int, ...]:
    return tuple(ids[: ids.index(end) + 1] if end in ids else ids)
