import ast
import csv
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from netspec.caffe.proto import caffe_pb2
from netspec.layers import REGISTRY
from netspec.proto import layers_pb2, legacy_pb2, net_pb2, solver_pb2

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
MODULES = {
    "layers": layers_pb2,
    "legacy": legacy_pb2,
    "net": net_pb2,
    "solver": solver_pb2,
}
Field = descriptor_pb2.FieldDescriptorProto


class Row(NamedTuple):
    """A field or enum value, as ``caffe-schema.tsv`` has them."""

    message: str
    kind: str
    number: str
    name: str
    label: str = ""
    type: str = ""
    default: str = ""
    options: str = ""


# What Caffe 1.0 lacks: NVCaffe's raw arrays, and published messages of our own layer types, whose
# numbers must not change.
OWN = "SegmentationDataParameter"
EXTENSIONS = {
    Row("BlobProto", "field", "10", "raw_data_type", "optional", "BlobProto.RawType"),
    Row("BlobProto", "field", "12", "raw_data", "optional", "bytes"),
    Row("BlobProto.RawType", "enum", "0", "DOUBLE"),
    Row("BlobProto.RawType", "enum", "1", "FLOAT"),
    Row("BlobProto.RawType", "enum", "2", "FLOAT16"),
    Row("BlobProto.RawType", "enum", "3", "INT"),
    Row("BlobProto.RawType", "enum", "4", "UINT"),
    Row("LayerParameter", "field", "20001", "segmentation_data_param", "optional", OWN),
    Row(OWN, "field", "1", "source", "optional", "string"),
    Row(OWN, "field", "2", "image_folder", "optional", "string"),
    Row(OWN, "field", "3", "label_folder", "optional", "string"),
    Row(OWN, "field", "4", "image_suffix", "optional", "string", ".jpg"),
    Row(OWN, "field", "5", "label_suffix", "optional", "string", ".png"),
    Row(OWN, "field", "6", "root_folder", "optional", "string"),
    Row(OWN, "field", "7", "batch_size", "optional", "uint32", "1"),
    Row(OWN, "field", "8", "shuffle", "optional", "bool", "false"),
    Row(OWN, "field", "9", "mean_value", "repeated", "double"),
    Row(OWN, "field", "10", "mean_file", "optional", "string"),
    Row(OWN, "field", "11", "scale", "optional", "float", "1.0"),
    Row(OWN, "field", "12", "crop_size", "repeated", "uint32"),
    Row(OWN, "field", "13", "ignore_label", "optional", "int32", "255"),
    Row(OWN, "field", "14", "mirror", "optional", "bool", "false"),
    Row(OWN, "field", "15", "min_scale", "optional", "float", "1.0"),
    Row(OWN, "field", "16", "max_scale", "optional", "float", "1.0"),
    Row(OWN, "field", "17", "brightness", "optional", "float", "0.0"),
    Row(OWN, "field", "18", "contrast", "optional", "float", "0.0"),
    Row(OWN, "field", "19", "saturation", "optional", "float", "0.0"),
}


def canonical_float(text: str) -> str:
    """One spelling for one float32: compilers differ in how they write 1e-09."""
    return str(np.float32(text))


def file_proto(serialized: bytes) -> descriptor_pb2.FileDescriptorProto:
    """The file's descriptor, less what depends on the age of its compiler."""
    file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
    for message in file.message_type:
        for field in message.field:
            field.ClearField("json_name")
            if field.type == Field.TYPE_FLOAT and field.default_value:
                field.default_value = canonical_float(field.default_value)
    return file


def enum_rows(enum: descriptor_pb2.EnumDescriptorProto, scope: str) -> Iterator[Row]:
    for value in enum.value:
        yield Row(scope + enum.name, "enum", str(value.number), value.name)


