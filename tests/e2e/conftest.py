"""One small demo for all end-to-end tests, made once even when several test processes want it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


SMALL: dict[str, Any] = {
    "images": 160,
    "workers": 1,
    "bootstrap": 60,
    "overrides": {
        "model": {"backbone": "vit_tiny_patch16_224", "image_size": 64, "depth": 2},
        "data": {"pairs_per_kind": 4},
        "tokenizer": {"vocab_size": 500},
        "train": {"steps": 12, "log_every": 4, "threads": 1, "tensorboard": False},
    },
}
SCRIPT = """
import json, sys
from pathlib import Path
from umif.demo import run_demo
done = run_demo(Path("runs/demo"), **json.loads(sys.argv[1]))
"""


def make_demo(home: Path) -> None:
    """Make, or finish, `runs/demo` in `home`, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(SMALL)], cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def small_demo() -> Callable[[Path], None]:
    """The function that makes a small demo in a folder."""
    return make_demo


@pytest.fixture(scope="session")
def demo_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds `runs/demo`, as `umif demo` makes it, only smaller."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo_home"
    home.mkdir(exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "runs" / "demo" / "report" / "report.html").exists():
            make_demo(home)
    return home


@pytest.fixture(scope="session")
def demo_run(demo_home: Path) -> Path:
    """The demo's run folder."""
    return demo_home / "runs" / "demo"
