"""Which module of a package imports which, and the cycles among them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


def module_name(package: str, root: Path, file: Path) -> str:
    """Dotted name of a file of the package whose folder is root; that of a folder for its `__init__.py`."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join((package, *(parts[:-1] if parts[-1] == "__init__" else parts)))


def imported(file: Path) -> Iterator[tuple[str, str | None]]:
    """Every import of a file, inside functions and for types only too, as (module, name in it or None)."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((module, alias.name) for alias in node.names)


def import_graph(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """The modules of `files` (by dotted name) that each of them imports.

    `from a import b` is an import of `a.b` where that is a module, else of `a`. Python runs the `__init__.py` of the
    folders above as well; these imports are not counted, otherwise every module would import what imports it.
    """
    graph = {}
    for name, file in files.items():
        found = {inner if (inner := f"{module}.{thing}") in files else module for module, thing in imported(file)}
        graph[name] = {module for module in found if module in files} - {name}
    return graph


def grouped(graph: Mapping[str, Iterable[str]], group: Mapping[str, str]) -> dict[str, set[str]]:
    """The graph of groups of modules: one imports another where any of its modules does."""
    result: dict[str, set[str]] = {name: set() for name in group.values()}
    for name, others in graph.items():
        result[group[name]] |= {group[other] for other in others} - {group[name]}
    return result


def cycles(graph: Mapping[str, Iterable[str]]) -> set[frozenset[str]]:
    """The largest sets of two or more nodes of which each leads to all others."""
    reached = {node: _reached(graph, node) for node in graph}
    together = {frozenset(other for other in reached[node] if node in reached[other]) for node in graph}
    return {nodes for nodes in together if len(nodes) > 1}


def _reached(graph: Mapping[str, Iterable[str]], start: str) -> set[str]:
    seen, waiting = {start}, [start]
    while waiting:
        new = set(graph[waiting.pop()]) - seen
        seen |= new
        waiting += new
    return seen
