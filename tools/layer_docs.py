"""Write docs/layers, a page a family of layer types: ``python tools/layer_docs.py``.

All that a page says comes from the class of the type and from its message in ``protos/``.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from netspec.inspect.layer_catalogue import CatalogueRow, blob_names, entries
from netspec.layers import FAMILIES, REGISTRY, Layer
from netspec.proto.layers_pb2 import LayerParameter

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "layers"
_TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


def pages() -> dict[str, str]:
    """Each page's file name -> its text."""
    rows = list(entries())
    titles = {_name(family): _first_line(family.__doc__ or "") for family in FAMILIES}
    found = {
        f"{family}.md": _page(family, title, [row for row in rows if row.family == family])
        for family, title in titles.items()
    }
    listing = "\n".join(
        f"- [{family}]({family}.md): {_markdown(title)} "
        + ", ".join(f"[{row.type}]({family}.md#{row.type.lower()})" for row in rows_of)
        for family, title in titles.items()
        if (rows_of := [row for row in rows if row.family == family])
    )
    head = "# Layer types\n\nA page a family, written by `tools/layer_docs.py` from the classes."
    tail = "[Adding a layer](../adding-a-layer.md) shows what a type of your own takes."
    return {"README.md": f"{head}\n\n{listing}\n\n{tail}\n", **found}


def _page(family: str, title: str, rows: list[CatalogueRow]) -> str:
    head = f"# {family}\n\n{_markdown(title)}\n\n[All families](README.md)"
    return "\n\n".join([head, *(section(REGISTRY[row.type], row) for row in rows)]) + "\n"


def section(layer: type[Layer], row: CatalogueRow) -> str:
    """What a page says of one type."""
    parts = [
        f"## {layer.__name__}",
        f"`{layer.formula}`",
        _markdown(inspect.cleandoc(layer.__doc__ or "")),
        "\n".join(_facts(layer, row)),
    ]
    if layer.param_field:
        message = message_of(layer.param_field)
        parts.append(f"`{layer.param_field}`, a {message.name}:\n\n{_table(message)}")
    else:
        parts.append("It has no settings of its own.")
    return "\n\n".join(parts)


def message_of(field: str) -> Descriptor:
    """The message in a field of LayerParameter."""
    message = LayerParameter.DESCRIPTOR.fields_by_name[field].message_type
    if message is None:
        raise TypeError(f"{field} holds no message")
    return message


def _facts(layer: type[Layer], row: CatalogueRow) -> Iterator[str]:
    yield f"- bottoms: {row.bottoms}; tops: {row.tops}"
    names = blob_names(layer)
    yield f"- learned blobs: {', '.join(names) or 'none'}"
    if layer.traits.is_loss:
        yield "- a loss: its first top has `loss_weight` 1 unless the prototxt says otherwise"
    if layer.traits.data_dependent:
        yield "- a top's shape depends on values, so that a net with it runs op by op"


def _table(message: Descriptor) -> str:
    rows = ["| field | type | default |", "|---|---|---|"]
    rows += [f"| `{field.name}` | {_type(field)} | {_default(field)} |" for field in message.fields]
    return "\n".join(rows)


def _type(field: FieldDescriptor) -> str:
    if field.enum_type:
        name = " or ".join(value.name for value in field.enum_type.values)
    else:
        name = field.message_type.name if field.message_type else _TYPES[field.type]
    return f"{name}, repeated" if field.is_repeated else name


def _default(field: FieldDescriptor) -> str:
    if not field.has_default_value:
        return ""
    if field.enum_type:
        return field.enum_type.values_by_number[field.default_value].name
    if isinstance(field.default_value, bool):
        return str(field.default_value).lower()
    if isinstance(field.default_value, str):
        return f'`"{field.default_value}"`'
    return f"{field.default_value:g}"


def _markdown(docstring: str) -> str:
    """A docstring's text: code in single backticks, and marks that Markdown would take escaped."""
    parts = re.split(r"(``.*?``)", docstring)
    return "".join(
        part[1:-1] if part.startswith("``") else re.sub(r"([*<|]|\b_|_\b)", r"\\\1", part)
        for part in parts
    )


def _name(family: object) -> str:
    return str(getattr(family, "__name__", "")).rsplit(".", 1)[-1]


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0]


def main(folder: Path) -> None:
    """Write the pages into a folder, and remove those of families that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    written = pages()
    for path in folder.glob("*.md"):
        if path.name not in written:
            path.unlink()
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
