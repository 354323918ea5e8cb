"""How blocks run is no part of what a run computes: checkpoints do not hold it, and a run may change it."""

from __future__ import annotations

from umif.models import ModelConfig, build_model
from umif.train.optim import build_optimizer
from umif.train.recipe import FREE_KEYS, OptimConfig
from umif.train.state import TrainState


def test_a_checkpoint_says_what_the_network_is_and_not_how_it_ran() -> None:
    said = []
    for changes in ({}, {"recompute": True, "compile": "eager"}, {"depth": 2}):
        config = ModelConfig(
            **{"backbone": "vit_tiny_patch16_224", "image_size": 32, "vocab_size": 9, "depth": 1, **changes}
        )
        model = build_model(config)
        state = TrainState(model, build_optimizer(model, OptimConfig()), seed=0, corpus_fingerprint="f")
        said.append(state.to_json()["model"])
    assert said[0] == said[1] != said[2]
    assert {"model.recompute", "model.compile"} <= FREE_KEYS
