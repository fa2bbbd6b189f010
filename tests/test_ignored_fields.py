"""Every field of Caffe's schema is read somewhere, or is ignored for a stated reason.

What counts as a read: an attribute of something called like the message (``solver.gamma``), or
the field's name as a string (``getattr``, the tables of the upgrade; not ``HasField``). A layer's
own message is looked for only in the classes that have it, and in what these use.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from netspec.errors import Place
from netspec.frontend import ignored_fields
from netspec.layers import REGISTRY, Layer
from netspec.proto import layers_pb2, legacy_pb2, net_pb2, solver_pb2
from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.solver_pb2 import SolverParameter
from netspec.sources.base import REGISTRY as SOURCES

PACKAGE = Path(__file__).resolve().parents[1] / "netspec"
MESSAGES: dict[str, Descriptor] = {
    message.name: message
    for module in (layers_pb2, legacy_pb2, net_pb2, solver_pb2)
    for message in module.DESCRIPTOR.message_types_by_name.values()
}
# Message -> the files that read it, and what it is called there.
ROOMS = {
    "NetParameter": ("frontend/graph.py frontend/upgrade*.py frontend/phase.py", "message net"),
    "LayerParameter": (
        "frontend/*.py weights/*.py layers/*.py sources/*.py sources/*/*.py",
        "spec layer message",
    ),
    "NetState": ("frontend/phase.py", "state"),
    "NetStateRule": ("frontend/phase.py", "rule"),
    "ParamSpec": ("frontend/*.py solving/*.py", "param_spec spec s param"),
    "FillerParameter": ("layers/fillers.py", "filler"),
    "BlobShape": ("layers/*.py frontend/*.py", "shape"),
    "Datum": ("sources/images/datum.py", "datum"),
    "TransformationParameter": ("sources/images/transform.py", "param"),
    "SolverParameter": (
        "solving/*.py solving/*/*.py frontend/upgrade*.py reporting/console.py",
        "solver param message",
    ),
    "V0LayerParameter": ("frontend/upgrade*.py", "flat layer"),
    "V1LayerParameter": ("frontend/upgrade*.py", "old layer"),
}
# Messages that are read by the numbers of their fields: private constants of a module.
BY_NUMBER = {
    "BlobProto": "formats/protobuf_wire.py",
    "SolverState": "solving/snapshots/solverstate.py",
}
# What layers call a message of theirs.
OWN = frozenset({"param"})


@dataclass
class Reads:
    """Names that a piece of code asks for; patterns are names with a hole: ``{stem}_h``."""

    names: set[str] = field(default_factory=set)
    patterns: set[str] = field(default_factory=set)

    def __contains__(self, name: str) -> bool:
        return name in self.names or any(re.fullmatch(p, name) for p in self.patterns)

    def scan(self, tree: ast.AST, holders: Iterable[str], strings: bool = True) -> None:
        """Add what ``tree`` reads of variables and attributes that are called as one of these.

        Or as what is assigned from them: ``loss = self.spec.loss_param``.
        """
        held = set(holders)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and called(node.value) in held:
                held |= {called(target) for target in node.targets} - {""}
        silent = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and called(node.func) in ("HasField", "ClearField"):
                silent |= set(node.args)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and called(node.value) in held:
                self.names.add(node.attr)
            elif strings and isinstance(node, ast.JoinedStr):
                self.patterns |= patterns(node)
            elif strings and isinstance(node, ast.Constant) and node not in silent:
                self.names.add(str(node.value))


def called(node: ast.expr) -> str:
    """The last part of a dotted name, of what is indexed or called: ``param`` of ``self.param``."""
    if isinstance(node, ast.Subscript):
        return called(node.value)
    if isinstance(node, ast.Call):
        return called(node.func)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def patterns(node: ast.JoinedStr) -> set[str]:
    """An f-string of a hole and an ending, as an expression that its values match."""
    hole, *rest = node.values
    ending = rest[0].value if len(rest) == 1 and isinstance(rest[0], ast.Constant) else ""
    if isinstance(hole, ast.Constant) or not re.fullmatch(r"_\w+", str(ending)):
        return set()
    return {f"[a-z]+{ending}"}


@cache
def tree_of(thing: Any) -> ast.Module:
    """The code of a file, a class or a function."""
    text = thing.read_text("utf-8") if isinstance(thing, Path) else inspect.getsource(thing)
    return ast.parse(dedent(text))


def used_by(layer: type[Layer]) -> Iterator[Any]:
    """A layer class and the classes and functions of ``netspec.layers`` that it needs."""
    found: list[Any] = [layer]
    for thing in found:
        yield thing
        room = sys.modules[thing.__module__]
        for node in ast.walk(tree_of(thing)):
            other = getattr(room, node.id, None) if isinstance(node, ast.Name) else None
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                module = getattr(room, node.value.id, None)
                other = getattr(module, node.attr, None) if isinstance(module, ModuleType) else None
            known = inspect.isclass(other) or inspect.isfunction(other)
            theirs = known and other.__module__.startswith("netspec.layers")
            if theirs and other not in (Layer, *found):
                found.append(other)


def message_of(layer: type[Layer]) -> str:
    """The name of a layer type's own message."""
    name = layer.param_field
    return LayerParameter.DESCRIPTOR.fields_by_name[name].message_type.name if name else ""


