"""The project's sources as syntax trees; nothing of it is imported."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["REPOSITORY", "ROOMS", "Import", "Module", "modules", "repository_files"]

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("nightglass", "flows", "tasks", "deployments")


@dataclass(frozen=True)
class Import:
    """One import: the whole dotted name, and its line."""

    name: str
    line: int

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Module:
    """One source file of a room."""

    path: Path
    name: str
    tree: ast.Module
    lines: int

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]

    def place(self, line: int = 0) -> str:
        return f"{self.path.relative_to(REPOSITORY)}:{line}"

    def imports(self) -> Iterator[Import]:
        """Every import, also those inside functions, less those for the type checker alone."""
        for node in _run_nodes(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, node.lineno)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.place(node.lineno)}: relative import"
                for alias in node.names:
                    yield Import(f"{node.module}.{alias.name}", node.lineno)


def _run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    waiting = [node]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            if isinstance(child, ast.If) and ast.unparse(child.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
                continue
            yield child
            waiting.append(child)


@cache
def modules() -> tuple[Module, ...]:
    """Return every module of the rooms."""
    found = []
    for room in ROOMS:
        for path in sorted((REPOSITORY / room).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
            found.append(Module(path, name, ast.parse(text, str(path)), text.count("\n")))
    return tuple(found)


@cache
def repository_files() -> tuple[Path, ...]:
    """Return every file that git keeps, or all that are there where this is no git checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        names = listed.stdout.decode().split("\0")
        return tuple(path for name in names if name and (path := REPOSITORY / name).is_file())
    hidden = {".git", ".venv", "venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
    return tuple(path for path in REPOSITORY.rglob("*") if path.is_file() and not hidden & set(path.parts))
