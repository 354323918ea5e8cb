"""What README and docs show works: Python blocks run, command lines parse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from umif.cli import app
from umif.cli.arguments import spread_lists

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
# Blocks of these pages need nothing but the demo; those of other pages read datasets that are not here.
RUN_WHOLE = ("README.md", "CONTRIBUTING.md", "report.md")
# These need nothing at all, and their command lines are run as well.
RUN_ALONE = ("your_data.md",)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def joined(block: str) -> list[str]:
    """Lines, those that end with a backslash in one with the next."""
    return re.sub(r"\\\n\s*", "", block).splitlines()


def command_lines(page: Path) -> list[str]:
    """Lines of code blocks that call umif, without prompt and comment."""
    text = page.read_text(encoding="utf-8")
    shown = [
        *re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL),
        *re.findall(r"^ {4}(.*)$", text, re.M),
    ]
    lines = [line.removeprefix("$ ").strip() for block in shown for line in joined(block)]
    return [line for line in lines if line.startswith("umif ") and "[" not in line and "…" not in line]


def python_pages() -> list[Path]:
    return [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", python_pages(), ids=lambda page: page.name)
def test_python_blocks_compile_and_their_imports_exist(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")
        imports = [
            line
            for line in block.splitlines()
            if re.match(r"(from umif[\w.]* import \w[\w, ]*|import umif[\w.]*)$", line)
        ]
        exec("\n".join(imports), {})  # the project's own docs


@pytest.mark.parametrize("name", RUN_WHOLE)
def test_python_blocks_run_beside_a_demo(name: str, demo_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from umif.config import REGISTRY

    monkeypatch.chdir(demo_home)
    for kind in ("reader", "objective", "task"):
        REGISTRY.names(kind)  # found before the copy below, which forgets what the blocks register
    monkeypatch.setattr(REGISTRY, "_entries", {kind: dict(entries) for kind, entries in REGISTRY._entries.items()})
    (page,) = (page for page in PAGES if page.name == name)
    names: dict[str, object] = {"__name__": f"blocks_of_{page.stem}"}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)  # the project's own docs


@pytest.mark.parametrize("name", RUN_ALONE)
def test_blocks_and_command_lines_run_one_after_the_other(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (page,) = (page for page in PAGES if page.name == name)
    names: dict[str, object] = {"__name__": f"blocks_of_{page.stem}"}
    text = page.read_text(encoding="utf-8")
    for language, block in re.findall(r"^```(python|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(compile(block, str(page), "exec"), names)  # the project's own docs
            continue
        for line in joined(block):
            _, *arguments = shlex.split(line.removeprefix("$ "))
            result = CliRunner().invoke(app, spread_lists(arguments))
            assert result.exit_code == 0, f"{line}: {result.output} {result.exception}"


@pytest.mark.parametrize("page", [page for page in PAGES if command_lines(page)], ids=lambda page: page.name)
def test_command_lines_are_such_that_umif_takes_them(page: Path) -> None:
    group = typer.main.get_command(app)
    for line in command_lines(page):
        _, *arguments = shlex.split(line, comments=True)
        context = group.make_context("umif", spread_lists(arguments))
        verb, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])  # type: ignore[attr-defined]
        command.make_context(verb, rest, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    missing = [
        page.name for page in (ROOT / "docs").glob("*.md") if page.name != "index.md" and f"({page.name})" not in index
    ]
    assert missing == []
