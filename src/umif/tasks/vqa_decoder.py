"""A text decoder of BERT's layout that reads what an encoder made of a picture and a question.

Blocks are BERT's (norm after each part) with a second attention to the memory, so that a BERT's weights fit; from
scratch it is the same module, smaller. The memory's keys and values are made once, however many answers are scored.

Shape legend: N questions (each with its picture), K answers of each, T tokens of an answer, S rows of the memory, D
width, M width of the memory, H heads, E width of a head, V entries of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umif.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_EPS = 1e-12  # BERT's
_BERT_PREFIX = "bert."


@dataclass(frozen=True, slots=True)
class Memory:
    """What the decoder attends to.

    Shapes: keys and values, one per block, (N, H, S, E); real_NS bool; start_ND is added to the first position.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    real_NS: Tensor
    start_ND: Tensor

    def take(self, index_n: Tensor) -> Memory:
        """Return the memory of some questions."""
        return Memory(
            tuple(key[index_n] for key in self.keys),
            tuple(value[index_n] for value in self.values),
            self.real_NS[index_n],
            self.start_ND[index_n],
        )


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Sizes of a decoder; `hidden` is the width inside its MLPs, `positions` the longest answer with its start."""

    width: int
    depth: int
    heads: int
    hidden: int
    vocabulary: int
    positions: int
    memory_width: int


class _Block(nn.Module):
    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.self_qkv, self.self_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.cross_q, self.cross_out = nn.Linear(width, width), nn.Linear(width, width)
        self.cross_kv = nn.Linear(shape.memory_width, 2 * width)
        self.mlp_in, self.mlp_out = nn.Linear(width, shape.hidden), nn.Linear(shape.hidden, width)
        self.self_norm, self.cross_norm, self.mlp_norm = (nn.LayerNorm(width, eps=_EPS) for _ in range(3))

    def keys_values(self, rows_XSM: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: (X, S, M) → two of (X, H, S, E)."""
        count, length = rows_XSM.shape[:2]
        kv = self.cross_kv(rows_XSM).view(count, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        return kv[0], kv[1]

    def forward(self, x_NKTD: Tensor, key_NHSE: Tensor, value_NHSE: Tensor, real_NS: Tensor) -> Tensor:
        count, answers, length, width = x_NKTD.shape
        qkv = self.self_qkv(x_NKTD).view(count * answers, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        own = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=True)
        x_NKTD = self.self_norm(x_NKTD + self.self_out(own.transpose(1, 2).reshape(x_NKTD.shape)))
        query = self.cross_q(x_NKTD).view(count, answers * length, self.heads, -1).transpose(1, 2)
        seen = F.scaled_dot_product_attention(query, key_NHSE, value_NHSE, attn_mask=real_NS[:, None, None, :])
        seen_NKTD = seen.transpose(1, 2).reshape(count, answers, length, width)
        x_NKTD = self.cross_norm(x_NKTD + self.cross_out(seen_NKTD))
        out: Tensor = self.mlp_norm(x_NKTD + self.mlp_out(F.gelu(self.mlp_in(x_NKTD))))
        return out


class AnswerDecoder(nn.Module):
    """Next-token logits of answers, given a memory.

    A summary of question and picture is added to the start token: the first block already asks the picture for what the
    question is about, and what CLS knows reaches the answer before attention to single patches is learned. Input and
    output embeddings are one table, as in BERT.
    """

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.words = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Parameter(torch.empty(shape.positions, shape.width))
        self.start_in = nn.Linear(3 * shape.memory_width, shape.hidden)
        self.start_out = nn.Linear(shape.hidden, shape.width)
        self.norm = nn.LayerNorm(shape.width, eps=_EPS)
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.depth))
        self.head_map = nn.Linear(shape.width, shape.width)
        self.head_norm = nn.LayerNorm(shape.width, eps=_EPS)
        self.head_bias = nn.Parameter(torch.zeros(shape.vocabulary))
        # Sized so that logits differ by about one from the start: from BERT's 0.02 on, a small decoder spends a short
        # run on letting its words grow.
        for table in (self.words.weight, self.positions):
            nn.init.trunc_normal_(table, std=shape.width**-0.5)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def remember(
        self,
        images_ISM: Tensor,
        texts_QLM: Tensor,
        real_QL: Tensor,
        image_of_N: Tensor,
        text_of_N: Tensor,
    ) -> Memory:
        """Make the memory of N questions about I pictures, worded in Q ways; each picture and text is mapped once.

        Shapes: pictures (I, S, M), CLS first; texts (Q, L, M), CLS first, with real_QL; image_of_N, text_of_N int64.
        """
        keys, values = [], []
        for block in self.blocks:
            assert isinstance(block, _Block)
            image_kv, text_kv = block.keys_values(images_ISM), block.keys_values(texts_QLM)
            key, value = (
                torch.cat([image[image_of_N], text[text_of_N]], dim=2)
                for image, text in zip(image_kv, text_kv, strict=True)
            )
            keys.append(key)
            values.append(value)
        of_image = real_QL.new_ones(len(image_of_N), images_ISM.shape[1])
        real_NS = torch.cat([of_image, real_QL[text_of_N]], dim=1)
        of_image_IX = torch.cat([images_ISM[:, 0], images_ISM[:, 1:].mean(1)], dim=1)
        summary = torch.cat([texts_QLM[text_of_N, 0], of_image_IX[image_of_N]], dim=1)
        start_ND = self.start_out(F.gelu(self.start_in(summary)))
        return Memory(tuple(keys), tuple(values), real_NS, start_ND)

    def forward(self, ids_NKT: Tensor, memory: Memory) -> Tensor:
        """Logits of the token after each. Shapes: (N, K, T) int64, the first of each the start → (N, K, T, V)."""
        return self.logits(self.states(ids_NKT, memory))

    def states(self, ids_NKT: Tensor, memory: Memory) -> Tensor:
        """What is known at each token, before words are asked of it. Shapes: as `forward`, → (N, K, T, D)."""
        length = ids_NKT.shape[2]
        x_NKTD: Tensor = self.words(ids_NKT) + self.positions[:length]
        first_NKTD = F.pad(memory.start_ND[:, None, None], (0, 0, 0, length - 1))
        x_NKTD = self.norm(x_NKTD + first_NKTD)
        for block, key, value in zip(self.blocks, memory.keys, memory.values, strict=True):
            x_NKTD = block(x_NKTD, key, value, memory.real_NS)
        return x_NKTD

    def logits(self, states_XD: Tensor) -> Tensor:
        """Logits of the next token. Shapes: (…, D) → (…, V)."""
        logits: Tensor = F.linear(self.head_norm(F.gelu(self.head_map(states_XD))), self.words.weight, self.head_bias)
        return logits


