"""Where fields and layers begin in a prototxt's text, found by tokens without parsing it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

# Possessive: a string of megabytes takes no stack of as many places to come back to.
TOKEN = re.compile(
    r"""(?P<skip>\#[^\n]*|"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"|'[^'\\\n]*+(?:\\.[^'\\\n]*+)*+')"""
    r"""|(?P<name>[A-Za-z_]\w*)|(?P<open>[{<])|(?P<close>[}>])|(?P<line>\n)"""
)


# A minus apart from its number; comments and strings are passed over.
_SIGN = re.compile(TOKEN.pattern + r"|-(?P<gap>(?:\s|\#[^\n]*(?:\n|$))+)")


def join_signs(text: str) -> str:
    """A text with ``- 1`` as ``-1``: protobuf in C++ reads both. No line moves."""
    return _SIGN.sub(lambda token: f"{token['gap']}-" if token["gap"] else token.group(), text)


# What follows a field's name, and no value of an enum.
_SETS = re.compile(r"\s*[:{<]")


def field_lines(text: str) -> dict[str, int]:
    """Field -> the line where a message first sets it, for the fields outside all blocks."""
    lines: dict[str, int] = {}
    line, depth = 1, 0
    for token in TOKEN.finditer(text):
        kind = token.lastgroup
        line += kind == "line"
        depth += (kind == "open") - (kind == "close")
        if kind == "name" and not depth and _SETS.match(text, token.end()):
            lines.setdefault(token.group(), line)
    return lines


def field_at(text: str, line: int, column: int) -> str:
    """The field that is set where a value stands: ``num_output in convolution_param``.

    line, column: of the value, from 1 on. Empty where no field is set before it.
    """
    end = sum(len(above) + 1 for above in text.split("\n")[: line - 1]) + column - 1
    name, path = "", []
    for token in TOKEN.finditer(text, 0, end):
        kind = token.lastgroup
        if kind == "name" and _SETS.match(text, token.end()):
            name = token.group()
        elif kind == "open":
            path.append(name)
        elif kind == "close" and path:
            name = path.pop()
    return f"{name} in {path[-1]}" if path else name


# The blocks that a block lies in: name, how many-th.
Nesting = tuple[tuple[str, int], ...]


def layer_lines(text: str) -> list[tuple[Nesting, int]]:
    """For each ``layer`` block, then for each ``layers`` block: where it lies, and its line."""
    found = sorted(_layer_blocks(text), key=lambda block: block[0] == "layers")
    return [(outer, line) for _, outer, line in found]


def _layer_blocks(text: str) -> Iterator[tuple[str, Nesting, int]]:
    """For each ``layer`` and ``layers`` block: its name, the blocks it lies in, and its line."""
    line, name, name_line = 1, "", 0
    path: list[tuple[str, int]] = []
    seen: dict[Nesting, dict[str, int]] = {}
    for token in TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "line":
            line += 1
        elif kind == "name":
            name, name_line = token.group(), line
        elif kind == "open":
            outer = tuple(path)
            if name in ("layer", "layers"):
                yield name, outer, name_line or line
            counts = seen.setdefault(outer, {})
            path.append((name, counts.get(name, 0)))
            counts[name] = counts.get(name, 0) + 1
        elif kind == "close" and path:
            # In a list, `layer [{ ... }, { ... }]`, the next block goes by the same name.
            name, name_line = path.pop()[0], 0


# The number that a field is set to, or a list of them.
_NUMBERS = re.compile(r"\s*:\s*(\[[^\]#]*\]|[-+.\w]+)")


def with_values(text: str, changed: Mapping[str, Sequence[str]]) -> str:
    """A text in which fields outside all blocks have other values; new ones come at the end."""
    left = {name: iter(values) for name, values in changed.items()}
    missing = dict(changed)
    parts, at, depth = [], 0, 0
    for token in TOKEN.finditer(text):
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
