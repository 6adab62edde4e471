"""Which names of NVIDIA's package ``tensorrt`` a source uses, and whether every version it is for has them.

The lists (../shared/tensorrt_api) are read from the published wheels. A source is read as a syntax tree:

- A block under ``if version.before(11):``, ``version.since(10, 13)``, ``and``, ``or``, ``not`` of them, and what comes
  after a block of them that ends in ``return`` or ``raise``, serves those versions alone; all else serves all.
- A variable, parameter or attribute of ``self`` that is annotated ``trt.Name`` is of that class; so is what a method of
  :data:`GIVES` gives. Every attribute read from it or set on it, and every ``trt.Name.MEMBER``, must be listed.
- A class derived from one of theirs may override what is listed there, beside what it adds. Of an interface whose list
  is empty (``IOutputAllocator`` from 10.0 on: bindings show no methods that are only there to be overridden) nothing
  but its existence can be checked.
- ``getattr`` with a name that is written out counts as that attribute; with any other it cannot be checked and is an
  error. So is a number where an enumeration's member belongs, as values shift between versions.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

Lists = dict[tuple[int, int], dict[str, set[str]]]

#: What methods of theirs give that are used without an annotation.
GIVES = {
    ("OnnxParser", "get_error"): "ParserError",
    ("INetworkDefinition", "get_layer"): "ILayer",
    ("INetworkDefinition", "get_input"): "ITensor",
    ("INetworkDefinition", "get_output"): "ITensor",
    ("ILayer", "get_output"): "ITensor",
    ("ICudaEngine", "create_engine_inspector"): "EngineInspector",
    ("ICudaEngine", "create_execution_context"): "IExecutionContext",
    ("IBuilderConfig", "get_timing_cache"): "ITimingCache",
    ("Builder", "create_network"): "INetworkDefinition",
    ("Builder", "create_builder_config"): "IBuilderConfig",
    ("Builder", "create_optimization_profile"): "IOptimizationProfile",
    ("Runtime", "deserialize_cuda_engine"): "ICudaEngine",
}
#: Arguments that enumerations' values are made of: never a bare number.
FLAGS = {"create_network", "set_flag", "clear_flag", "set_memory_pool_limit", "set_tactic_sources"}
#: What every Python module has.
MODULE = {"__version__", "__name__", "__file__"}


def read_lists(folder: Path) -> Lists:
    """(major, minor) -> class, without its package -> attributes; ``""`` is the package itself."""
    lists = {}
    for file in sorted(folder.glob("*.json")):
        content = json.loads(file.read_text())
        major, minor, *_ = map(int, file.stem.split("."))
        classes = {name.partition(".")[2]: set(names) for name, names in content.items() if name[0] != "_"}
        top = {name.partition(".")[0] for name in classes}
        functions = {name.partition(".")[2] for name in content["__functions__"] + content["__constants__"]}
        lists[major, minor] = {**classes, "": top | functions | MODULE}
    return lists


def problems(source: str, lists: Lists) -> list[str]:
    """What a source uses that a version it serves does not have, as ``line: what (versions)``."""
    reader = _Reader(lists)
    reader.body(ast.parse(source).body, frozenset(lists), {}, {})
    return reader.found


def uses_tensorrt(source: str) -> bool:
    return any(
        isinstance(node, (ast.Import, ast.ImportFrom))
        and any(alias.name == "tensorrt" for alias in node.names)
        and not (isinstance(node, ast.ImportFrom) and node.level)
        for node in ast.walk(ast.parse(source))
    )


Versions = frozenset[tuple[int, int]]


@dataclass
class _Reader:
    lists: Lists
    found: list[str] = field(default_factory=list)

    def body(self, statements: list[ast.stmt], versions: Versions, names: dict[str, str], own: dict[str, str]) -> None:
        for statement in statements:
            if isinstance(statement, ast.If) and (served := self.served(statement.test, versions)) is not None:
                may, surely = served
                self.expressions(statement.test, versions, names, own)
                self.body(statement.body, may, dict(names), own)
                self.body(statement.orelse, versions - surely, dict(names), own)
                if isinstance(statement.body[-1], (ast.Return, ast.Raise, ast.Continue)):
                    versions = versions - surely
            elif isinstance(statement, ast.ClassDef):
                self.class_(statement, versions, names)
            elif isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.function(statement, versions, names, own)
            else:
                self.statement(statement, versions, names, own)

    def class_(self, node: ast.ClassDef, versions: Versions, names: dict[str, str]) -> None:
        base = next((name for name in map(_class, node.bases) if name), None)
        if base:
            self.look(base, None, versions, node)
        # only names that hold throughout: those annotated anywhere in the class
        own = {"": base} if base else {}
        for child in ast.walk(node):
            if isinstance(child, ast.AnnAssign) and _self(child.target) and _annotated(child.annotation):
                own[_self(child.target)] = _annotated(child.annotation)
        for statement in node.body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                if base and not statement.name.startswith("_"):
                    told = frozenset(v for v in versions if any(name[0] != "_" for name in self.lists[v].get(base, ())))
                    self.look(base, statement.name, told, statement)
                self.function(statement, versions, names, {} if base else own)
            else:
                self.statement(statement, versions, dict(names), own)

    def function(
        self,
        node: ast.FunctionDef | ast.AsyncFunctionDef,
        versions: Versions,
        names: dict[str, str],
        own: dict[str, str],
    ) -> None:
        inside = dict(names)
        arguments = node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            inside.pop(argument.arg, None)
            if argument.annotation is not None and (name := _annotated(argument.annotation)):
                self.look(name, None, versions, argument)
                inside[argument.arg] = name
        self.body(node.body, versions, inside, own)

    def statement(self, node: ast.stmt, versions: Versions, names: dict[str, str], own: dict[str, str]) -> None:
        blocks = [block for part in ("body", "orelse", "finalbody") if (block := getattr(node, part, None))]
        blocks += [handler.body for handler in getattr(node, "handlers", [])]
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.expr, ast.withitem)):
                self.expressions(child, versions, names, own)
        for block in blocks:
            self.body(block, versions, names, own)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if name := _annotated(node.annotation):
                names[node.target.id] = name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = self.type_of(node.value, names, own)
            names.pop(node.targets[0].id, None)
            if name:
                names[node.targets[0].id] = name

    def expressions(self, root: ast.AST, versions: Versions, names: dict[str, str], own: dict[str, str]) -> None:
        for node in ast.walk(root):
            if isinstance(node, ast.Attribute):
                if (name := _class(node)) is not None:
                    parent, _, member = name.rpartition(".")
                    self.look(parent, member, versions, node)
                elif (owner := self.type_of(node.value, names, own)) is not None:
                    self.look(owner, node.attr, versions, node)
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in FLAGS and node.args and isinstance(node.args[0], ast.Constant):
                self.say(node, f"{called}({node.args[0].value!r}): a number in place of a name", versions)
            if called == "getattr" and len(node.args) > 1:
                owner = _class(node.args[0]) if _class(node.args[0]) is not None else None
                owner = owner or self.type_of(node.args[0], names, own)
                if _is_package(node.args[0]):
                    owner = ""
                if owner is not None and isinstance(node.args[1], ast.Constant):
                    self.look(owner, str(node.args[1].value), versions, node)
                elif owner is not None:
                    self.say(node, "getattr of a name that is not written out cannot be checked", versions)

    def type_of(self, node: ast.expr, names: dict[str, str], own: dict[str, str]) -> str | None:
        """The class of theirs that a value is of, if that is known."""
        if isinstance(node, ast.Name):
            return names.get(node.id)
        if _self(node):
            return own.get(_self(node))
        if isinstance(node, ast.BoolOp):
            return next((name for value in node.values if (name := self.type_of(value, names, own))), None)
        if isinstance(node, ast.Call):
            if (name := _class(node.func)) is not None:
                return name
            if isinstance(node.func, ast.Attribute):
                return GIVES.get((self.type_of(node.func.value, names, own) or "", node.func.attr))
        return None

    def served(self, test: ast.expr, versions: Versions) -> tuple[Versions, Versions] | None:
        """Those of ``versions`` for which a condition may hold, and those for which it surely does.

        None if it does not ask for the version at all.
        """
        if (
            isinstance(test, ast.Call)
            and isinstance(test.func, ast.Attribute)
            and test.func.attr in ("before", "since")
        ):
            limit = tuple(ast.literal_eval(argument) for argument in test.args)
            before = frozenset(version for version in versions if version < limit)
            exactly = before if test.func.attr == "before" else versions - before
            return exactly, exactly
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            inner = self.served(test.operand, versions)
            return None if inner is None else (versions - inner[1], versions - inner[0])
        if isinstance(test, ast.BoolOp):
            parts = [self.served(value, versions) for value in test.values]
            if all(part is None for part in parts):
                return None
            may, surely = zip(*(part or (versions, frozenset()) for part in parts), strict=True)
            if isinstance(test.op, ast.And):
                return frozenset.intersection(*may), frozenset.intersection(*surely)
            return frozenset.union(*may), frozenset.union(*surely)
        return None

    def look(self, owner: str, member: str | None, versions: Versions, node: ast.AST) -> None:
        """Whether every one of ``versions`` has a class, and an attribute of it."""
        if member is not None and member.startswith("__") and owner:
            return
        lacking = [
            version
            for version in sorted(versions)
            if owner not in self.lists[version]
            or (
                (member is not None and member not in self.lists[version][owner])
                and f"{owner}.{member}" not in self.lists[version]
            )
        ]
        if lacking:
            self.say(node, f"trt.{'.'.join(filter(None, (owner, member)))}", frozenset(lacking))

    def say(self, node: ast.AST, what: str, versions: Versions) -> None:
        where = ", ".join(f"{major}.{minor}" for major, minor in sorted(versions))
        message = f"{getattr(node, 'lineno', 0)}: {what} ({where})"
        if message not in self.found:
            self.found.append(message)


def _is_package(node: ast.AST) -> bool:
    return (isinstance(node, ast.Name) and node.id in ("trt", "tensorrt")) or _self(node) in ("_trt", "trt")


def _class(node: ast.AST) -> str | None:
    """``trt.Logger.Severity`` -> ``Logger.Severity``; None for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute) and not _is_package(node):
        parts.insert(0, node.attr)
        node = node.value
    return ".".join(parts) if parts and _is_package(node) else None


def _self(node: ast.AST) -> str:
    return (
        node.attr
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
        else ""
    )


def _annotated(node: ast.expr) -> str | None:
    """The class that ``trt.Name`` or ``trt.Name | None`` names, also inside quotes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = ast.parse(node.value, mode="eval").body
    for part in _either(node):
        if (name := _class(part)) is not None:
            return name
    return None


def _either(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        yield from _either(node.left)
        yield from _either(node.right)
    else:
        yield node