def scratch_shape(width: int, heads: int, depth: int, vocabulary: int, positions: int) -> DecoderShape:
    """Return the shape of a decoder from scratch behind an encoder of that width and number of heads."""
    return DecoderShape(width, depth, heads, 4 * width, vocabulary, positions, width)


def bert_decoder(source: str, memory_width: int) -> AnswerDecoder:
    """Return a decoder with a BERT's embeddings, self-attention, MLPs and head; attention to the memory is new.

    Args:
        source: Hub id or folder of weights with a head for masked words.
        memory_width: Width of the encoder.

    Raises:
        ConfigError: there is none, or it is of another architecture.
    """
    from transformers import AutoModelForMaskedLM

    try:
        bert = AutoModelForMaskedLM.from_pretrained(source)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        fix = "give a folder with its weights, or vqa.decoder=scratch"
        raise ConfigError(f"no BERT at {source!r}: {reason}", where="vqa.decoder", fix=fix) from error
    config = bert.config
    if config.model_type != "bert":
        raise ConfigError(f"{source!r} is a {config.model_type}, not a BERT", where="vqa.decoder")
    shape = DecoderShape(
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
        config.vocab_size,
        config.max_position_embeddings,
        memory_width,
    )
    decoder = AnswerDecoder(shape)
    load_bert(decoder, bert.state_dict())
    return decoder


@torch.no_grad()
def load_bert(decoder: AnswerDecoder, state: Mapping[str, Tensor]) -> None:
    """Fill a decoder from the state of a BERT with a language head; where it has cross-attention, that too.

    The start's last map is set to zero, so that a BERT begins as it is.

    Raises:
        KeyError: a weight is missing.
    """

    def put(module: nn.Module, *names: str) -> None:
        for kind, target in module.named_parameters():
            target.copy_(torch.cat([state[f"{name}.{kind}"] for name in names]))

    embeddings = f"{_BERT_PREFIX}embeddings."
    decoder.words.weight.copy_(state[f"{embeddings}word_embeddings.weight"])
    # Of its two kinds of segments an answer is the first; BERT adds that to every position.
    kind_D = state[f"{embeddings}token_type_embeddings.weight"][0]
    decoder.positions.copy_(state[f"{embeddings}position_embeddings.weight"] + kind_D)
    put(decoder.norm, f"{embeddings}LayerNorm")
    nn.init.zeros_(decoder.start_out.weight)
    nn.init.zeros_(decoder.start_out.bias)
    for number, block in enumerate(decoder.blocks):
        assert isinstance(block, _Block)
        home = f"{_BERT_PREFIX}encoder.layer.{number}."
        put(block.self_qkv, *(f"{home}attention.self.{part}" for part in ("query", "key", "value")))
        put(block.self_out, f"{home}attention.output.dense")
        put(block.self_norm, f"{home}attention.output.LayerNorm")
        put(block.mlp_in, f"{home}intermediate.dense")
        put(block.mlp_out, f"{home}output.dense")
        put(block.mlp_norm, f"{home}output.LayerNorm")
        if f"{home}crossattention.self.query.weight" in state:
            put(block.cross_q, f"{home}crossattention.self.query")
            put(block.cross_kv, *(f"{home}crossattention.self.{part}" for part in ("key", "value")))
            put(block.cross_out, f"{home}crossattention.output.dense")
            put(block.cross_norm, f"{home}crossattention.output.LayerNorm")
    put(decoder.head_map, "cls.predictions.transform.dense")
    put(decoder.head_norm, "cls.predictions.transform.LayerNorm")
    decoder.head_bias.copy_(state["cls.predictions.bias"])
