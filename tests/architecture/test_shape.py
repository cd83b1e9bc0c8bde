"""The shape of the sources: short functions, short files, honest `__all__`."""

from __future__ import annotations

import ast

from tests.architecture.sources import REPOSITORY, ROOMS, Module, modules, repository_files

LONGEST_FUNCTION = 60
LONGEST_FILE = 400
SCREENS = "deployments.cli"
"""The only place that prints."""


def exported(module: Module) -> list[str] | None:
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            names = ast.literal_eval(node.value)
            assert isinstance(names, list), f"{module.place(node.lineno)}: __all__ is a list"
            return names
    return None


def defined(module: Module) -> set[str]:
    """Public classes and functions of a module; for a package also what it gathers from its own modules."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    names = {node.name for node in module.tree.body if isinstance(node, kinds) and not registered(node)}
    if module.path.name == "__init__.py":
        beside = {path.stem for path in module.path.parent.iterdir()}
        for node in module.tree.body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(module.name):
                names |= {alias.asname or alias.name for alias in node.names} - beside
    return {name for name in names if not name.startswith("_")}


def registered(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is a command, which the command line finds by its decorator."""
    return any(".command(" in ast.unparse(decorator) for decorator in node.decorator_list)


def bound(module: Module) -> set[str]:
    names = defined(module)
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def rank(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, as import sorters order them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_functions_are_short() -> None:
    long = [
        f"{module.place(node.lineno)} {node.name}: {length} lines"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) >= LONGEST_FUNCTION
    ]
    assert long == []


def test_files_are_short() -> None:
    """Those of tests and benchmarks, too."""
    sources = {
        path: path.read_text(encoding="utf-8").count("\n") for path in repository_files() if path.suffix == ".py"
    }
    assert {path.relative_to(REPOSITORY).parts[0] for path in sources} >= {*ROOMS, "benchmarks", "tests"}
    long = [f"{path.relative_to(REPOSITORY)}: {lines} lines" for path, lines in sources.items() if lines > LONGEST_FILE]
    assert long == []


def test_what_a_module_offers_is_listed_completely_and_in_order() -> None:
    wrong = []
    for module in modules():
        names, public = exported(module), defined(module)
        if names is None:
            wrong += [f"{module.place()} has no __all__"] if public else []
            continue
        wrong += [f"{module.place()} __all__ lacks {name}" for name in sorted(public - set(names))]
        wrong += [
            f"{module.place()} __all__ names {name}, which is not there" for name in sorted(set(names) - bound(module))
        ]
        wrong += [f"{module.place()} __all__ is not sorted"] if names != sorted(names, key=rank) else []
    assert wrong == []


def test_every_module_says_what_it_is_for() -> None:
    assert [module.place() for module in modules() if not ast.get_docstring(module.tree)] == []


def test_only_the_command_line_prints() -> None:
    wrong = [
        module.place(node.lineno)
        for module in modules()
        if not module.name.startswith(SCREENS)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"print", "input"}
    ]
    assert wrong == []
