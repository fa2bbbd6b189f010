"""Prototxt text to messages and back; every layer remembers the line where it begins.

Protobuf's parser forgets lines, so a quick scan beside it finds where each layer opens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from google.protobuf import text_encoding, text_format
from google.protobuf.message import DecodeError, Message

from netspec.errors import NetSpecError, ParseError, Place, nearest, require, unreadable
from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.net_pb2 import NetParameter
from netspec.proto.solver_pb2 import SolverParameter

AnyMessage = TypeVar("AnyMessage", bound=Message)


@dataclass(frozen=True)
class NetText:
    """A net as read: its message, and for each of its layers the place where it begins.

    ``places`` runs parallel to ``message.layer`` (to ``message.layers`` before the upgrade).
    ``left_out`` names the blobs that layers of other phases make, once a phase is selected.
    """

    message: NetParameter
    file: str
    places: tuple[Place, ...]
    left_out: frozenset[str] = frozenset()

    def with_layers(self, layers: list[tuple[LayerParameter, Place]]) -> NetText:
        """The same net with other layers."""
        message = NetParameter()
        message.CopyFrom(self.message)
        message.ClearField("layer")
        message.ClearField("layers")
        message.layer.extend(layer for layer, _ in layers)
        return replace(self, message=message, places=tuple(place for _, place in layers))


@dataclass(frozen=True)
class SolverText:
    """A solver as read.

    nets: those written inside it, by field and index. lines: field -> where it is first set.
    """

    message: SolverParameter
    file: str
    nets: dict[tuple[str, int], NetText] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Add the place to errors raised inside: the line of the first field that they name."""
        try:
            yield
        except NetSpecError as error:
            error.place = error.place or self.place_of(error.message)
            raise

    def place_of(self, message: str) -> Place:
        """The line of the first field that a message names, or the file."""
        named = (word for word in re.findall(r"\w+", message) if word in self.lines)
        return Place(self.file, self.lines.get(next(named, ""), 0))


def read_net(path: str | Path) -> NetText:
    """Read a net prototxt; raises ParseError."""
    return parse_net(_read(path), str(path))


def read_binary_net(path: str | Path) -> NetText:
    """Read a net with its weights, a binary .caffemodel; raises ParseError."""
    message = NetParameter()
    try:
        message.ParseFromString(Path(path).read_bytes())
    except OSError as error:
        raise ParseError(unreadable(path, error)) from None
    except DecodeError:
        raise ParseError("is no binary net; is it a .caffemodel?", Place(str(path))) from None
    places = (Place(str(path)),) * (len(message.layer) + len(message.layers))
    return NetText(message, str(path), places)


def parse_net(text: str, file: str = "<text>") -> NetText:
    """Parse a net; ``file`` is what error messages call it. Raises ParseError."""
    message = _parse(text, NetParameter(), file)
    lines = [line for path, line in _layer_lines(text) if not path]
    return NetText(message, file, tuple(Place(file, line) for line in lines))


def read_solver(path: str | Path) -> SolverText:
    """Read a solver prototxt; raises ParseError."""
    text, file = _read(path), str(path)
    message = _parse(text, SolverParameter(), file)
    places: dict[tuple[str, int], list[Place]] = {}
    for outer, line in _layer_lines(text):
        if len(outer) == 1:
            places.setdefault(outer[0], []).append(Place(file, line))
    nets: dict[tuple[str, int], NetText] = {}
    for name in ("net_param", "train_net_param"):
        if message.HasField(name):
            at = (name, 0)
            nets[at] = NetText(getattr(message, name), file, tuple(places.get(at, ())))
    for i, net in enumerate(message.test_net_param):
        at = ("test_net_param", i)
        nets[at] = NetText(net, file, tuple(places.get(at, ())))
    return SolverText(message, file, nets, _field_lines(text))


def is_solver(path: str | Path) -> bool:
    """Whether a prototxt file is a solver's rather than a net's, by the fields it sets."""
    text = _TOKEN.sub(lambda token: " " if token["skip"] else token.group(), _read(path))
    outermost = re.split(r"[{<]", text, maxsplit=1)[0]
    known = SolverParameter.DESCRIPTOR.fields_by_name
    names = re.findall(r"[A-Za-z_]\w*(?=\s*:)", outermost)
    return any(
        name in known for name in names if name not in NetParameter.DESCRIPTOR.fields_by_name
    )


