"""Fixtures that all tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Started in the background of a shell, a suite inherits that Ctrl-C is ignored, and hands it on to the programs that
# tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real radiographs, where this checkout has one beside it; else the test skips."""
    folder = Path(os.environ.get("UMIF_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "README.md").exists():
        pytest.skip("no real radiographs here: set UMIF_REAL_DATA to their folder to run this test")
    return folder
