"""What protobuf says of a text that it can't parse, in words for people who write prototxts."""

from __future__ import annotations

import re

from netspec.errors import nearest
from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.net_pb2 import NetParameter
from netspec.proto.solver_pb2 import SolverParameter

_NO_FIELD = re.compile(r'Message type "netspec\.(\w+)" has no field named "(.+?)"')
_NO_VALUE = re.compile(r'Enum type "([\w.]+)" has no value (?:named|with number) "?(.+?)"?\.?$')
# {for} is where the field is named, if it is known.
_REWORDED = (
    (r'Expected "([}>])"', r'a "\1" is missing before the end of the file'),
    (r"Expected identifier or number, got ([}>])", r'a "\1" too many'),
    (r"Expected identifier or number, got (.*)", r"the name of a field is needed, not \1"),
    (
        r"Expected string but found: '([\w.-]+)'",
        r'a string is needed{for}; write it in quotes: "\1"',
    ),
    (r"Expected string but found: '(.*)'", r"a string is needed{for}, not \1"),
    (r"Couldn't parse integer: (.*)", r"an integer is needed{for}, not \1"),
    (r"Couldn't parse float: (.*)", r"a number is needed{for}, not \1"),
    (r"Value out of range: (.*)", r"value out of range{for}: \1"),
    (r'Expected "true" or "false"', r'"true" or "false" is needed{for}'),
    (
        r'Message type "netspec\.(\w+)" should not have multiple "(\w+)" fields',
        r'"\2" is given twice in \1',
    ),
)


def explain(what: str, line: str = "", field: str = "") -> str:
    """Protobuf's complaint in our users' words, with the nearest name that exists.

    line: the line of the prototxt that it complains of. field: the field that is being set there,
    ``num_output in convolution_param``.
    """
    if found := _NO_FIELD.search(what):
        # Imported here, and below: the layers load JAX.
        from netspec.layers.fork_names import fork_of_field

        owner, name = found.groups()
        if not re.match(r"[A-Za-z_]", name):
            return _not_a_name(owner, name, line)
        hint = fork_of_field(owner, name) or _where_field_belongs(owner, name)
        return f'unknown field "{name}" in {owner}{hint}'
    if found := _NO_VALUE.search(what):
        owner, name = found.groups()
        values = [value.name for value in _POOL.FindEnumTypeByName(owner).values]
        short = owner.split(".", 1)[-1]
        if short == "V1LayerParameter.LayerType":
            from netspec.layers.fork_names import fork_of_type

            hint = "" if name in values else fork_of_type(name) or _current_form(name)
            if hint:
                return f'unknown {short} "{name}"{hint}'
        if name in values:
            return f"{short} {name} is written without quotes"
        listing = f" ({', '.join(values)})" if len(values) <= 8 else ""
        return f'unknown {short} "{name}"{nearest(name, values)}{listing}'
    what = what.rstrip(".")
    for pattern, ours in _REWORDED:
        if found := re.fullmatch(pattern, what):
            return found.expand(ours.replace("{for}", f" for {field}" if field else ""))
    return what[:1].lower() + what[1:]


def _current_form(v1: str) -> str:
    """What to do about a type that ``layers`` lacks and ``layer`` has; empty for any other."""
    from netspec.layers.registry import REGISTRY

    types = {name.lower(): name for name in REGISTRY}
    name = types.get(v1.replace("_", "").lower())
    return f'; only layer has it: write layer {{ type: "{name}" }}, all layers so' if name else ""


# ``device_id: 0,1``
_LIST = re.compile(r"\b(\w++)\s*+:\s*+([\w.+-]++(?:\s*+,\s*+[\w.+-]++)++)")


def _not_a_name(owner: str, name: str, line: str) -> str:
    """What to say of a value where a field should begin: mostly the second one of a list."""
    fields = _POOL.FindMessageTypeByName(f"netspec.{owner}").fields_by_name
    for field, values in _LIST.findall(line):
        if name not in re.split(r"[\s,]+", values)[1:] or field not in fields:
            continue
        known = fields[field]
        if known.default_value == []:
            return f"{field}: {values} is no list; write {field}: [{values}]"
        decimal = known.cpp_type in (known.CPPTYPE_FLOAT, known.CPPTYPE_DOUBLE)
        hint = "; decimals have a point" if decimal else ""
        if field == "device_id":
            hint = "; netspec solve --devices trains on several"
        return f"{field}: {values} is a list, but {field} takes one value{hint}"
    return f"the name of a field is needed, not {name}"


_POOL = NetParameter.DESCRIPTOR.file.pool
_ROOTS: dict[str, tuple[str, type[NetParameter] | type[SolverParameter]]] = {
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
