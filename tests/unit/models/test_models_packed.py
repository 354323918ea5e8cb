"""Packed execution gives the numbers of the obvious padded reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from model_cases import BATCHES, SMALL, SPEC
from umif.errors import ConfigError, ShapeError
from umif.models import ModelConfig, Segments, UmiF, build_model, cls_attention, segment_attention
from umif.models.packed import fold_patch_kernel, run_packed
from umif.models.umif import GREY_MEAN, GREY_STD, HeadConfig, sine_cosine, sine_cosine_2d
from umif.objectives import compute_losses

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from umif.tokens.batch import Batch

MakeBatch = "Callable[..., Batch]"


def small(seed: int = 1, **changes: Any) -> UmiF:
    model = build_model(ModelConfig(**{**SMALL, **changes}), seed=seed)
    # A teacher that differs from the student, so that mixing them up cannot go unnoticed.
    model.update_teacher(0.0)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        for parameter in model.teacher.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return model


def loss_and_gradients(model: UmiF, batch: Batch, packing: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad(set_to_none=True)
    total = compute_losses(model(batch, packing=packing), SPEC)["total"]
    total.backward()
    return total.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cls": "separate", "channels": 3},
        {"projector": HeadConfig(hidden=32, out=16), "predictor": HeadConfig(hidden=32), "word_width": 24},
    ],
    ids=["default", "separate CLS, three channels", "projector and predictor"],
)
def test_packed_equals_padded_in_loss_and_every_gradient(
    name: str, changes: dict[str, Any], make_batch: Callable[..., Batch]
) -> None:
    model, batch = small(**changes), make_batch(BATCHES[name])
    loss, gradients = loss_and_gradients(model, batch, "packed")
    expected, references = loss_and_gradients(model, batch, "padded")
    # fp32: the contract is 1e-5 relative.
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    scale = max(reference.norm() for reference in references.values())
    assert gradients.keys() == references.keys()
    for key, reference in references.items():
        # Relative to the parameter's own gradient; one far below the largest is compared on the largest's scale.
        assert (gradients[key] - reference).norm() <= 1e-5 * max(float(reference.norm()), float(1e-2 * scale)), key


def test_packed_equals_padded_to_rounding_in_fp64(make_batch: Callable[..., Batch]) -> None:
    model, batch = small().double(), make_batch(BATCHES["all kinds"], seed=3)
    loss, gradients = loss_and_gradients(model, batch, "packed")
    expected, references = loss_and_gradients(model, batch, "padded")
    # Down to the order of summation.
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for key, reference in references.items():
        torch.testing.assert_close(gradients[key], reference, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("backbone", ["vit_small_patch16_18x2_224", "resnet18", "vit_tiny_patch16_225"])
def test_a_backbone_that_is_no_plain_vit_is_refused_by_name(backbone: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.backbone"):
        build_model(backbone, image_size=32)


def test_layer_scale_and_query_key_norm_are_honoured(make_batch: Callable[..., Batch]) -> None:
    vit = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, img_size=32, depth=2, qk_norm=True, init_values=0.1, in_chans=1
    )
    x = torch.randn(3, 1, 32, 32)
    expected = vit.forward_features(x)
    stream = vit._pos_embed(vit.patch_embed(x))
    segments = Segments(torch.arange(0, 16, 5, dtype=torch.int32), 5)
    every = run_packed(vit, stream.flatten(0, 1), segments, cls_only=False)
    torch.testing.assert_close(every.view(3, 5, -1), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run_packed(vit, stream.flatten(0, 1), segments), expected[:, 0], rtol=1e-4, atol=1e-5)


def test_images_alone_equal_timms_own_forward(make_batch: Callable[..., Batch]) -> None:
    model = small()
    batch = make_batch(BATCHES["images only"])
    vit = model.student.vit
    with torch.no_grad():
        vit.pos_embed[:, 1:] += model.student.modality_3D[0]  # type: ignore[index, operator]
        reference = vit.forward_features((batch.images_NHW[:, None].float() / 255 - GREY_MEAN) / GREY_STD)  # type: ignore[operator]
        vit.pos_embed[:, 1:] -= model.student.modality_3D[0]  # type: ignore[index, operator]
        cls, patches = model.student.encode_images(batch.images_NHW)
    torch.testing.assert_close(cls, reference[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(patches, reference[:, 1:], rtol=1e-4, atol=1e-5)


def test_tokens_after_a_block_equal_timms_intermediate(make_batch: Callable[..., Batch]) -> None:
    model, images = small(), make_batch(BATCHES["images only"]).images_NHW
    with torch.no_grad():
        _, patches = model.student.encode_images(images, block=2)
        x = torch.cat(
            [
                model.student._cls().expand(len(images), 1, -1),
                model.student.embed_images(images).view(len(images), 4, -1),
            ],
            dim=1,
        )
        for layer in list(model.student.vit.blocks)[:2]:  # type: ignore[arg-type]
            x = layer(x)
    torch.testing.assert_close(patches, x[:, 1:], rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match="3 blocks"):
        model.student.encode_images(images, block=4)


def test_texts_alone_do_not_depend_on_their_neighbours() -> None:
    student = small().student
    texts = [np.array([3, 1, 4]), np.array([5]), np.arange(30)]
    with torch.no_grad():
        together = student.encode_texts(texts)
        alone = torch.cat([student.encode_texts([text]) for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(ShapeError, match="40 tokens"):
        small().student.encode_texts([np.zeros(41, dtype=np.int64)])


def test_a_segments_attention_sees_no_other_segment() -> None:
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(10, 3, 2, 8, generator=generator)
    segments = Segments(torch.tensor([0, 3, 4, 10], dtype=torch.int32), 10)
    before = segment_attention(qkv, segments)
    changed = qkv.clone()
    changed[4:] += 1
    after = segment_attention(changed, segments)
    assert torch.equal(before[:4], after[:4])
    assert not torch.equal(before[4:], after[4:])


@pytest.mark.parametrize("lengths", [[1, 2, 3], [4, 4, 4], [7], [2, 2, 5, 5, 1]])
def test_attention_equals_the_softmax_formula_forward_and_backward(lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(1)
    total = sum(lengths)
    qkv = torch.randn(total, 3, 2, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    offsets = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    weight = torch.randn(total, 2, 8, generator=generator, dtype=torch.float64)
    out = segment_attention(qkv, Segments(offsets, total))
    (gradient,) = torch.autograd.grad((out * weight).sum(), qkv)
    parts = []
    for part in qkv.split(lengths):
        q, k, v = part.unbind(1)
        scores = torch.einsum("qhe,khe->hqk", q, k) / 8**0.5
        parts.append(torch.einsum("hqk,khe->qhe", scores.softmax(-1), v))
    reference = torch.cat(parts)
    (expected,) = torch.autograd.grad((reference * weight).sum(), qkv)
    torch.testing.assert_close(out, reference)
    torch.testing.assert_close(gradient, expected)
    single = cls_attention(qkv[offsets[:-1].long(), 0], qkv[:, 1:], Segments(offsets, total))
    torch.testing.assert_close(single, reference[offsets[:-1].long()])


def test_bfloat16_autocast_stays_near_fp32(make_batch: Callable[..., Batch]) -> None:
    model, batch = small(), make_batch(BATCHES["all kinds"])
    exact = compute_losses(model(batch), SPEC)["total"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = model(batch)
    rough = compute_losses(features, SPEC)["total"]
    assert rough.dtype == torch.float32
    # Eight bits of mantissa over three blocks.
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0)


def test_a_modality_that_a_batch_lacks_gets_a_zero_gradient(make_batch: Callable[..., Batch]) -> None:
    model = small()
    _, gradients = loss_and_gradients(model, make_batch(["report", "report"]), "packed")
    expected = {name for name, p in model.named_parameters() if p.requires_grad and not name.endswith("head.weight")}
    assert gradients.keys() == expected
    assert not gradients["student.mask_embed.weight"].any()


def test_the_teacher_is_an_average_and_gets_no_gradient(make_batch: Callable[..., Batch]) -> None:
    model = build_model(ModelConfig(**SMALL))
    before = {name: p.clone() for name, p in model.teacher.named_parameters()}
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(1.0)
    model.update_teacher(0.75)
    for name, parameter in model.teacher.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 0.25)
        assert not parameter.requires_grad
    assert not model(make_batch(["report"])).teacher_BD.requires_grad


def test_the_seed_decides_the_weights_and_the_callers_state_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (build_model(ModelConfig(**SMALL), seed=s).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["student.word_embed.weight"], other["student.word_embed.weight"])


class TestSpreadWeights:
    def test_places_are_as_loud_as_what_stands_there(self) -> None:
        student = small(random_init="spread", width=96, heads=3).student
        pictures = torch.randint(0, 256, (8, 32, 32), dtype=torch.uint8)
        with torch.no_grad():
            tokens_XD = student.embed_images(pictures)
        places_PD = student.vit.pos_embed[0, 1:].detach()  # type: ignore[index]
        for other in (places_PD, student.word_embed.weight, student.modality_3D):
            # Within a factor of four of the whole token; timm's 0.02 is a factor of 25.
            assert 0.25 < float(other.detach().std() / tokens_XD.std()) < 4

    def test_a_place_has_one_code_in_pictures_and_masks_and_no_two_places_share_one(self) -> None:
        student = small(random_init="spread", image_size=64).student
        places_PD = student.vit.pos_embed[0, 1:].detach()  # type: ignore[index]
        assert torch.equal(student.mask_position_PD, places_PD)
        distances_PP = torch.cdist(places_PD, places_PD) + torch.eye(len(places_PD)) * 9
        assert float(distances_PP.min()) > 0.5

    def test_codes_of_places_are_the_published_sines_and_cosines(self) -> None:
        code_LD = sine_cosine(torch.arange(7), 12).numpy()
        for place in range(7):
            for index in range(6):
                angle = place / 10_000 ** (index / 6)
                assert code_LD[place, index] == pytest.approx(np.sin(angle), abs=1e-6)
                assert code_LD[place, 6 + index] == pytest.approx(np.cos(angle), abs=1e-6)
        grid_PD = sine_cosine_2d(2, 3, 8)
        assert torch.equal(
            grid_PD[4], torch.cat([sine_cosine(torch.tensor([1]), 4)[0], sine_cosine(torch.tensor([1]), 4)[0]])
        )
        assert sine_cosine_2d(2, 2, 9).shape == (4, 9)

    def test_nothing_changes_where_it_is_not_asked_for(self) -> None:
        plain, spread = small().student.state_dict(), small(random_init="spread").student.state_dict()
        assert plain.keys() == spread.keys()
        assert all(plain[name].shape == spread[name].shape for name in plain)
        assert float(plain["word_embed.weight"].std()) == pytest.approx(0.02, rel=0.05)

    def test_packed_still_equals_padded(self, make_batch: Callable[..., Batch]) -> None:
        model, batch = small(random_init="spread"), make_batch(BATCHES["all kinds"])
        packed, padded = (loss_and_gradients(model, batch, packing)[0] for packing in ("packed", "padded"))
        # fp32: sums in another order.
        assert float(packed) == pytest.approx(float(padded), rel=1e-5)


def test_folding_three_channels_into_one_is_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 3, 4, 4, generator=generator, dtype=torch.float64)
    bias = torch.randn(8, generator=generator, dtype=torch.float64)
    mean, std = torch.tensor([0.5, 0.4, 0.3], dtype=torch.float64), torch.tensor([0.2, 0.3, 0.1], dtype=torch.float64)
    grey = torch.rand(2, 1, 8, 8, generator=generator, dtype=torch.float64)
    rgb = (grey.expand(-1, 3, -1, -1) - mean[:, None, None]) / std[:, None, None]
    expected = torch.nn.functional.conv2d(rgb, weight, bias, stride=4)
    folded, shift = fold_patch_kernel(weight, bias, mean_3=mean, std_3=std, grey_mean=0.5, grey_std=0.25)
    torch.testing.assert_close(torch.nn.functional.conv2d((grey - 0.5) / 0.25, folded, shift, stride=4), expected)


def test_timm_weights_load_by_name_and_give_timms_features(tmp_path: Path, make_batch: Callable[..., Batch]) -> None:
    source = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3)
    file = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in source.state_dict().items()}, file)
    model = build_model(ModelConfig(**{**SMALL, "init": str(file)}))
    images = make_batch(["image"]).images_NHW
    rgb = images[:, None].float().expand(-1, 3, -1, -1) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        model.student.modality_3D[0] = 0
        expected = source.eval().forward_features((rgb - mean[:, None, None]) / std[:, None, None])[:, 0]
        cls, _ = model.student.encode_images(images)
    torch.testing.assert_close(cls, expected, rtol=1e-4, atol=1e-4)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.student.parameters(), model.teacher.parameters(), strict=True)
        if a.shape != (3, 192)
    )


def test_weights_that_cannot_be_had_are_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.init"):
        build_model(ModelConfig(**{**SMALL, "init": str(tmp_path / "absent.safetensors")}))


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(ShapeError, match="48×48 pixels for a model of 32"):
        small().student.encode_images(torch.zeros(1, 48, 48, dtype=torch.uint8))
