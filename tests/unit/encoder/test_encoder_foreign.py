"""Encoders of others: the same interface, their own preprocessing, typed errors with the local way out."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from planted_corpus import planted_corpus
from umif.encoder import FrozenEncoder, Readout, is_foreign, load_foreign
from umif.errors import CheckpointError, ConfigError, InputError, NonFiniteError, TaskError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from umif.corpus import Corpus

VIT = "test_vit"  # timm's own small networks for tests
PICTURES = [np.random.default_rng(seed).integers(0, 256, (60, 50)).astype(np.uint8) for seed in range(3)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return planted_corpus(tmp_path_factory.mktemp("films"), patients=20)


def saved(name: str, folder: Path) -> tuple[str, Any]:
    """Write random weights of a timm network; return its spec and the network, without a classifier."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False)
    file = folder / f"{name}.safetensors"
    save_file(model.state_dict(), file)
    model.reset_classifier(0)
    return f"timm:{name}@{file}", model.eval()


def input_of(picture: NDArray[np.uint8], size: int, mean: Any, std: Any, how: str = "bicubic") -> torch.Tensor:
    """The network's input, made step by step without the code under test."""
    small = Image.fromarray(picture).resize((size, size), Image.Resampling[how.upper()])
    pixels = np.asarray(small, dtype=np.float32) / 255.0
    planes = [(pixels - mean[channel]) / std[channel] for channel in range(3)]
    return torch.from_numpy(np.stack(planes)[None].astype(np.float32))


@pytest.mark.parametrize("name", [VIT, "test_resnet", "test_efficientnet", "test_convnext"])
def test_a_timm_network_gives_what_timm_gives(name: str, tmp_path: Path) -> None:
    spec, model = saved(name, tmp_path)
    encoder = load_foreign(spec, device="cpu")
    config = timm.data.resolve_model_data_config(model)
    size = config["input_size"][1]
    assert encoder.image_size == size
    found = encoder.encode_images(PICTURES)
    assert found.shape == (3, encoder.width)
    for picture, features in zip(PICTURES, found, strict=True):
        with torch.inference_mode():
            expected = model(input_of(picture, size, config["mean"], config["std"], config["interpolation"]))[0]
        # The same numbers in batches of another size: fp32 sums in another order.
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    rows, columns = encoder.grid
    assert encoder.encode_patches(PICTURES).shape == (3, rows, columns, encoder.patch_width)


def test_a_vit_gives_its_patches_after_every_block(tmp_path: Path) -> None:
    spec, model = saved(VIT, tmp_path)
    encoder = load_foreign(spec, device="cpu")
    assert encoder.depth == len(model.blocks) > 1
    config = timm.data.resolve_model_data_config(model)
    square = input_of(PICTURES[0], encoder.image_size, config["mean"], config["std"])
    seen = []
    model.blocks[1].register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.inference_mode():
        model(square)
    expected = seen[0][0, model.num_prefix_tokens :]
    found = encoder.encode_patches(PICTURES[:1], block=2).flatten(0, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="no block"):
        encoder.encode_patches(PICTURES, block=encoder.depth + 1)


def test_a_corpus_is_read_as_its_pictures_are_and_kept(corpus: Corpus, tmp_path: Path) -> None:
    spec, _ = saved(VIT, tmp_path)
    encoder = load_foreign(spec, shorter_side=40, cache=tmp_path / "features", device="cpu")
    assert isinstance(encoder, FrozenEncoder)
    rows = np.array([3, 0, 5])
    for readout in (Readout("cls"), Readout("patches", block=1, pool=2)):
        first = encoder.encode_corpus(corpus, rows, readout)
        assert np.array_equal(
            load_foreign(spec, cache=tmp_path / "features").encode_corpus(corpus, rows, readout), first
        )
    # Another preprocessing is another key: three files, the third from the second encoder's default shorter side.
    assert len(list((tmp_path / "features").glob("*.npz"))) == 4
    patches = encoder.corpus_patches(corpus, rows, [1, encoder.depth]).take(rows)
    assert patches.shape == (3, 2, encoder.grid[0] * encoder.grid[1], encoder.patch_width)


