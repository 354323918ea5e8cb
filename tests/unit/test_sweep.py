"""A sweep: every setting under every seed, trained once, and one table of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from umif.cli import main
from umif.errors import ConfigError, RegistryError, RunError
from umif.report.published import published
from umif.report.sweep import markdown
from umif.sweep import Setting, SweepConfig, load_sweep, recipe_of, run_sweep
from umif.tasks.linear import LinearClassification

if TYPE_CHECKING:
    from collections.abc import Sequence

RECIPES = Path(__file__).parents[2] / "recipes"
SWEEPS = RECIPES / "sweeps"
SWEEP: dict[str, Any] = {
    "name": "small",
    "base": "demo",
    "set": {
        "model": {"backbone": "vit_tiny_patch16_224", "image_size": 64, "depth": 2},
        "data.pairs_per_kind": 4,
        "tokenizer.vocab_size": 500,
        "train": {"steps": 3, "log_every": 3, "threads": 1, "tensorboard": False},
    },
    "phantom": {"images": 160},
    "seeds": [0],
    "settings": [{"name": "class", "set": {"data.kinds": ["class"]}}, {"name": "all"}],
    "labels": [100],
    "bootstrap": 20,
    "published": "kinds",
}


def row(
    setting_value: float, encoder: str = "umif cls", baseline: bool = False, labels: float = 100.0
) -> dict[str, Any]:
    return {
        "task": "linear", "data": "phantom", "labels": labels, "metric": "AUC", "encoder": encoder,
        "baseline": baseline, "value": setting_value, "low": None, "high": None, "n_patients": 9, "split_sha256": "x",
    }  # fmt: skip


def write(folder: Path, **changes: Any) -> Path:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({**SWEEP, "out": str(folder / "out"), **changes}), encoding="utf-8")
    return file


def test_every_setting_is_trained_once_and_a_second_call_adds_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path)
    assert main(["sweep", str(file), "--workers", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {(one["setting"], one["seed"]) for one in answer["rows"]} == {("class", 0), ("all", 0)}
    text = (tmp_path / "out" / "sweep.md").read_text(encoding="utf-8")
    assert "| class |" in text
    assert "92.4 %" in text
    assert "Baselines: " in text
    with (tmp_path / "out" / "sweep.csv").open(encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == len(answer["rows"])
    recipe = yaml.safe_load((tmp_path / "out" / "class-seed0" / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["data"]["kinds"] == ["class"]

    taken: list[int] = []
    run = LinearClassification.run

    def counted(self: LinearClassification, encoder: Any, corpus: Any, options: Any) -> Any:
        taken.append(options.seed)
        return run(self, encoder, corpus, options)

    monkeypatch.setattr(LinearClassification, "run", counted)
    config = load_sweep(file, ["seeds=[0,1]"])
    said: list[str] = []
    run_sweep(config, workers=1, progress=said.append)
    assert taken == [1, 1]  # both settings, under the new seed alone
    assert [line.split(" →")[0] for line in said if "seed" in line] == [
        "1/4 class, seed 0", "2/4 all, seed 0", "3/4 class, seed 1", "4/4 all, seed 1",
    ]  # fmt: skip
    assert "Means over 2 seeds" in (tmp_path / "out" / "sweep.md").read_text(encoding="utf-8")

    with pytest.raises(RunError, match="began with base"):
        run_sweep(load_sweep(write(tmp_path, base=str(RECIPES / "real_small.yaml"))), workers=1)


def test_means_and_extremes_are_of_the_seeds_and_baselines_of_the_first_setting() -> None:
    measured = [
        ("a", 0, [row(0.5), row(0.4, "random cls", True)]),
        ("b", 0, [row(0.9), row(0.1, "random cls", True)]),
        ("a", 1, [row(0.7), row(0.6, "random cls", True)]),
    ]
    text = markdown("x", measured, ["b", "a"])
    lines = text.splitlines()
    assert "| a | 0.600 [0.500, 0.700] |" in lines
    assert "| b | 0.900 |" in lines
    assert lines.index("| b | 0.900 |") < lines.index("| a | 0.600 [0.500, 0.700] |")
    assert "Baselines: random cls 0.100." in lines


def test_the_published_figures_stand_beside_the_settings_they_belong_to() -> None:
    text = markdown("x", [("p=0.2", 0, [row(0.5)]), ("own", 0, [row(0.6)])], ["p=0.2", "own"], "separate")
    assert "| p=0.2 | 0.500 | 92.2 % |" in text
    assert "| own | 0.600 | – |" in text
    assert len(published()["separate"]["settings"]) == 9
    assert published()["kinds"]["settings"]["all"] == max(published()["kinds"]["settings"].values())


@pytest.mark.parametrize("file", sorted(path.name for path in SWEEPS.glob("table*.yaml")))
def test_every_sweep_that_we_ship_fits_its_recipe(file: str) -> None:
    config = load_sweep(SWEEPS / file)
    recipes = [recipe_of(config, setting, seed) for setting in config.settings for seed in config.seeds]
    assert len({recipe.out for recipe in recipes}) == len(recipes)
    if file.startswith("table6"):
        assert [recipe_of(config, one, 0).data.p_separate for one in config.settings] == [n / 10 for n in range(9)]
    else:
        assert recipe_of(config, config.settings[-1], 0).data.kinds == ("report", "caption", "class", "segment")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"settings": [{"name": "a"}, {"name": "a"}]}, "two settings are called 'a'"),
        ({"settings": [{"name": "a"}, {"name": "../b"}]}, "folder's name"),
        ({"settings": [{"name": "a"}, {"name": "b", "set": {"data.kindz": 1}}]}, "kinds"),
        ({"settings": [{"name": "a"}, {"name": "b", "set": {"seed": 1}}]}, "the sweep's to set"),
        ({"settings": [{"name": "a"}, {"name": "b", "set": {"seed.x": 1}}]}, "leads into a value"),
        ({"seeds": [1, 1]}, "named twice"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run_sweep(load_sweep(write(tmp_path, **changes)))
    assert not (tmp_path / "out").exists()


def test_an_unknown_task_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="linaer"):
        run_sweep(load_sweep(write(tmp_path, tasks=["linaer"])))
    assert not (tmp_path / "out").exists()


def test_settings_do_not_see_one_anothers_keys() -> None:
    settings: Sequence[Setting] = (Setting(name="a", set={"data.p_separate": 0.5}), Setting(name="b"))
    config = SweepConfig(name="x", out=Path("x"), base="demo", settings=tuple(settings))
    assert recipe_of(config, settings[0], 0).data.p_separate == 0.5
    assert recipe_of(config, settings[1], 0).data.p_separate == 0.2
