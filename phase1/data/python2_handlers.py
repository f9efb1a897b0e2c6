"""Which of the errors that matter here a handler catches, read from the syntax tree: `except`, and `suppress`.

They are the errors in which a use of what only Python 2 has ends under Python 3.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from phase1.data.python2_version import last_name

LOOKUPS = frozenset(("NameError", "AttributeError", "ImportError", "ModuleNotFoundError"))
ALL = LOOKUPS | {"TypeError"}
# By a handler of that name; a name that is not here catches none of them.
_CAUGHT = {
    "NameError": frozenset(("NameError",)),
    "AttributeError": frozenset(("AttributeError",)),
    "ImportError": frozenset(("ImportError", "ModuleNotFoundError")),
    "ModuleNotFoundError": frozenset(("ModuleNotFoundError",)),
    "TypeError": frozenset(("TypeError",)),
    "Exception": ALL,
    "BaseException": ALL,
}


@dataclass(frozen=True)
class Guard:
    """What a handler around the code catches.

    `idle`: it is one for everything that only leaves (`except: break`). Around the call of what is missing it hides the
    crash, and the program still cannot do its work.
    """

    errors: frozenset[str]
    idle: bool = False


def caught_by(kind: ast.expr) -> frozenset[str]:
    """The errors that a handler of this exception class catches."""
    return _CAUGHT.get(last_name(kind), frozenset())


def guard_of(handler: ast.ExceptHandler) -> Guard | None:
    """The guard that `handler` is; None where it catches none of the errors."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    errors = frozenset(error for kind in kinds for error in (caught_by(kind) if kind else ALL))
    if not errors:
        return None
    names = {last_name(kind) for kind in kinds if kind}
    return Guard(errors, idle=all(map(_leaves, handler.body)) and not LOOKUPS & names)


def _leaves(node: ast.stmt) -> bool:
    """Whether a statement of a handler does no work: it leaves, ends the program, or prints."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return last_name(node.value.func) in ("exit", "quit", "_exit", "print")
    return isinstance(node, ast.Pass | ast.Break | ast.Continue | ast.Return | ast.Raise)
