"""Recipes: what is written once is shared, what contradicts is refused, every field says where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import umif
from umif.config import Config, load_recipe, parse_config
from umif.errors import ConfigError
from umif.train.recipe import FREE_KEYS, OptimConfig, Recipe, TokenizerConfig, TrainConfig, differing_key

RECIPES = [
    Path(umif.__file__).with_name("demo.yaml"),
    *sorted((Path(__file__).resolve().parents[3] / "recipes").glob("*.yaml")),
]


def recipe(**values: Any) -> Recipe:
    return parse_config(Recipe, {"corpus": "corpus", "out": "run", **values}, where="test")


def test_the_defaults_are_the_papers() -> None:
    paper = recipe()
    assert paper.optim.lr == 4e-5
    assert paper.optim.weight_decay == 5e-2
    assert paper.train.epochs == 50
    assert paper.model.backbone == "vit_base_patch16_224"
    assert paper.objectives == {"align": {"temperature": 0.1}, "con": {}}
    assert recipe(data={"kinds_per_step": 4, "pairs_per_kind": 512}).batch_size == 2048


@pytest.mark.parametrize("kind", [Recipe, TokenizerConfig, OptimConfig, TrainConfig])
def test_every_field_says_what_it_is(kind: type[Config]) -> None:
    for name, field in kind.model_fields.items():
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, Config)
        assert field.description or nested, f"{kind.__name__}.{name}"


def test_data_takes_what_it_shares_with_the_model() -> None:
    made = recipe(model={"backbone": "vit_base_patch32_224", "image_size": 64, "max_text_tokens": 40})
    assert (made.data.image_size, made.data.patch_size, made.data.max_text_tokens) == (64, 32, 40)
    # A resolved recipe, as a run folder keeps it, says the same again.
    assert parse_config(Recipe, made.model_dump(mode="json"), where="test") == made


@pytest.mark.parametrize(("ours", "value"), [("image_size", 96), ("max_text_tokens", 9)])
def test_a_contradiction_names_both_keys(ours: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{ours} = \d+ but data\.{ours} = {value}"):
        recipe(data={ours: value})


def test_an_unknown_key_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="save_every"):
        recipe(train={"save_evry": 3})


def test_one_checkpoint_is_too_few() -> None:
    with pytest.raises(ConfigError, match=r"train\.keep"):
        recipe(train={"keep": 1})


def test_a_key_that_changes_numbers_is_found_and_a_free_one_is_not() -> None:
    base = recipe().model_dump(mode="json")
    assert differing_key(base, base) is None
    other = recipe(optim={"lr": 1e-3}, out="elsewhere").model_dump(mode="json")
    assert differing_key(base, other) == "optim.lr"
    assert differing_key(base, recipe(seed=1).model_dump(mode="json")) == "seed"
    assert (
        differing_key(base, recipe(objectives={"align": {}}).model_dump(mode="json")) == "objectives.align.temperature"
    )
    free = recipe(out="b", corpus="c", name="d", train={"workers": 3, "log_every": 7, "device": "cpu", "keep": 5})
    assert differing_key(base, free.model_dump(mode="json")) is None


def test_every_free_key_exists() -> None:
    dumped = recipe().model_dump(mode="json")
    for key in FREE_KEYS:
        here: Any = dumped
        for part in key.split("."):
            assert part in here, key
            here = here[part]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_recipes_that_come_along_are_valid_and_say_what_they_need(path: Path) -> None:
    made = load_recipe(Recipe, path)
    assert made.name
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#")
    for word in ("needs", "takes", "reach"):
        assert word in text.lower(), word
    assert yaml.safe_load(text)["out"]


def test_an_override_of_one_objective_keeps_the_others(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("corpus: c\nout: o\n")
    made = load_recipe(Recipe, file, ["objectives.align.temperature=0.2"])
    assert made.objectives == {"align": {"temperature": 0.2}, "con": {}}
    # What a file says stands: it names the objectives that it wants.
    file.write_text("corpus: c\nout: o\nobjectives: {align: {}}\n")
    assert load_recipe(Recipe, file, ["objectives.align.temperature=0.2"]).objectives == {"align": {"temperature": 0.2}}
    assert Recipe.model_fields["objectives"].default["align"] == {"temperature": 0.1}