def rewrite_solver(path: str | Path, message: SolverParameter) -> str:
    """A solver file's text with the numbers of ``message``; comments and all else stay.

    What cannot be put into that text so is written anew. Raises ParseError.
    """
    text = _read(path)
    before = _parse(text, SolverParameter(), str(path))
    changed = {
        descriptor.name: [
            _value(descriptor, one) for one in ([value] if isinstance(value, _SINGULAR) else value)
        ]
        for descriptor, value in message.ListFields()
        if descriptor.message_type is None and getattr(before, descriptor.name) != value
    }
    edited = _with_values(text, changed)
    try:
        done = _parse(edited, SolverParameter(), str(path)) == message
    except ParseError:
        done = False
    return edited if done else write(message)


# The number that a field is set to, or a list of them.
_NUMBERS = re.compile(r"\s*:\s*(\[[^\]#]*\]|[-+.\w]+)")


def _with_values(text: str, changed: Mapping[str, Sequence[str]]) -> str:
    """A text in which fields outside all blocks have other values; new ones stand at the end."""
    left = {name: iter(values) for name, values in changed.items()}
    missing = dict(changed)
    parts, at, depth = [], 0, 0
    for token in _TOKEN.finditer(text):
        depth += (token.lastgroup == "open") - (token.lastgroup == "close")
        name = token.group()
        found = _NUMBERS.match(text, token.end())
        if depth or token.lastgroup != "name" or name not in left or not found:
            continue
        values = left[name]
        # More of them than there are values for is a text to be written anew.
        numbers = re.sub(r"[-+.\w]+", lambda old, values=values: next(values, old[0]), found[1])
        parts += [text[at : found.start(1)], numbers]
        at = found.end()
        missing.pop(name, None)
    added = [f"{name}: {value}\n" for name, values in missing.items() for value in values]
    end = "\n" if added and not text.endswith("\n") else ""
    return "".join([*parts, text[at:], end, *added])


def write(message: Message) -> str:
    """A message as prototxt as people write it: small blocks on one line, ``lr_mult: 1``."""
    return "".join(f"{line}\n" for line in _lines(message))


# A block of plain values stays on one line up to this many characters.
_ONE_LINE = 76


def _lines(message: Message) -> Iterator[str]:
    for descriptor, value in message.ListFields():
        values: Any = [value] if isinstance(value, _SINGULAR) else value
        for one in values:
            if descriptor.message_type is None:
                yield f"{descriptor.name}: {_value(descriptor, one)}"
                continue
            inner = list(_lines(one))
            whole = " ".join([descriptor.name, "{", *inner, "}"])
            if len(whole) <= _ONE_LINE and not any(line.endswith("}") for line in inner):
                yield whole
            else:
                yield f"{descriptor.name} {{"
                yield from (f"  {line}" for line in inner)
                yield "}"


_SINGULAR = (Message, int, float, str, bytes)


def _value(descriptor: Any, value: Any) -> str:
    if descriptor.enum_type is not None:
        return str(descriptor.enum_type.values_by_number[value].name)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | bytes):
        raw = value.encode() if isinstance(value, str) else value
        # Single quotes need no escape between double ones.
        return '"' + text_encoding.CEscape(raw, as_utf8=True).replace("\\'", "'") + '"'
    if descriptor.cpp_type == descriptor.CPPTYPE_FLOAT:
        return str(np.float32(value)).removesuffix(".0")
    return str(value)


def _read(path: str | Path) -> str:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ParseError(unreadable(path, error)) from None
    require(
        b"\0" not in data,
        f"{path}: not a text file; weights (.caffemodel) are given beside the net, not instead "
        "of it",
        ParseError,
    )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Comments in older encodings are common, and Caffe reads over them.
        text = data.decode("latin-1")
    return re.sub("\r\n?", "\n", text)


def _parse(text: str, message: AnyMessage, file: str) -> AnyMessage:
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        line = error.GetLine() or 0
        what = re.sub(r"^\d+:\d+ : ", "", str(error))
        if line:
            quoted = text.split("\n")[line - 1]
            what = what.removeprefix(f"'{quoted}': ")
        raise ParseError(_explain(what), Place(file, line)) from None
    return message


_NO_FIELD = re.compile(r'Message type "netspec\.(\w+)" has no field named "(.+?)"')
_NO_VALUE = re.compile(r'Enum type "([\w.]+)" has no value (?:named|with number) "?(.+?)"?\.?$')
_REWORDED = (
    (r'Expected "([}>])"', r'a "\1" is missing before the end of the file'),
    (r"Expected identifier or number, got ([}>])", r'a "\1" too many'),
    (r"Expected identifier or number, got (.*)", r"the name of a field is needed, not \1"),
    (r"Expected string but found: '([\w.-]+)'", r'a string is needed; write it in quotes: "\1"'),
    (r"Expected string but found: '(.*)'", r"a string is needed, not \1"),
    (r"Couldn't parse integer: (.*)", r"an integer is needed, not \1"),
    (r"Couldn't parse float: (.*)", r"a number is needed, not \1"),
    (
        r'Message type "netspec\.(\w+)" should not have multiple "(\w+)" fields',
        r'"\2" is given twice in \1',
    ),
)


