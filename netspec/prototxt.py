"""Prototxt text to messages and back; every layer remembers the line where it begins.

Protobuf's parser forgets lines, so a quick scan beside it finds where each layer opens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from netspec.errors import ParseError, Place, nearest, unreadable
from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.net_pb2 import NetParameter
from netspec.proto.solver_pb2 import SolverParameter

AnyMessage = TypeVar("AnyMessage", bound=Message)


@dataclass(frozen=True)
class NetText:
    """A net as read: its message, and for each of its layers the place where it begins.

    ``places`` runs parallel to ``message.layer`` (to ``message.layers`` before the upgrade).
    """

    message: NetParameter
    file: str
    places: tuple[Place, ...]

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
    """A solver as read; ``nets`` holds the nets written inside it, by field and index."""

    message: SolverParameter
    file: str
    nets: dict[tuple[str, int], NetText] = field(default_factory=dict)


def read_net(path: str | Path) -> NetText:
    """Read a net prototxt; raises ParseError."""
    return parse_net(_read(path), str(path))


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
    return SolverText(message, file, nets)


def is_solver(path: str | Path) -> bool:
    """Whether a prototxt file is a solver's rather than a net's, by the fields it sets."""
    text = _TOKEN.sub(lambda token: " " if token["skip"] else token.group(), _read(path))
    outermost = re.split(r"[{<]", text, maxsplit=1)[0]
    known = SolverParameter.DESCRIPTOR.fields_by_name
    names = re.findall(r"[A-Za-z_]\w*(?=\s*:)", outermost)
    return any(name in known for name in names if name not in NetParameter.DESCRIPTOR.fields_by_name)


def write(message: Message) -> str:
    """A message as prototxt, one field a line."""
    return text_format.MessageToString(message, use_short_repeated_primitives=False)


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ParseError(
            "not a text file; weights (.caffemodel) are given beside the net, not instead of it",
            Place(str(path)),
        ) from None
    except OSError as error:
        raise ParseError(unreadable(path, error)) from None


def _parse(text: str, message: AnyMessage, file: str) -> AnyMessage:
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        what = re.sub(r"^\d+:\d+ : ", "", str(error))
        raise ParseError(_explain(what), Place(file, error.GetLine() or 0)) from None
    return message


_NO_FIELD = re.compile(r'Message type "([\w.]+)" (?:has|should have) no? ?field named "(\w+)"')
_NO_VALUE = re.compile(r'Enum type "([\w.]+)" has no value named (\w+)')


def _explain(what: str) -> str:
    """Protobuf's complaint in our users' words, with the nearest name that exists."""
    if found := _NO_FIELD.search(what):
        owner, name = found.groups()
        known = _message_fields(owner.rsplit(".", 1)[-1])
        return f'unknown field "{name}" in {owner.rsplit(".", 1)[-1]}{nearest(name, known)}'
    if found := _NO_VALUE.search(what):
        owner, name = found.groups()
        values = [value.name for value in _POOL.FindEnumTypeByName(owner).values]
        short = owner.split(".", 1)[-1]
        listing = f" ({', '.join(values)})" if len(values) <= 8 else ""
        return f'unknown {short} "{name}"{nearest(name, values)}{listing}'
    return what[:1].lower() + what[1:]


_POOL = NetParameter.DESCRIPTOR.file.pool


def _message_fields(name: str) -> list[str]:
    return list(_POOL.FindMessageTypeByName(f"netspec.{name}").fields_by_name)


_TOKEN = re.compile(
    r"""(?P<skip>\#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<name>[A-Za-z_]\w*)|(?P<open>[{<])|(?P<close>[}>])|(?P<line>\n)"""
)


def _layer_lines(text: str) -> Iterator[tuple[tuple[tuple[str, int], ...], int]]:
    """For each ``layer`` block: the blocks it lies in (name, how many-th), and its line."""
    line, name, name_line = 1, "", 1
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
            if name in ("layer", "layers") and (not path or path[-1][0] not in ("layer", "layers")):
                yield outer, name_line
            counts = seen.setdefault(outer, {})
            path.append((name, counts.get(name, 0)))
            counts[name] = counts.get(name, 0) + 1
        elif kind == "close" and path:
            path.pop()
