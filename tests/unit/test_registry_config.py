from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from umif.config import Config, Registry, apply_overrides, load_recipe, parse_config, read_yaml
from umif.errors import ConfigError, RegistryError

if TYPE_CHECKING:
    from pathlib import Path


class Inner(Config):
    rate: float = 0.5
    steps: int = 10


class Outer(Config):
    name: str = "x"
    train: Inner = Inner()
    maybe: Inner | None = None


class TestRegistry:
    def test_gives_back_what_was_registered(self) -> None:
        registry = Registry()
        registry.register("task", "mine")(Inner)
        assert registry.get("task", "mine") is Inner
        assert "mine" in registry.names("task")

    def test_a_taken_name_is_an_error_and_nothing_is_overwritten(self) -> None:
        registry = Registry()
        registry.register("task", "mine")(Inner)
        with pytest.raises(RegistryError, match=r"already registered by .*Inner"):
            registry.register("task", "mine")(Outer)
        assert registry.get("task", "mine") is Inner

    def test_registering_the_same_thing_again_is_no_error(self) -> None:
        """A module that is imported twice under one name, as a plug-in and by hand, must not fail."""
        registry = Registry()
        registry.register("task", "mine")(Inner)
        assert registry.register("task", "mine")(Inner) is Inner

    def test_an_unknown_name_offers_the_nearest(self) -> None:
        registry = Registry()
        registry.register("task", "my_hospital")(Inner)
        with pytest.raises(RegistryError, match="Did you mean 'my_hospital'"):
            registry.get("task", "my_hopsital")

    def test_an_unknown_kind_offers_the_nearest(self) -> None:
        with pytest.raises(RegistryError, match="Did you mean 'reader'"):
            Registry().register("raeder", "x")


class TestParseConfig:
    def test_an_unknown_key_names_the_nearest_known_one(self) -> None:
        with pytest.raises(ConfigError, match=r"r\.yaml: unknown key 'nam'\n.*Did you mean 'name'"):
            parse_config(Outer, {"nam": "y"}, where="r.yaml")

    @pytest.mark.parametrize("group", ["train", "maybe"])
    def test_an_unknown_nested_key_names_the_nearest_of_its_own_group(self, group: str) -> None:
        with pytest.raises(ConfigError, match=rf"unknown key '{group}\.step'\n.*Did you mean 'steps'"):
            parse_config(Outer, {group: {"step": 3}}, where="r.yaml")

    def test_a_wrong_value_names_key_and_value(self) -> None:
        with pytest.raises(ConfigError, match=r"train\.steps = 'many'"):
            parse_config(Outer, {"train": {"steps": "many"}}, where="r.yaml")

    def test_configs_cannot_be_changed(self) -> None:
        with pytest.raises(Exception, match="frozen"):
            Outer().name = "y"  # type: ignore[misc]


class TestReadYaml:
    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"none\.yaml: there is no such file"):
            read_yaml(tmp_path / "none.yaml")

    def test_broken_yaml_names_the_line(self, tmp_path: Path) -> None:
        file = tmp_path / "r.yaml"
        file.write_text("a: 1\nb: [1, 2\nc: 3\n")
        with pytest.raises(ConfigError, match=r"r\.yaml:3: is not valid YAML"):
            read_yaml(file)

    def test_bytes_that_are_no_text_are_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "r.yaml"
        file.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match="cannot be read as text"):
            read_yaml(file)

    def test_a_list_is_refused_and_an_empty_file_is_empty(self, tmp_path: Path) -> None:
        file = tmp_path / "r.yaml"
        file.write_text("- 1\n")
        with pytest.raises(ConfigError, match="key: value"):
            read_yaml(file)
        file.write_text("")
        assert read_yaml(file) == {}


class TestOverrides:
    def test_values_are_read_as_yaml(self) -> None:
        data = apply_overrides({}, ["a.b=1e-3", "a.c=[x, y]", "d=null", "e=text"])
        assert data == {"a": {"b": "1e-3", "c": ["x", "y"]}, "d": None, "e": "text"}

    def test_the_original_is_left_alone(self) -> None:
        data = {"train": {"steps": 1, "kinds": ["a"]}}
        assert apply_overrides(data, ["train.steps=2"])["train"]["steps"] == 2
        assert data == {"train": {"steps": 1, "kinds": ["a"]}}

    @pytest.mark.parametrize("text", ["steps", "=3", " =3"])
    def test_what_is_no_override_says_how_to_write_one(self, text: str) -> None:
        with pytest.raises(ConfigError, match="key=value"):
            apply_overrides({}, [text])

    def test_going_through_a_value_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="'name' holds a value"):
            apply_overrides({"name": "x"}, ["name.first=y"])

    def test_broken_yaml_in_a_value_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="not valid YAML"):
            apply_overrides({}, ["a=[1"])

    def test_a_recipe_takes_overrides_and_scientific_notation_becomes_a_number(self, tmp_path: Path) -> None:
        file = tmp_path / "r.yaml"
        file.write_text("train:\n  rate: 1\n")
        recipe = load_recipe(Outer, file, ["train.rate=1e-3", "name=mine"])
        assert recipe == Outer(name="mine", train=Inner(rate=0.001))
