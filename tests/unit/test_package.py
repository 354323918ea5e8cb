from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import umif


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HEAVY = "sorted({'torch', 'transformers', 'cv2', 'lance', 'sklearn', 'matplotlib'} & set(sys.modules))"


def test_importing_umif_brings_no_heavy_library_along() -> None:
    assert python(f"import sys, umif; print({HEAVY})") == "[]"


def test_help_brings_no_heavy_library_along() -> None:
    printed = python(f"import sys; from umif.cli import main; main(['--help']); print({HEAVY})")
    assert printed.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", umif.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(umif, name) is not None


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        umif.no_such_thing  # noqa: B018 - reading it is the test


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(umif.__file__).parent / "py.typed").is_file()


def test_data_files_are_all_packaged() -> None:
    """What is no Python must match a pattern of package-data, or an installed copy lacks it."""
    import tomllib

    root = Path(umif.__file__).parent
    patterns = tomllib.loads((root.parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "umif"
    ]
    packaged = {file for pattern in patterns for file in root.glob(pattern)}
    others = {f for f in root.rglob("*") if f.is_file() and f.suffix not in {".py", ".pyc"}}
    assert others <= packaged