def field_row(field: Field, message: str) -> Row:
    return Row(
        message,
        "field",
        str(field.number),
        field.name,
        Field.Label.Name(field.label).removeprefix("LABEL_").lower(),
        field.type_name.removeprefix(".netspec.")
        or Field.Type.Name(field.type).removeprefix("TYPE_").lower(),
        field.default_value,
        "packed" if field.options.packed else "",
    )


def message_rows(message: descriptor_pb2.DescriptorProto, scope: str = "") -> Iterator[Row]:
    name = scope + message.name
    for field in message.field:
        yield field_row(field, name)
    for enum in message.enum_type:
        yield from enum_rows(enum, f"{name}.")
    for nested in message.nested_type:
        yield from message_rows(nested, f"{name}.")


def rows_of(module: ModuleType) -> Iterator[Row]:
    file = file_proto(module.DESCRIPTOR.serialized_pb)
    for enum in file.enum_type:
        yield from enum_rows(enum, "")
    for message in file.message_type:
        yield from message_rows(message)


def by_message(rows: Iterator[Row]) -> dict[str, list[Row]]:
    grouped = defaultdict(list)
    for row in sorted(rows):
        grouped[row.message].append(row)
    return grouped


def read_table() -> Iterator[Row]:
    with (ROOT / "tests/caffe-schema.tsv").open(newline="") as file:
        for record in csv.DictReader(file, delimiter="\t"):
            row = Row(**record)
            if row.type == "float" and row.default:
                row = row._replace(default=canonical_float(row.default))
            yield row


CAFFE = by_message(read_table())
OURS = by_message(chain.from_iterable(map(rows_of, MODULES.values())))


# The fields of layer types that are not in Caffe; test_layer_contract.py says more of them.
OWN_FIELDS = {layer.param_field for layer in REGISTRY.values() if "Not in Caffe." in layer.__doc__}
OWN_MESSAGES = {row.type for row in OURS["LayerParameter"] if row.name in OWN_FIELDS}


def is_own(row: Row) -> bool:
    """Whether a row belongs to a layer type that is not in Caffe, and to no message of Caffe's."""
    if row.message == "LayerParameter":
        return row.name in OWN_FIELDS
    return row.message.split(".")[0] in OWN_MESSAGES - {OWN}


def test_extensions_are_there() -> None:
    assert set(chain.from_iterable(OURS.values())) >= EXTENSIONS


@pytest.mark.parametrize("message", sorted(CAFFE.keys() | OURS.keys()))
def test_schema_is_that_of_caffe(message: str) -> None:
    extensions = [row for row in OURS.get(message, []) if row in EXTENSIONS or is_own(row)]
    assert OURS.get(message, []) == sorted(CAFFE.get(message, []) + extensions)


def test_modules_are_those_of_the_sources(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="needs grpcio-tools")
    output = tmp_path / "descriptors"
    sources = [f"netspec/proto/{path.name}" for path in (ROOT / "protos").glob("*.proto")]
    options = [f"-Inetspec/proto={ROOT / 'protos'}", f"--descriptor_set_out={output}"]
    assert protoc.main(["protoc", *options, *sources]) == 0

    compiled = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes()).file
    fresh = {file.name: file_proto(file.SerializeToString()) for file in compiled}
    committed = {
        f"netspec/proto/{name}.proto": file_proto(module.DESCRIPTOR.serialized_pb)
        for name, module in MODULES.items()
    }
    assert fresh == committed, "run tools/protos.py"


@pytest.mark.parametrize("name", MODULES)
def test_stubs_are_those_of_the_modules(name: str) -> None:
    stub = ast.parse((ROOT / f"netspec/proto/{name}_pb2.pyi").read_text())
    slots = {
        node.name: ast.literal_eval(statement.value)
        for node in stub.body
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.Assign)
    }
    file = MODULES[name].DESCRIPTOR
    fields = {
        message.name: tuple(field.name for field in message.fields)
        for message in file.message_types_by_name.values()
    }
    assert slots == fields | dict.fromkeys(file.enum_types_by_name, ())