def _explain(what: str) -> str:
    """Protobuf's complaint in our users' words, with the nearest name that exists."""
    if found := _NO_FIELD.search(what):
        # Imported here, and below: the layers load JAX.
        from netspec.layers.fork_names import fork_of_field

        owner, name = found.groups()
        hint = fork_of_field(owner, name) or _where_field_belongs(owner, name)
        return f'unknown field "{name}" in {owner}{hint}'
    if found := _NO_VALUE.search(what):
        owner, name = found.groups()
        values = [value.name for value in _POOL.FindEnumTypeByName(owner).values]
        short = owner.split(".", 1)[-1]
        if short == "V1LayerParameter.LayerType":
            from netspec.layers.fork_names import fork_of_type

            if hint := fork_of_type(name):
                return f'unknown {short} "{name}"{hint}'
        if name in values:
            return f"{short} {name} is written without quotes"
        listing = f" ({', '.join(values)})" if len(values) <= 8 else ""
        return f'unknown {short} "{name}"{nearest(name, values)}{listing}'
    what = what.rstrip(".")
    for pattern, ours in _REWORDED:
        if found := re.fullmatch(pattern, what):
            return found.expand(ours)
    return what[:1].lower() + what[1:]


_POOL = NetParameter.DESCRIPTOR.file.pool
_ROOTS: dict[str, tuple[str, type[Message]]] = {
    "NetParameter": ("net", NetParameter),
    "SolverParameter": ("solver", SolverParameter),
}


def _where_field_belongs(owner: str, name: str) -> str:
    """What to do about a field that message ``owner`` lacks; empty if nothing comes to mind."""
    for root, (kind, message) in _ROOTS.items():
        if owner in _ROOTS and owner != root and name in message.DESCRIPTOR.fields_by_name:
            return f"; it belongs in a {kind}, but this file is read as a {_ROOTS[owner][0]}"
    if name in ("layer", "layers") and owner not in _ROOTS:
        return '; is a "}" missing before it?'
    if name in LayerParameter.DESCRIPTOR.fields_by_name and owner not in _ROOTS:
        return '; it belongs in layer: is a "}" missing before it?'
    fields = _POOL.FindMessageTypeByName(f"netspec.{owner}").fields
    homes = [
        field.name
        for field in fields
        if field.message_type is not None
        and field.name != "layers"
        and name in field.message_type.fields_by_name
    ]
    if 0 < len(homes) <= 4:
        return f"; it belongs in {' or '.join(homes)}"
    return nearest(name, [field.name for field in fields])


_TOKEN = re.compile(
    r"""(?P<skip>\#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<name>[A-Za-z_]\w*)|(?P<open>[{<])|(?P<close>[}>])|(?P<line>\n)"""
)


# What follows a field's name, and no value of an enum.
_SETS = re.compile(r"\s*[:{<]")


def _field_lines(text: str) -> dict[str, int]:
    """Field -> the line where a message first sets it, for the fields outside all blocks."""
    lines: dict[str, int] = {}
    line, depth = 1, 0
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        line += kind == "line"
        depth += (kind == "open") - (kind == "close")
        if kind == "name" and not depth and _SETS.match(text, token.end()):
            lines.setdefault(token.group(), line)
    return lines


def _layer_lines(text: str) -> Iterator[tuple[tuple[tuple[str, int], ...], int]]:
    """For each ``layer`` block: the blocks it lies in (name, how many-th), and its line."""
    line, name, name_line = 1, "", 0
    path: list[tuple[str, int]] = []
    seen: dict[tuple[tuple[str, int], ...], dict[str, int]] = {}
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "line":
            line += 1
        elif kind == "name":
            name, name_line = token.group(), line
        elif kind == "open":
            outer = tuple(path)
            if name in ("layer", "layers"):
                yield outer, name_line or line
            counts = seen.setdefault(outer, {})
            path.append((name, counts.get(name, 0)))
            counts[name] = counts.get(name, 0) + 1
        elif kind == "close" and path:
            # In a list, `layer [{ ... }, { ... }]`, the next block goes by the same name.
            name, name_line = path.pop()[0], 0