@cache
def reads(message: str) -> Reads:
    """What is read of a message, anywhere that it can be read."""
    found = Reads()
    files, holders = ROOMS.get(message, ("", ""))
    for path in (path for pattern in files.split() for path in PACKAGE.glob(pattern)):
        found.scan(tree_of(path), holders.split())
    homes = {
        home.name
        for home in LayerParameter.DESCRIPTOR.fields
        if home.message_type and home.message_type.name == message
    }
    for layer in REGISTRY.values() if homes and message not in ROOMS else ():
        if message_of(layer) == message:
            for thing in used_by(layer):
                found.scan(tree_of(thing), OWN | homes)
            if layer.traits.is_source:
                for path in PACKAGE.glob("sources/**/*.py"):
                    found.scan(tree_of(path), homes)
    # Of messages beside a layer's own the names alone count: self.spec.loss_param.normalization.
    for path in PACKAGE.glob("layers/*.py") if message not in ROOMS else ():
        found.scan(tree_of(path), homes, strings=False)
    return found


def numbers(path: Path) -> set[int]:
    """The private constants of a module, tuples of them too."""
    return {
        node.value
        for statement in tree_of(path).body
        if isinstance(statement, ast.Assign)
        for node in ast.walk(statement.value)
        if isinstance(node, ast.Constant) and isinstance(node.value, int)
        if all("_" in ast.unparse(target) for target in statement.targets)
    }


def is_read(message: Descriptor, name: str) -> bool:
    """Whether anything reads a field."""
    if message.name in BY_NUMBER:
        return message.fields_by_name[name].number in numbers(PACKAGE / BY_NUMBER[message.name])
    # The upgrade copies what is called the same.
    if message.name == "V1LayerParameter" and name in LayerParameter.DESCRIPTOR.fields_by_name:
        return True
    # A message that is some layer's own is read by that layer.
    if message.name == "LayerParameter" and name in {t.param_field for t in REGISTRY.values()}:
        return True
    return name in reads(message.name)


def unread(message: Descriptor) -> list[str]:
    """The fields of a message that nothing reads."""
    return [each.name for each in message.fields if not is_read(message, each.name)]


def excused(message: Descriptor) -> list[str]:
    """The fields of a message that have a reason not to be read."""
    tables = (ignored_fields.WARNED, ignored_fields.MEANINGLESS)
    return sorted(name for table in tables for owner, name in table if owner == message.name)


def reached(*roots: Descriptor) -> set[str]:
    """These messages and all that stand inside them."""
    found: list[Descriptor] = list(roots)
    for message in found:
        inner = [each.message_type for each in message.fields if each.message_type]
        found += [other for other in dict.fromkeys(inner) if other not in found]
    return {message.name for message in found}


def test_the_walk_reaches_the_schema() -> None:
    alone = {"BlobProtoVector", "Datum", "SolverState"}
    roots = [net_pb2.NetParameter.DESCRIPTOR, SolverParameter.DESCRIPTOR]
    assert reached(*roots) == MESSAGES.keys() - alone


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_every_field_is_read_or_has_a_reason(name: str) -> None:
    """A reason for a field that is read after all is stale."""
    assert sorted(unread(MESSAGES[name])) == excused(MESSAGES[name])


def test_the_tables_name_fields() -> None:
    for owner, name in (*ignored_fields.WARNED, *ignored_fields.MEANINGLESS):
        assert name in MESSAGES[owner].fields_by_name, f"{owner}.{name}"
    assert ignored_fields.WARNED.keys() & ignored_fields.MEANINGLESS.keys() == set()


def test_data_layers_have_sources() -> None:
    fed = {name for name, layer in REGISTRY.items() if layer.traits.is_source}
    assert fed - {"Input"} == {name for name in SOURCES if "." not in name}


def other_than_default(each: FieldDescriptor) -> Any:
    """A value of a scalar field that is not its default."""
    if each.enum_type:
        values = [value.number for value in each.enum_type.values]
        return next(value for value in values if value != each.default_value)
    return not each.default_value if each.cpp_type == each.CPPTYPE_BOOL else 7


def message_with(owner: str, name: str, value: Any) -> Any:
    """A net, a solver or a layer that sets a field, in its own message or in one inside it."""
    for outer in (net_pb2.NetParameter(), SolverParameter(), LayerParameter()):
        inner = [each.name for each in outer.DESCRIPTOR.fields if each.message_type]
        inner = [i for i in inner if outer.DESCRIPTOR.fields_by_name[i].message_type.name == owner]
        if outer.DESCRIPTOR.name == owner or inner:
            setattr(getattr(outer, inner[0]) if inner else outer, name, value)
            return outer
    raise AssertionError(owner)


@pytest.mark.differs("refused-fields")
@pytest.mark.parametrize(("owner", "name"), ignored_fields.WARNED)
def test_fields_that_are_warned_of(owner: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    each = MESSAGES[owner].fields_by_name[name]
    ignored_fields.warn_once.cache_clear()
    warning = f"here:3: {name}: {ignored_fields.WARNED[owner, name]}"
    ignored_fields.warn(message_with(owner, name, each.default_value), Place("here", 3))
    assert caplog.messages == []
    for _ in range(2):
        ignored_fields.warn(message_with(owner, name, other_than_default(each)), Place("here", 3))
    assert caplog.messages == [warning]


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        key
        for key in ignored_fields.MEANINGLESS
        if key[0].endswith("Parameter") and key[0][:2] != "V0"
    ],
)
def test_meaningless_fields(owner: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    each = MESSAGES[owner].fields_by_name[name]
    ignored_fields.warn(message_with(owner, name, other_than_default(each)), Place("here"))
    assert caplog.messages == []


def test_a_read_is_told_from_a_mention() -> None:
    found = Reads()
    code = '''
def f(param, stem):
    """A pad."""
    other.axis
    param.group, get(param, "kernel_size"), f"{stem}_h", f"{stem} of {stem}"
'''
    found.scan(ast.parse(code), OWN)
    assert all(name in found for name in ("group", "kernel_size", "pad_h"))
    assert not any(name in found for name in ("pad", "axis", "engine", "pad_h_w_x"))
