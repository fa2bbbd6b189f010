"""Prototxt text to messages and back; every layer remembers the line where it begins.

Protobuf's parser forgets lines, so `netspec.frontend.text_scan` finds where each layer opens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from google.protobuf import text_encoding, text_format
from google.protobuf.message import DecodeError, Message

from netspec.errors import NetSpecError, ParseError, Place, blame, require, unreadable
from netspec.formats.regular import read_bytes
from netspec.formats.text import decoded, encoding_of
from netspec.frontend.parse_errors import explain
from netspec.frontend.text_scan import (
    TOKEN,
    field_at,
    field_lines,
    join_signs,
    layer_lines,
    with_values,
)
from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.net_pb2 import NetParameter
from netspec.proto.solver_pb2 import SolverParameter

AnyMessage = TypeVar("AnyMessage", bound=Message)


@dataclass(frozen=True)
class NetText:
    """A net as read: its message, and for each of its layers the place where it begins.

    ``places`` runs parallel to ``message.layer``, and ``message.layers`` before the upgrade.
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
        message.ParseFromString(read_bytes(path))
    except OSError as error:
        raise ParseError(unreadable(path, error)) from None
    except DecodeError:
        raise ParseError("is no binary net; is it a .caffemodel?", Place(str(path))) from None
    require(
        _texts_are_whole(message),
        f"{path}: is damaged, or no binary net: a text in it is not UTF-8",
        ParseError,
    )
    places = (Place(str(path)),) * (len(message.layer) + len(message.layers))
    return _complete(NetText(message, str(path), places))


def _texts_are_whole(message: Message) -> bool:
    """Whether all its texts are UTF-8: protobuf parses others too, and then they are bytes."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            inner = [value] if isinstance(value, Message) else value
            if not all(map(_texts_are_whole, inner)):
                return False
        elif descriptor.type == descriptor.TYPE_STRING:
            texts = [value] if isinstance(value, str | bytes) else value
            if not all(isinstance(text, str) for text in texts):
                return False
    return True


def parse_net(text: str, file: str = "<text>") -> NetText:
    """Parse a net; ``file`` is what error messages call it. Raises ParseError."""
    message = _parse(text, NetParameter(), file)
    lines = [line for path, line in layer_lines(text) if not path]
    return _complete(NetText(message, file, tuple(Place(file, line) for line in lines)))


def read_solver(path: str | Path) -> SolverText:
    """Read a solver prototxt; raises ParseError."""
    text, file = _read(path), str(path)
    message = _parse(text, SolverParameter(), file)
    places: dict[tuple[str, int], list[Place]] = {}
    for outer, line in layer_lines(text):
        if len(outer) == 1:
            places.setdefault(outer[0], []).append(Place(file, line))
    nets: dict[tuple[str, int], NetText] = {}
    for name in ("net_param", "train_net_param"):
        if message.HasField(name):
            at = (name, 0)
            inner = getattr(message, name)
            nets[at] = _complete(NetText(inner, file, tuple(places.get(at, ()))))
    for i, net in enumerate(message.test_net_param):
        at = ("test_net_param", i)
        nets[at] = _complete(NetText(net, file, tuple(places.get(at, ()))))
    return SolverText(message, file, nets, field_lines(text))


def is_solver(path: str | Path) -> bool:
    """Whether a prototxt file is a solver's rather than a net's, by the fields it sets."""
    text = TOKEN.sub(lambda token: " " if token["skip"] else token.group(), _read(path))
    outermost = re.split(r"[{<]", text, maxsplit=1)[0]
    known = SolverParameter.DESCRIPTOR.fields_by_name
    names = re.findall(r"\b[A-Za-z_]\w*+(?=\s*:)", outermost)
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
    edited = with_values(text, changed)
    try:
        done = _parse(edited, SolverParameter(), str(path)) == message
    except ParseError:
        done = False
    return edited if done else write(message)


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
        data = read_bytes(path)
    except OSError as error:
        raise ParseError(unreadable(path, error)) from None
    encoding, mark = encoding_of(data)
    try:
        text = decoded(data)
    except UnicodeDecodeError as error:
        require(
            encoding == "utf-8",
            f"{path}: begins as {encoding.upper()} text, but is damaged at byte "
            f"{mark + error.start}; save it as UTF-8",
            ParseError,
        )
        # Comments in older encodings are common, and Caffe reads over them.
        text = decoded(data[mark:].decode("latin-1").encode())
    require(
        "\0" not in text,
        f"{path}: not a text file; weights (.caffemodel) are given beside the net, not instead "
        "of it",
        ParseError,
    )
    return text


def who(spec: LayerParameter) -> str:
    """How messages name a layer: ``layer "score" (Crop)``."""
    return f'layer "{spec.name}" ({spec.type})' if spec.type else f'layer "{spec.name}"'


def _complete(net: NetText) -> NetText:
    """The same net; raises ParseError if a layer leaves out a field that the schema requires."""
    layer: Any
    for layer, place in zip(net.message.layer, net.places, strict=False):
        missing = [path.rpartition(".") for path in layer.FindInitializationErrors()]
        with blame(place, who(layer)):
            for block, _, _ in missing[:1]:
                names = " and ".join(name for other, _, name in missing if other == block)
                raise ParseError(f"{block} needs {names}")
    return net


def _parse(text: str, message: AnyMessage, file: str) -> AnyMessage:
    text = join_signs(text)
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        line, column = error.GetLine() or 0, error.GetColumn() or 0
        what, quoted = re.sub(r"^\d+:\d+ : ", "", str(error)), ""
        if line:
            quoted = text.split("\n")[line - 1]
            what = what.removeprefix(f"'{quoted}': ")
        found = field_at(text, line, column) if line else ""
        raise ParseError(explain(what, quoted, found), Place(file, line)) from None
    return message