def test_random_weights_differ_from_the_loaded_ones_and_leave_the_global_state_alone(tmp_path: Path) -> None:
    spec, _ = saved(VIT, tmp_path)
    encoder = load_foreign(spec, device="cpu")
    before = torch.get_rng_state()
    random = encoder.random_like(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert random.weights_sha256 != encoder.weights_sha256
    assert random.weights_sha256 == encoder.random_like(1).weights_sha256 != encoder.random_like(2).weights_sha256
    assert random.preprocessing.to_json() == encoder.preprocessing.to_json()


def test_what_timm_cannot_give_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="Did you mean"):
        load_foreign("timm:vit_tiny_patch16_225")

    def unreachable(*_: Any, **__: Any) -> Any:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(InputError, match=r"no route to host(.|\n)*timm:test_vit@/path/weights.safetensors"):
        load_foreign(f"timm:{VIT}")
    monkeypatch.undo()
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, other)
    with pytest.raises(CheckpointError, match="do not fit"):
        load_foreign(f"timm:{VIT}@{other}")
    with pytest.raises(InputError, match="no such file"):
        load_foreign(f"timm:{VIT}@{tmp_path / 'nowhere.safetensors'}")
    with pytest.raises(InputError, match=r"no \.safetensors"):
        load_foreign(f"timm:{VIT}@{tmp_path / 'weights.pth'}")


def test_a_folder_of_transformers_gives_what_transformers_gives(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8
    )
    model = ViTModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path / "vit")
    with pytest.raises(InputError, match="how pictures are normalised"):
        load_foreign(f"hf:{tmp_path / 'vit'}")
    ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.4] * 3, image_std=[0.3] * 3, resample=3
    ).save_pretrained(tmp_path / "vit")
    encoder = load_foreign(f"hf:{tmp_path / 'vit'}", device="cpu")
    assert (encoder.width, encoder.depth, encoder.grid, encoder.image_size) == (32, 3, (4, 4), 32)
    with torch.inference_mode():
        square = input_of(PICTURES[0], 32, (0.4,) * 3, (0.3,) * 3)
        output = model(pixel_values=square, output_hidden_states=True)
    torch.testing.assert_close(
        encoder.encode_images(PICTURES[:1])[0], output.last_hidden_state[0, 0], rtol=1e-4, atol=1e-5
    )
    found = encoder.encode_patches(PICTURES[:1], block=2).flatten(0, 2)
    torch.testing.assert_close(found, output.hidden_states[2][0, 1:], rtol=1e-4, atol=1e-5)
    assert encoder.random_like(0).weights_sha256 != encoder.weights_sha256
    with pytest.raises(InputError, match="local folder"):
        load_foreign(f"hf:{tmp_path / 'nowhere'}")


