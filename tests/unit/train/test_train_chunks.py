"""A batch in chunks has the gradient of the batch in one piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from umif.models import ModelConfig, UmiF, build_model
from umif.models.umif import HeadConfig
from umif.objectives import PAPER, compute_losses, gather_features
from umif.tokens.batch import FIRST_TOKEN, Batch, Example, pack
from umif.tokens.grouping import draw_groups
from umif.train.chunks import join_features, send_back, split_batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE, PATCHES, VOCABULARY = 32, 4, 50


def mixed_batch(pairs: int = 11) -> Batch:
    """Texts, masks and second views in turn; some pairs show group 0 a picture and a mask of its own."""
    rng = np.random.default_rng(3)

    def picture(*channels: int) -> NDArray[np.uint8]:
        return rng.integers(0, 256, (IMAGE, IMAGE, *channels), dtype=np.uint8)

    examples = []
    for slot in range(pairs):
        kind = ("report", "segment", "image")[slot % 3]
        length = int(rng.integers(1, 9)) if kind == "report" else PATCHES
        ratio = 1.0 if slot % 5 == 0 else 0.5
        own = slot % 4 == 1
        examples.append(
            Example(
                kind=kind,
                pair=slot,
                slot=slot,
                ratio=ratio,
                bits=draw_groups(PATCHES, length, ratio, rng),
                image=picture(),
                text_ids=rng.integers(0, VOCABULARY, length) if kind == "report" else None,
                mask=picture(3) if kind == "segment" else None,
                second_view=picture() if kind == "image" else None,
                image_0=picture() if own else None,
                mask_0=picture(3) if own and kind == "segment" else None,
            )
        )
    return pack(examples, patch_size=16, step=7)


def small_model(**changes: Any) -> UmiF:
    config = ModelConfig(
        backbone="vit_tiny_patch16_224", image_size=IMAGE, vocab_size=VOCABULARY, depth=2, width=32, heads=2, **changes
    )
    return build_model(config)


def gradients(model: UmiF) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def chunked_loss(model: UmiF, batch: Batch, pairs: int) -> torch.Tensor:
    chunks = list(split_batch(batch, pairs, PATCHES))
    with torch.no_grad():
        local = join_features([model(chunk) for chunk in chunks])
    losses = compute_losses(gather_features(local, batch.slots_B), PAPER)
    losses["total"].backward()
    first = 0
    for chunk in chunks:
        send_back(model(chunk, teacher=False), local, first)
        first += len(chunk)
    return losses["total"].detach()


@pytest.mark.parametrize("pairs", [1, 4, 10])
@pytest.mark.parametrize("predictor", [False, True], ids=["plain", "predictor"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["fp32", "fp64"])
def test_chunks_have_the_gradient_of_one_pass(pairs: int, predictor: bool, dtype: torch.dtype, close: float) -> None:
    batch = mixed_batch()
    heads = {"projector": HeadConfig(hidden=16, out=8), "predictor": HeadConfig(hidden=16, out=8)} if predictor else {}
    model = small_model(**heads).to(dtype)
    total = compute_losses(gather_features(model(batch), batch.slots_B), PAPER)["total"]
    total.backward()
    whole = gradients(model)
    model.zero_grad()
    assert chunked_loss(model, batch, pairs).item() == pytest.approx(total.item(), rel=close)
    assert float((gradients(model) - whole).norm() / whole.norm()) < close


def test_every_pair_and_every_token_is_in_one_chunk() -> None:
    batch = mixed_batch()
    chunks = list(split_batch(batch, 4, PATCHES))
    assert [len(chunk) for chunk in chunks] == [4, 4, 3]
    assert sum((chunk.kinds for chunk in chunks), ()) == batch.kinds
    assert {chunk.step for chunk in chunks} == {7}
    for name in ("pairs_B", "slots_B", "ratios_B", "text_ids_T", "text_positions_T"):
        torch.testing.assert_close(torch.cat([getattr(c, name) for c in chunks]), getattr(batch, name))
    for name in ("group1", "group0", "full"):
        lengths = [length for chunk in chunks for length in getattr(chunk, name).lengths]
        assert lengths == getattr(batch, name).lengths
    # No picture is embedded twice, and none is lost that a stream reads.
    read = torch.cat([batch.group1.rows_T, batch.group0.rows_T, batch.full.rows_T])
    pictures = (read[read >= FIRST_TOKEN] - FIRST_TOKEN) // PATCHES
    images, masks = len(batch.images_NHW), len(batch.masks_MHW3)
    assert sum(len(chunk.images_NHW) for chunk in chunks) == len(pictures[pictures < images].unique())
    assert sum(len(chunk.masks_MHW3) for chunk in chunks) == masks


def test_a_batch_that_fits_is_left_as_it_is() -> None:
    batch = mixed_batch()
    assert next(iter(split_batch(batch, len(batch), PATCHES))) is batch


def test_the_teacher_can_be_left_out() -> None:
    batch, model = mixed_batch(), small_model()
    features = model(batch, teacher=False)
    assert features.teacher_BD.shape == (len(batch), 0)
    assert torch.equal(features.f1_BD, model(batch).f1_BD)
