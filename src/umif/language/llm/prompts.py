"""Instructions for the language model: data, hashed, filled for one item."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Literal, cast

from pydantic import Field, model_validator

from umif.config import Config, parse_config
from umif.language.vocabulary import read_data

DATA = Path(__file__).with_name("prompts.yaml")
Job = Literal["translate", "polish", "reports"]
_SLOTS: dict[str, set[str]] = {"translate": {"text"}, "polish": {"text"}, "reports": {"findings", "order"}}
_SLOT = re.compile(r"\{([a-z]+)\}")


class Prompt(Config):
    """What a model is told for one kind of job."""

    system: str = Field(min_length=1)
    user: str = Field(min_length=1)

    @property
    def sha256(self) -> str:
        """Hash of every word of it, hexadecimal."""
        return hashlib.sha256(json.dumps([self.system, self.user]).encode()).hexdigest()

    def messages(self, **values: str) -> list[dict[str, str]]:
        """Return the messages of a chat for one item; braces inside `values` stay as they are."""
        user = _SLOT.sub(lambda slot: values[slot[1]], self.user)
        return [{"role": "system", "content": self.system.strip()}, {"role": "user", "content": user.strip()}]


class Prompts(Config):
    """The instructions of all three jobs; see `prompts.yaml`."""

    translate: Prompt
    polish: Prompt
    reports: Prompt

    @model_validator(mode="after")
    def _slots(self) -> Prompts:
        for name, slots in _SLOTS.items():
            found = set(_SLOT.findall(self.of(cast("Job", name)).user))
            if not found <= slots or not found & {"text", "findings"}:
                raise ValueError(f"{name}.user has the slots {sorted(found)}; known are {sorted(slots)}")
        return self

    def of(self, job: Job) -> Prompt:
        """Return one job's."""
        return cast("Prompt", getattr(self, job))


def load_prompts(path: str | Path) -> Prompts:
    """Read and check a file of instructions.

    Raises:
        ConfigError: the file cannot be read, or a prompt lacks its slot or has an unknown one.
    """
    file = Path(path)
    return parse_config(Prompts, read_data(file), where=file)


@cache
def own_prompts() -> Prompts:
    """Return UmiF's own instructions, read once per process."""
    return load_prompts(DATA)
