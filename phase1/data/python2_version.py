"""What a test of the Python version gives under this Python 3, read from the syntax tree: `sys.version_info[0] < 3`, …

Only what programs write to run under both versions is worked out; everything else is UNKNOWN. Nothing is executed.
"""

from __future__ import annotations

import ast
import builtins
import operator
import sys
from collections.abc import Callable, Mapping, Set
from typing import Any

from phase1.data import python2_names as py2

UNKNOWN = object()
_VERSIONS = ("version_info", "hexversion", "python_version", "python_version_tuple", "PY2", "PY3")
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


class VersionTests:
    """Works out tests.

    `bound`: what a name is bound to where the walk stands; `constants` and `attributes`, those that the program has
    defined so far, grow as the walk goes on.
    """

    def __init__(
        self, bound: Callable[[str], list[str]], constants: Mapping[str, object], attributes: Set[str]
    ) -> None:
        self.bound, self.constants, self.attributes = bound, constants, attributes

    def value(self, node: ast.expr) -> object:
        """What a test of the version (or a literal) gives under this Python 3; UNKNOWN for every other expression."""
        try:
            return self._value(node)
        except Exception:  # a comparison of things that do not compare: the program's own affair
            return UNKNOWN

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Tuple() | ast.List():
                parts = [self._value(each) for each in node.elts]
                return UNKNOWN if any(p is UNKNOWN for p in parts) else tuple(parts)
            case ast.Name(id="version_info") | ast.Attribute(attr="version_info"):
                return tuple(sys.version_info)
            case ast.Name(id="hexversion") | ast.Attribute(attr="hexversion"):
                return sys.hexversion
            case ast.Attribute(value=ast.Name(id="sys"), attr="version"):
                return sys.version
            case ast.Attribute(value=ast.Name(id="six"), attr="PY2" | "PY3" as flag):
                return flag == "PY3"
            case ast.Attribute(
                value=ast.Attribute(attr="version_info") | ast.Name(id="version_info"), attr="major" | "minor" as part
            ):
                return getattr(sys.version_info, part)
            case ast.Name(id=name) if name in self.constants:
                return self.constants[name]
            case ast.Name(id="str" | "bytes" as name) if not self.bound(name):
                return {"str": str, "bytes": bytes}[name]
            case ast.Subscript():
                return self._subscript(node)
            case ast.UnaryOp(op=ast.Not()):
                value = self._value(node.operand)
                return value if value is UNKNOWN else not value
            case ast.BinOp(op=ast.Div(), left=ast.Constant(value=int() as a), right=ast.Constant(value=int() as b)):
                return a / b
            case ast.BoolOp():
                return self._bool_op(node)
            case ast.Compare():
                return self._compare(node)
            case ast.Call():
                return self._call(node)
        return UNKNOWN

    def _subscript(self, node: ast.Subscript) -> Any:
        value = self._value(node.value)
        if value is UNKNOWN:
            return value
        if isinstance(node.slice, ast.Slice):
            ends = [
                None if end is None else self._value(end)
                for end in (node.slice.lower, node.slice.upper, node.slice.step)
            ]
            return UNKNOWN if any(end is UNKNOWN for end in ends) else value[slice(*ends)]
        index = self._value(node.slice)
        return index if index is UNKNOWN else value[index]

    def _bool_op(self, node: ast.BoolOp) -> Any:
        decides = isinstance(node.op, ast.Or)
        values = [self._value(each) for each in node.values]
        known = [value for value in values if value is not UNKNOWN]
        if any(bool(value) == decides for value in known):
            return decides
        return not decides if len(known) == len(values) else UNKNOWN

    def _compare(self, node: ast.Compare) -> Any:
        if len(node.ops) == 1 and isinstance(node.ops[0], ast.In | ast.NotIn) and isinstance(node.left, ast.Constant):
            # 'raw_input' in dir(__builtins__), in globals(), in __builtins__.__dict__
            mentioned = {last_name(each) for each in ast.walk(node.comparators[0]) if isinstance(each, ast.Name)}
            if node.left.value in py2.NAMES and mentioned & {"dir", "globals", "vars", "__builtins__", "builtins"}:
                return bool(self.bound(node.left.value)) != isinstance(node.ops[0], ast.NotIn)
        values = [self._value(each) for each in (node.left, *node.comparators)]
        if any(value is UNKNOWN for value in values):
            return UNKNOWN
        return all(_COMPARE[type(op)](a, b) for op, a, b in zip(node.ops, values, values[1:], strict=False))

    def _call(self, node: ast.Call) -> Any:
        name, args = last_name(node.func), node.args
        if name == "hasattr" and len(args) == 2 and isinstance(args[1], ast.Constant):
            absent = py2.NAMES | py2.METHODS
            if isinstance(args[0], ast.Name):
                absent |= py2.MODULE_ATTRIBUTES.get(args[0].id, frozenset())
            return False if args[1].value in absent and args[1].value not in self.attributes else UNKNOWN
        if name == "python_version" and not args:
            return sys.version.split()[0]
        if name == "python_version_tuple" and not args:
            return tuple(sys.version.split()[0].split("."))
        if name == "startswith" and isinstance(node.func, ast.Attribute):
            values = [self._value(each) for each in (node.func.value, *args)]
            return UNKNOWN if any(v is UNKNOWN for v in values) else values[0].startswith(*values[1:])
        if (
            isinstance(node.func, ast.Name)
            and name in ("int", "str", "float", "tuple", "bool", "len", "type")
            and len(args) == 1
        ):
            value = self._value(args[0])
            return value if value is UNKNOWN else getattr(builtins, name)(value)
        return UNKNOWN


def last_name(node: ast.AST) -> str:
    """`c` of `a.b.c` and of `c`; "" for other expressions."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def called_name(node: ast.AST) -> str:
    """`f` of a call `f(…)`; "" for other expressions."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def asks_version(node: ast.AST) -> bool:
    """Whether an expression names the version of Python."""
    if isinstance(node, ast.Attribute) and node.attr == "version" and last_name(node.value) == "sys":
        return True
    return last_name(node) in _VERSIONS