def test_caffe_pb2_has_every_name() -> None:
    for module in MODULES.values():
        file = module.DESCRIPTOR
        names = [*file.message_types_by_name, *file.enum_types_by_name]
        for enum in file.enum_types_by_name.values():
            names += enum.values_by_name
        for name in names:
            assert getattr(caffe_pb2, name) is getattr(module, name)
    assert (caffe_pb2.TRAIN, caffe_pb2.TEST) == (0, 1)
    assert caffe_pb2.Phase.Name(caffe_pb2.TEST) == "TEST"
    assert caffe_pb2.V1LayerParameter.DECONVOLUTION == 39


def scalar(field: FieldDescriptor) -> object:
    """A value of the field's type, and not its default."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return b"\x00\xff" if field.type == FieldDescriptor.TYPE_BYTES else 'a "b"\n\\'
        case FieldDescriptor.CPPTYPE_ENUM:
            return field.enum_type.values[-1].number
        case FieldDescriptor.CPPTYPE_BOOL:
            return not field.default_value
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return 0.1
        case _:
            return 7


def fill(message: Message, inside: tuple[Descriptor, ...] = ()) -> None:
    """Set every field of ``message`` and of the messages in it, once along each path."""
    inside = (*inside, message.DESCRIPTOR)
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        repeated = isinstance(field.default_value, list)
        if field.message_type is None:
            if repeated:
                value.extend([scalar(field)] * 2)
            else:
                setattr(message, field.name, scalar(field))
        elif field.message_type not in inside:
            fill(value.add() if repeated else value, inside)


@pytest.mark.parametrize(
    "kind", [caffe_pb2.NetParameter, caffe_pb2.SolverParameter, caffe_pb2.SolverState]
)
def test_every_field_survives_binary_and_text(kind: type[Message]) -> None:
    message = kind()
    fill(message)
    assert message.IsInitialized()
    assert kind.FromString(message.SerializeToString()) == message
    assert text_format.Parse(text_format.MessageToString(message), kind()) == message


def test_bytes_are_those_of_caffe() -> None:
    """Numbers, wire types and packing, spelled out by hand."""
    net = text_format.Parse(
        'name: "n" layer { name: "c" blobs { shape { dim: 2 dim: 300 } data: 1 data: -2 } '
        "convolution_param { kernel_size: 3 kernel_size: 5 dilation: 2 } }",
        caffe_pb2.NetParameter(),
    )
    blob = b"\x2a\x08\x00\x00\x80\x3f\x00\x00\x00\xc0\x3a\x05\x0a\x03\x02\xac\x02"
    window = b"\x20\x03\x20\x05\x90\x01\x02"
    layer = b"\x0a\x01c\x3a\x11" + blob + b"\xd2\x06\x07" + window
    assert net.SerializeToString() == b"\x0a\x01n\xa2\x06" + bytes([len(layer)]) + layer


FILES = {
    ".caffemodel": caffe_pb2.NetParameter,
    ".solverstate": caffe_pb2.SolverState,
    ".binaryproto": caffe_pb2.BlobProto,
}
# The project's own, and more where they are; forks' have fields that Caffe 1.0 does not know.
WRITTEN_BY_CAFFE = sorted(
    path
    for folder in (Path(__file__).parent / "golden", SHARED / "golden")
    for path in folder.rglob("*")
    if path.suffix in FILES and "real" not in path.parts
)


@pytest.mark.parametrize(
    "path",
    WRITTEN_BY_CAFFE,
    ids=lambda path: f"{path.parents[2].name}-{path.parent.name}-{path.name}",
)
def test_files_written_by_caffe(path: Path) -> None:
    kind = FILES[path.suffix]
    content = path.read_bytes()
    message = kind.FromString(content)
    message.DiscardUnknownFields()
    assert message.SerializeToString() == content
    if len(content) < 1 << 20:  # as text, a larger one takes seconds
        assert text_format.Parse(text_format.MessageToString(message), kind()) == message
