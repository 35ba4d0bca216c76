"""
The bugs that can be planted in a module, and the sample of them that a seed draws.

What changes nothing that can be seen is no bug: annotations, texts for people, assertions
(they are tests themselves), and what ``equivalents.toml`` excuses by a reviewed sentence.
"""

from __future__ import annotations

import ast
import difflib
import random
import tomllib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

from tests.mutants.operators import operators

PACKAGES = ("engine", "domain")

EXCUSES = "tests/mutants/equivalents.toml"

MONEY = (
    "engine.risk*",
    "engine.trade*",
    "engine.postings",
    "engine.pnl",
    "engine.sizing",
    "engine.position",
    "engine.funding_due",
    "engine.paper",
    "engine.exits",
    "domain.risk*",
    "domain.ledger",
    "domain.money",
)
"""Risk, trade and ledger: no bug may live here. They are sampled twice as densely."""

Span = tuple[tuple[int, int], tuple[int, int]]


class Mutant(msgspec.Struct, frozen=True):
    """One bug: the n-th place of an operator in a module."""

    module: str  # "engine.risk"
    operator: str
    occurrence: int
    line: int

    @property
    def path(self) -> str:
        """The file, from the tree's root."""
        return f"arb_ray/{self.module.replace('.', '/')}.py"

    def code(self, root: Path) -> str:
        """Return the whole module with the bug in it."""
        source = (root / self.path).read_text(encoding="utf-8")
        planted = mutate_code(source, operators()[self.operator], self.occurrence)
        assert planted is not None, f"{self} is not there"
        return str(planted)


class Excuse(msgspec.Struct, frozen=True):
    """A reviewed mutant that changes nothing; its texts are lines without indentation."""

    module: str
    within: str  # the enclosing function, by its qualified name
    before: str
    after: str
    why: str


def is_money(module: str) -> bool:
    """Tell whether a survivor in ``module`` fails the run."""
    return any(fnmatchcase(module, pattern) for pattern in MONEY)


def modules(root: Path) -> list[str]:
    """Return what can be mutated, by name."""
    return sorted(
        f"{package}.{path.stem}"
        for package in PACKAGES
        for path in (root / "arb_ray" / package).glob("*.py")
        if path.stem != "__init__"
    )


def mutants_of(root: Path, module: str) -> list[Mutant]:
    """Return every bug that can be planted in a module, in the order of its lines."""
    source = (root / f"arb_ray/{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    nodes = list(ast_nodes(get_ast(source)))
    silent = list(_silent_spans(ast.parse(source)))
    found = []
    for name, operator in operators().items():
        places = (place for node in nodes for place in operator.mutation_positions(node))
        for occurrence, (start, end) in enumerate(places):
            if not any(first <= start and end <= last for first, last in silent):
                found.append(Mutant(module, name, occurrence, start[0]))
    return sorted(found, key=lambda mutant: (mutant.line, mutant.operator, mutant.occurrence))


def _silent_spans(tree: ast.Module) -> Iterator[Span]:
    """Yield where a change cannot be seen, or is seen in words only."""
    for node in ast.walk(tree):
        match node:
            case ast.Assert():
                yield _span(node)
            case ast.AnnAssign():
                yield _span(node.annotation)
            case ast.JoinedStr():
                yield _span(node)
            case ast.Raise(exc=ast.Call(args=args)):
                yield from map(_span, args)
            case ast.FunctionDef():
                yield from _spans_of_signature(node)


def _spans_of_signature(function: ast.FunctionDef) -> Iterator[Span]:
    """Yield annotations and the bare star; a default is code."""
    taken = function.args
    defaults = [one for one in (*taken.defaults, *taken.kw_defaults) if one is not None]
    first = function.lineno, function.col_offset
    body = function.body[0].lineno, function.body[0].col_offset
    for default in sorted(map(_span, defaults)):
        yield first, default[0]
        first = default[1]
    yield first, body


def _span(node: Any) -> Span:
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def draw(root: Path, chosen: Iterable[str], count: int, seed: int) -> list[Mutant]:
    """
    Return the sample of a seed, stratified: two of each money module, one of each other, again.

    A module's own order depends on nothing but its source and the seed.
    """
    decks: dict[str, list[Mutant]] = {}
    for module in chosen:
        deck = mutants_of(root, module)
        random.Random(f"{seed}/{module}").shuffle(deck)
        decks[module] = deck
    order = sorted(decks)
    random.Random(seed).shuffle(order)
    order.sort(key=is_money, reverse=True)
    drawn: list[Mutant] = []
    while len(drawn) < count and any(decks.values()):
        for module in order:
            share = 2 if is_money(module) else 1
            drawn += decks[module][:share]
            del decks[module][:share]
    return drawn[:count]


def diff(root: Path, mutant: Mutant) -> str:
    """Return what was planted, as a diff of its lines."""
    before = (root / mutant.path).read_text(encoding="utf-8").splitlines()
    after = mutant.code(root).splitlines()
    lines = difflib.unified_diff(before, after, mutant.path, mutant.path, lineterm="", n=2)
    return "\n".join(lines)


@cache
def excuses(root: Path) -> tuple[Excuse, ...]:
    """Read the reviewed list of a tree."""
    text = (root / EXCUSES).read_text(encoding="utf-8")
    return tuple(msgspec.convert(tomllib.loads(text).get("mutant", []), list[Excuse]))


def excuse_for(root: Path, mutant: Mutant) -> Excuse | None:
    """
    Return why nobody needs to notice a mutant, if that was reviewed.

    Keyed by the enclosing name and the text of the line, so that it moves with its code and
    falls away when the line changes.
    """
    listed = [excuse for excuse in excuses(root) if excuse.module == mutant.module]
    if not listed:
        return None
    source = (root / mutant.path).read_text(encoding="utf-8")
    within = _enclosing(ast.parse(source), mutant.line)
    listed = [excuse for excuse in listed if excuse.within == within]
    if not listed:
        return None
    before, after = _changed(source, mutant.code(root))
    return next((one for one in listed if (one.before, one.after) == (before, after)), None)


def stale_excuses(root: Path, chosen: Iterable[str]) -> list[Excuse]:
    """Return the excuses of some modules that excuse nothing: their code has changed."""
    stale = {excuse for excuse in excuses(root) if excuse.module in chosen}
    for module in sorted({excuse.module for excuse in stale}):
        used = {excuse_for(root, mutant) for mutant in mutants_of(root, module)}
        stale -= used - {None}
    return sorted(stale, key=lambda excuse: (excuse.module, excuse.within, excuse.before))


def _changed(source: str, planted: str) -> tuple[str, str]:
    lines = list(difflib.unified_diff(source.splitlines(), planted.splitlines(), n=0))[2:]
    before = " ".join(line[1:].strip() for line in lines if line.startswith("-"))
    after = " ".join(line[1:].strip() for line in lines if line.startswith("+"))
    return before, after


def _enclosing(tree: ast.AST, line: int, name: str = "") -> str:
    for node in ast.iter_child_nodes(tree):
        is_scope = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if is_scope and node.lineno <= line <= (node.end_lineno or node.lineno):
            return _enclosing(node, line, f"{name}.{node.name}".lstrip("."))
    return name
