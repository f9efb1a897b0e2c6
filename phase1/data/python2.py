"""Does a program that compiles under Python 3 need something that only Python 2 has when it runs?

Many programs run under both: what only Python 2 has stands in a `try` that catches its absence or under a test of the
version. So the syntax tree is walked in the order in which Python 3 would run it: tests of the version are worked out,
branches that Python 3 never takes and functions that nobody names are left out, and a use counts where no handler
catches its error and the program gives the name no meaning of its own. The program is never executed.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from phase1.data import python2_names as py2
from phase1.data.python2_handlers import ALL, LOOKUPS, Guard, caught_by, guard_of
from phase1.data.python2_version import UNKNOWN, VersionTests, asks_version, called_name, last_name

# They can call a function that is named nowhere.
_SCOPE_READERS = frozenset(("eval", "exec", "globals", "locals", "vars"))
_NESTING = 50_000  # frames; the parser refuses what is a tenth as deep


def python2_need(code: str) -> str:
    """What of Python 2 alone `code` needs at run time, such as "line 3: raw_input"; "" where it needs nothing.

    Raises:
        SyntaxError: `code` does not compile under Python 3.
    """
    tree = ast.parse(code)  # under the usual limit: a higher one would let the parser overflow the C stack
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _NESTING))  # a chain of 400 elif is a tree 400 deep
    try:
        walk = _Walk()
        walk.program(tree)
        return walk.need()
    finally:
        sys.setrecursionlimit(limit)


@dataclass
class _Scope:
    """A module, function or class: its names, and what each was bound to.

    That is "module:x", "iterator", "view", or "" for anything else.
    """

    parent: _Scope | None = None
    is_class: bool = False
    bound: dict[str, list[str]] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)  # `global` and `nonlocal`

    def find(self, name: str) -> list[str]:
        """What `name` is bound to as seen from here; empty where the program does not bind it."""
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.bound and (scope is self or not scope.is_class):
                return scope.bound[name]
            scope = scope.parent
        return []


@dataclass(frozen=True)
class _Use:
    """A use of what only Python 2 has, if that still holds when the whole program has been seen.

    It holds where every binding of `name` is one of `kinds`; without kinds, where the program does not bind `name`; and
    in any case only where the program defines no attribute named `attribute`.
    """

    what: str
    line: int
    name: str
    scope: _Scope
    kinds: frozenset[str] = frozenset()
    attribute: str = ""


class _Walk:
    def __init__(self) -> None:
        self.module = _Scope()
        self.scope = self.module
        self.guards: list[Guard] = []
        self.uses: list[_Use] = []
        self.caught: set[str] = set()  # errors that a handler of the innermost `try` caught in its body
        self.constants: dict[str, object] = {}  # PY2 = sys.version_info[0] == 2
        self.missing = set(py2.NAMES)
        self.attributes: set[str] = set()  # that the program defines or sets
        self.functions: dict[str, list[ast.FunctionDef | ast.AsyncFunctionDef]] = {}
        self.waiting: dict[str, list[tuple[ast.FunctionDef | ast.AsyncFunctionDef, _Scope]]] = {}
        self.named: set[str] = set()
        self.queue: list[tuple[ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, _Scope]] = []
        self.tests = VersionTests(lambda name: self.scope.find(name), self.constants, self.attributes)
        self.any_name = False  # `from x import *`: nobody knows what it binds

    def program(self, tree: ast.Module) -> None:
        self.statements(tree.body)
        while self.queue:
            node, scope = self.queue.pop()
            self.function_body(node, scope)

    def need(self) -> str:
        for use in self.uses:
            found = use.scope.find(use.name) if use.name else []
            if use.attribute in self.attributes:
                continue
            if use.kinds:
                real = bool(found) and all(kind in use.kinds for kind in found)
            else:
                real = not found and not (self.any_name and use.name)
            if real:
                return f"line {use.line}: {use.what}"
        return ""

    # ------------------------------------------------------------------------------------------------ uses and names
    def use(
        self,
        node: ast.AST,
        error: str,
        what: str,
        name: str = "",
        kinds: Iterable[str] = (),
        attribute: str = "",
        called: bool = False,
    ) -> None:
        """Note a use that ends in `error` under Python 3, unless a handler around it catches that."""
        use = _Use(
            what=what,
            line=getattr(node, "lineno", 0),
            name=name,
            scope=self.scope,
            kinds=frozenset(kinds),
            attribute=attribute,
        )
        for guard in reversed(self.guards):
            if error in guard.errors:
                if use.kinds or not (name and self.scope.find(name)) and attribute not in self.attributes:
                    self.caught.add(error)
                if not (guard.idle and called):
                    return
        self.uses.append(use)

    def bind(self, name: str, kind: str = "") -> None:
        scope = self.module if name in self.scope.elsewhere else self.scope
        scope.bound.setdefault(name, []).append(kind)
        if scope is self.module:
            self.constants.pop(name, None)

    def load(self, name: str) -> None:
        self.named.add(name)
        self.queue += self.waiting.pop(name, [])
        if name in _SCOPE_READERS:
            self.queue += [each for several in self.waiting.values() for each in several]
            self.waiting.clear()

    # ---------------------------------------------------------------------------------------------------- statements
    def statements(self, body: list[ast.stmt]) -> None:
        for node in body:
            self.visit(node)

    def visit(self, node: ast.AST) -> None:
        method = getattr(self, f"visit_{type(node).__name__}", None)
        if method:
            method(node)
        else:
            self.children(node)

    def children(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            self.visit(child)

    def visit_If(self, node: ast.If | ast.IfExp) -> None:
        value = self.tests.value(node.test)
        self.visit(node.test)
        branches = [node.body, node.orelse] if value is UNKNOWN else [node.body if value else node.orelse]
        # A test of the version that cannot be worked out: whatever stands under it was written with both in mind.
        doubt = value is UNKNOWN and any(asks_version(each) for each in ast.walk(node.test))
        with self.guarded(Guard(ALL) if doubt else None):
            for branch in branches:
                for each in branch if isinstance(branch, list) else [branch]:
                    self.visit(each)

    visit_IfExp = visit_If

    def visit_While(self, node: ast.While) -> None:
        value = self.tests.value(node.test)
        self.visit(node.test)
        if value is UNKNOWN or value:
            self.statements(node.body)
        self.statements(node.orelse)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for part in node.values:
            self.visit(part)
            value = self.tests.value(part)
            if value is not UNKNOWN and bool(value) == isinstance(node.op, ast.Or):
                return

    @contextmanager
    def guarded(self, guard: Guard | None) -> Iterator[None]:
        """Walk under `guard`, if there is one."""
        if guard:
            self.guards.append(guard)
        yield
        if guard:
            self.guards.pop()

    def visit_Try(self, node: ast.Try) -> None:
        guards = [guard for handler in reversed(node.handlers) if (guard := guard_of(handler))]
        outer, self.caught = self.caught, set()
        self.guards += guards
        stopped = False
        for each in node.body:
            self.visit(each)
            if self.caught and not isinstance(each, ast.If | ast.For | ast.While | ast.With | ast.Try):
                stopped = True  # it raises for sure, so the rest of the body does not run
                break
        del self.guards[len(self.guards) - len(guards) :]
        caught, self.caught = self.caught, outer
        probe = all(isinstance(each, ast.Import | ast.ImportFrom | ast.Assign) for each in node.body)
        for handler in node.handlers:
            found = guard_of(handler)
            lookups_only = found is not None and (found.errors <= LOOKUPS or probe)
            if lookups_only and not caught:
                continue  # `try: import queue`, `except ImportError: import Queue as queue`: not run
            if handler.type:
                self.visit(handler.type)
            if handler.name:
                self.bind(handler.name)
            self.statements(handler.body)
        if not stopped:
            self.statements(node.orelse)
        self.statements(node.finalbody)

    visit_TryStar = visit_Try

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        errors: set[str] = set()
        for item in node.items:
            self.visit(item)
            call = item.context_expr
            if isinstance(call, ast.Call) and last_name(call.func) == "suppress":
                errors |= {error for arg in call.args for error in caught_by(arg)}
        with self.guarded(Guard(frozenset(errors)) if errors else None):
            self.statements(node.body)

    visit_AsyncWith = visit_With

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.partition(".")[0]
            name = alias.asname or top
            if top in py2.MODULES:
                self.use(node, "ModuleNotFoundError", f"import {top}")
                self.missing.add(name)
            else:
                self.bind(name, f"module:{alias.name if alias.asname else top}")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        absent = py2.MODULE_ATTRIBUTES.get(module, frozenset())
        for alias in node.names:
            name = alias.asname or alias.name
            if module.partition(".")[0] in py2.MODULES and not node.level:
                self.use(node, "ModuleNotFoundError", f"from {module} import")
                self.missing.add(name)
            elif alias.name == "*":
                self.missing |= absent
                if module == "functools":
                    self.bind("reduce")
                elif module.partition(".")[0] not in sys.stdlib_module_names:
                    self.any_name = True
            elif alias.name in absent:
                self.use(node, "ImportError", f"from {module} import {alias.name}")
                self.missing.add(name)
            else:
                self.bind(name)

    def visit_Assign(self, node: ast.Assign) -> None:
        before = len(self.caught)
        self.visit(node.value)
        if len(self.caught) > before:
            return  # it raised: nothing is bound
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.bind(target.id, self.kind_of(node.value))
                value = self.tests.value(node.value)
                # A literal that is set again in a loop is no constant; one in capitals is meant as one.
                if (
                    self.scope is self.module
                    and value is not UNKNOWN
                    and (target.id.isupper() or not isinstance(node.value, ast.Constant))
                ):
                    self.constants[target.id] = value
            elif (
                isinstance(target, ast.Tuple)
                and isinstance(node.value, ast.Tuple)
                and len(target.elts) == len(node.value.elts)
            ):
                for name, value in zip(target.elts, node.value.elts, strict=True):
                    if isinstance(name, ast.Name):
                        self.bind(name.id, self.kind_of(value))
                    else:
                        self.visit(name)
            else:
                self.visit(target)

    def visit_Global(self, node: ast.Global | ast.Nonlocal) -> None:
        self.scope.elsewhere |= set(node.names)

    visit_Nonlocal = visit_Global

    # --------------------------------------------------------------------------------------------- functions, classes
    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for outside in (*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d)):
            self.visit(outside)
        self.bind(node.name)
        self.functions.setdefault(node.name, []).append(node)
        if self.scope.is_class:
            self.attributes.add(node.name)
        if self.scope.is_class or node.decorator_list or node.name in self.named or _SCOPE_READERS & self.named:
            self.queue.append((node, self.scope))
        else:
            self.waiting.setdefault(node.name, []).append((node, self.scope))

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for outside in (*node.args.defaults, *(d for d in node.args.kw_defaults if d)):
            self.visit(outside)
        self.queue.append((node, self.scope))

    def function_body(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, outside: _Scope) -> None:
        """Walk a body by itself: it runs when it is called, outside the handlers around its definition."""
        self.scope = _Scope(outside)
        for arg in ast.walk(node.args):
            if isinstance(arg, ast.arg):
                self.bind(arg.arg)
        if isinstance(node, ast.Lambda):
            self.visit(node.body)
        else:
            self.statements(node.body)
        self.scope = self.module

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for outside in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(outside)
        self.bind(node.name)
        self.scope = _Scope(self.scope, is_class=True)
        self.statements(node.body)
        methods = self.scope.bound
        assert self.scope.parent
        self.scope = self.scope.parent
        if (
            "__cmp__" in methods
            and not {"__lt__", "__gt__"} & methods.keys()
            and not node.bases
            and not node.decorator_list
        ):
            self.use(node, "TypeError", "a class ordered by __cmp__")

    # --------------------------------------------------------------------------------------------------- expressions
    def visit_Name(self, node: ast.Name, called: bool = False) -> None:
        if not isinstance(node.ctx, ast.Load):
            if isinstance(node.ctx, ast.Store):
                self.bind(node.id)
            return
        self.load(node.id)
        if node.id in self.missing and not hasattr(builtins, node.id):
            self.use(node, "NameError", node.id, node.id, called=called)

    def visit_Attribute(self, node: ast.Attribute, called: bool = False) -> None:
        base = node.value
        self.visit(base)
        if not isinstance(node.ctx, ast.Load):
            self.attributes.add(node.attr)
            if isinstance(base, ast.Name) and base.id in ("builtins", "__builtins__"):
                self.module.bound.setdefault(node.attr, []).append("")
            return
        if node.attr in py2.METHODS:
            self.use(node, "AttributeError", f".{node.attr}", attribute=node.attr, called=called)
        if isinstance(base, ast.Name):
            for module, absent in py2.MODULE_ATTRIBUTES.items():
                if node.attr in absent:
                    self.use(
                        node, "AttributeError", f"{module}.{node.attr}", base.id, {f"module:{module}"}, called=called
                    )
            if base.id == "__builtins__" and node.attr in py2.NAMES:
                self.use(node, "AttributeError", f"__builtins__.{node.attr}", called=called)
        if node.attr in py2.LIST_METHODS and (node.attr not in ("index", "count") or self.kind_of(base)):
            self.list_only(node, base, f".{node.attr}()", "AttributeError")
        elif isinstance(base, ast.Call) and last_name(base.func) == "print" and isinstance(base.func, ast.Name):
            self.use(node, "AttributeError", "a print statement", "print")

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.children(node)
        if isinstance(node.ctx, ast.Load):
            self.list_only(node, node.value, "[…]", "TypeError")

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self.children(node)
        left = node.left
        if isinstance(left, ast.Name) and left.id == "print":
            self.use(node, "TypeError", "print >>", "print")
        elif isinstance(left, ast.Call) and isinstance(left.func, ast.Name) and left.func.id == "print":
            self.use(node, "TypeError", "a print statement", "print")
        elif isinstance(node.op, ast.Add):
            for one, other in ((left, node.right), (node.right, left)):
                if isinstance(other, ast.List | ast.ListComp) or called_name(other) in (
                    "range",
                    "list",
                    *py2.ITERATORS,
                ):
                    self.list_only(node, one, " + a list", "TypeError", ranges=True)

    def visit_Call(self, node: ast.Call) -> None:
        func = node.func
        if isinstance(func, ast.Name):
            self.visit_Name(func, called=True)
        elif isinstance(func, ast.Attribute):
            self.visit_Attribute(func, called=True)
        else:
            self.visit(func)
        for child in (*node.args, *node.keywords):
            self.visit(child)
        name, keywords = last_name(func), {k.arg for k in node.keywords}
        if isinstance(func, ast.Name) and name == "sorted" and (len(node.args) > 1 or "cmp" in keywords):
            if not any(isinstance(arg, ast.Starred) for arg in node.args):
                self.use(node, "TypeError", "sorted with a comparison function", "sorted")
        elif (
            isinstance(func, ast.Attribute)
            and name == "sort"
            and ("cmp" in keywords or (len(node.args) == 1 and self.compares(node.args[0])))
        ):
            self.use(node, "TypeError", ".sort with a comparison function", attribute="sort")
        elif isinstance(func, ast.Attribute) and name == "next" and not node.args and not keywords:
            self.use(node, "AttributeError", ".next()", attribute="next")
        elif (
            isinstance(func, ast.Name)
            and name == "len"
            and len(node.args) == 1
            and self.kind_of(node.args[0]) != "view"
        ):
            self.list_only(node, node.args[0], "len()", "TypeError")

    def compares(self, node: ast.expr) -> bool:
        """Whether the only argument of a sort is a comparison function: of two values."""
        if isinstance(node, ast.Lambda):
            return len(node.args.args) == 2
        return isinstance(node, ast.Name) and any(len(f.args.args) == 2 for f in self.functions.get(node.id, ()))

    def kind_of(self, node: ast.expr) -> str:
        """What a value is: "iterator" from map, filter or zip, "view" from .keys(), .values() or .items(), else ""."""
        if called_name(node) in py2.ITERATORS and not self.scope.find(called_name(node)):
            return "iterator"
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in py2.VIEWS
            and not node.args
            and not node.keywords
        ):
            return "" if node.func.attr in self.attributes else "view"
        return ""

    def list_only(self, node: ast.AST, value: ast.expr, what: str, error: str, ranges: bool = False) -> None:
        """Note that `value` is used as only a list can be, for the case that it is none in Python 3."""
        if isinstance(value, ast.Name):  # all that the name is ever bound to must be of one of these kinds
            kinds = {"iterator"} if what == "len()" else {"iterator", "view"}
            self.use(node, error, f"{value.id}{what} of what is no list", value.id, kinds)
        elif kind := self.kind_of(value):
            called = called_name(value) if kind == "iterator" else ""
            assert isinstance(value, ast.Call)
            self.use(
                node,
                error,
                f"{last_name(value.func)}(){what}",
                called,
                attribute="" if called else last_name(value.func),
            )
        elif ranges and called_name(value) == "range":
            self.use(node, error, f"range(){what}", "range")