class Means(torch.nn.Module):
    """Mean of the upper and the lower half of the picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, squares: torch.Tensor) -> torch.Tensor:
        assert squares.shape[1] == self.channels
        half = squares.shape[2] // 2
        return torch.stack([squares[:, 0, :half].mean((1, 2)), squares[:, 0, half:].mean((1, 2))], dim=1)


def script(file: Path, channels: int) -> str:
    scripted(Means(channels), file)
    return str(file)


def scripted(module: torch.nn.Module, file: Path) -> None:
    with warnings.catch_warnings():
        # torch would rather have other ways, and says so by another kind in each version; users have these files.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(file))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_script_is_a_function_of_squares(channels: int, tmp_path: Path) -> None:
    file = script(tmp_path / "means.pt", channels)
    encoder = load_foreign(file, device="cpu")
    assert encoder.readouts == ("cls",)
    assert "not normalised" in encoder.notes[0]
    picture = np.concatenate([np.full((40, 60), 255), np.zeros((40, 60))]).astype(np.uint8)
    top, bottom = encoder.encode_images([picture])[0].tolist()
    assert (top, bottom) == pytest.approx((1.0, 0.0), abs=0.01)  # but for the seam, which the filter blurs
    (tmp_path / "means.pt.json").write_text(
        json.dumps({"image_size": 64, "channels": channels, "mean": [0.5] * channels, "std": [0.5] * channels})
    )
    encoder = load_foreign(file, device="cpu")
    assert encoder.image_size == 64
    assert not encoder.notes
    assert encoder.encode_images([picture])[0].tolist() == pytest.approx([1.0, -1.0], abs=0.05)
    with pytest.raises(TaskError, match="no patches"):
        encoder._forward(np.zeros((1, 64, 64), np.uint8), Readout("patches"))
    with pytest.raises(TaskError, match="no random weights"):
        encoder.random_like(0)


def test_a_file_that_is_no_such_function_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(InputError, match="no TorchScript"):
        load_foreign(tmp_path / "junk.pt")
    with pytest.raises(InputError, match="no such file"):
        load_foreign(tmp_path / "nowhere.onnx")
    scripted(torch.nn.Conv2d(3, 2, 3), tmp_path / "map.pt")
    with pytest.raises(InputError, match=r"gives shape \(2, 2, 222, 222\)"):
        load_foreign(tmp_path / "map.pt", device="cpu")
    file = script(tmp_path / "means.pt", 3)
    (tmp_path / "means.pt.json").write_text('{"size": 64}')
    with pytest.raises(ConfigError, match="image_size"):
        load_foreign(file)
    (tmp_path / "means.pt.json").write_text('{"mean": [0.5], "std": [0.5]}')
    with pytest.raises(ConfigError, match="3 channels"):
        load_foreign(file)
    with pytest.raises(InputError, match="names no encoder"):
        load_foreign("resnet50")


def test_an_onnx_graph_gives_what_it_was_made_from(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper, save

    # Mean over each plane of the picture; a batch of two, whatever is asked for.
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)],
        "means",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    save(model, str(tmp_path / "means.onnx"))
    (tmp_path / "means.onnx.json").write_text(json.dumps({"mean": [0, 0, 0], "std": [1, 1, 1]}))
    encoder = load_foreign(tmp_path / "means.onnx", device="cpu")
    assert (encoder.image_size, encoder.width) == (32, 3)
    pictures = [np.full((40, 40), value, np.uint8) for value in (0, 51, 255)]
    assert encoder.encode_images(pictures)[:, 0].tolist() == pytest.approx([0, 0.2, 1.0])


def test_onnx_without_its_runtime_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "x.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"umif\[onnx\]"):
        load_foreign(tmp_path / "x.onnx")


def test_specs_are_told_from_folders(tmp_path: Path) -> None:
    assert is_foreign("timm:x")
    assert is_foreign("hf:x")
    assert is_foreign("a/b.onnx")
    assert not is_foreign(tmp_path)
    (tmp_path / "run.pt").mkdir()
    assert not is_foreign(tmp_path / "run.pt")


def test_features_that_are_no_numbers_are_refused_and_not_kept(corpus: Corpus, tmp_path: Path) -> None:
    _, model = saved(VIT, tmp_path)
    state = model.state_dict()
    state["norm.weight"][:] = float("nan")
    file = tmp_path / "broken.safetensors"
    full = timm.create_model(VIT, pretrained=False).state_dict() | state
    save_file({key: tensor.contiguous() for key, tensor in full.items()}, file)
    encoder = load_foreign(f"timm:{VIT}@{file}", cache=tmp_path / "features", device="cpu")
    with pytest.raises(NonFiniteError, match="NaN"):
        encoder.encode_corpus(corpus, [0, 1])
    assert not (tmp_path / "features").exists()
