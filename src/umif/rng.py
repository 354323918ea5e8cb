"""Every random draw of a run is a pure function of (seed, purpose, step, slot).

No generator's state is ever saved, shared or global: whoever needs randomness asks for a fresh generator by key.
So neither resuming nor the number of workers or processes changes what a step sees.
"""

from __future__ import annotations

import hashlib
import threading
from functools import lru_cache

import numpy as np

_WORD = 1 << 64


@lru_cache(maxsize=256)
def purpose_id(purpose: str) -> int:
    """Return a stable 64-bit number for the name of a draw (`"augment"`, `"groups"`, …)."""
    return int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little")


def keyed_rng(seed: int, purpose: str, step: int = 0, slot: int = 0) -> np.random.Generator:
    """Return the generator of one draw: Philox with key (seed, purpose) and counter (·, ·, slot, step).

    The two low counter words are left for the draws themselves, so streams of different (step, slot) never meet.

    Example:
        >>> keyed_rng(0, "groups", step=3, slot=1).random() == keyed_rng(0, "groups", step=3, slot=1).random()
        True
    """
    key = np.array([seed % _WORD, purpose_id(purpose)], dtype=np.uint64)
    counter = np.array([0, 0, slot % _WORD, step % _WORD], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class _Own(threading.local):
    """One generator per thread, which `brief_rng` turns to each draw in turn."""

    def __init__(self) -> None:
        self.bits = np.random.Philox(key=np.zeros(2, dtype=np.uint64))
        self.rng = np.random.Generator(self.bits)


_own = _Own()


def brief_rng(seed: int, purpose: str, step: int = 0, slot: int = 0) -> np.random.Generator:
    """Return the generator of one draw as `keyed_rng` does, for use before this thread asks for the next one.

    It is one and the same object each time, so keep none of them. Making a generator asks the operating system for
    entropy that nobody uses; turning one to another key takes a quarter of the time.

    Example:
        >>> brief_rng(0, "groups", step=3, slot=1).random() == keyed_rng(0, "groups", step=3, slot=1).random()
        True
    """
    _own.bits.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.array([0, 0, slot % _WORD, step % _WORD], dtype=np.uint64),
            "key": np.array([seed % _WORD, purpose_id(purpose)], dtype=np.uint64),
        },
        "buffer": np.zeros(4, dtype=np.uint64),
        "buffer_pos": 4,  # used up: the first number asked for makes the next four
        "has_uint32": 0,
        "uinteger": 0,
    }
    return _own.rng
