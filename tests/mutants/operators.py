"""
Which kinds of bugs are planted: cosmic-ray's own, and one that it lacks.

Of its replacements the plausible slips are taken: `+` for `-`, `<` for `<=`. `x >> y` for a
Decimal's `x + y` is a TypeError, and would be noticed by any test that reaches the line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.plugins import get_operator
from parso.python.tree import Keyword

_BINARY = (
    "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_FloorDiv Pow_Mul LShift_RShift"
    " RShift_LShift BitOr_BitAnd BitAnd_BitOr"
)
_COMPARISON = (
    "Eq_NotEq NotEq_Eq Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Is_IsNot IsNot_Is"
)
_OTHERS = (
    "ReplaceUnaryOperator_Delete_USub ReplaceUnaryOperator_Delete_Not AddNot"
    " ReplaceTrueWithFalse ReplaceFalseWithTrue ReplaceAndWithOr ReplaceOrWithAnd"
    " ReplaceBreakWithContinue ReplaceContinueWithBreak ExceptionReplacer NumberReplacer"
    " ZeroIterationForLoop"
)


class RemoveStatement(Operator):
    """Leave out a call for its effect, an assignment to a part of something, or a raise."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """Name the statement that would be missing."""
        if node.type == "simple_stmt" and _is_for_its_effect(node.children[0]):
            yield node.children[0].start_pos, node.children[0].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Put `pass` in its place."""
        assert index == 0
        lost = node.children[0]
        node.children[0] = Keyword("pass", lost.start_pos, lost.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Say it in code."""
        return (Example("x.clear()", "pass"), Example("x.y = 1", "pass"), Example("x += 1", "pass"))


def _is_for_its_effect(node: Any) -> bool:
    if node.type == "raise_stmt":
        return True
    if node.type in {"atom_expr", "power"}:
        return bool(node.children[-1].type == "trailer" and node.children[-1].children[0] == "(")
    if node.type != "expr_stmt" or node.children[1].type == "annassign":
        return False
    target, sign = node.children[0], node.children[1]
    # A name that is never set is a NameError; a part that keeps its old value is a bug.
    return bool(target.type != "name" or sign.get_code(include_prefix=False) != "=")


def operators() -> dict[str, Operator]:
    """Return every kind of bug by its name."""
    kinds = [f"ReplaceBinaryOperator_{kind}" for kind in _BINARY.split()]
    kinds += [f"ReplaceComparisonOperator_{kind}" for kind in _COMPARISON.split()]
    found = {kind: get_operator(f"core/{kind}")() for kind in kinds + _OTHERS.split()}
    named = {kind.removeprefix("Replace").replace("Operator_", "_"): found[kind] for kind in found}
    return named | {"RemoveStatement": RemoveStatement()}
