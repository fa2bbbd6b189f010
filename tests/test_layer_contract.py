"""Every layer type has all that a type needs; what one lacks is listed by place."""

import re
from pathlib import Path

import pytest
from cases import CASES
from reference import RULES
from test_proto import CAFFE

from netspec.layers import FAMILIES, REGISTRY, Layer
from netspec.layers.fork_names import FORKS_OF_FIELDS, FORKS_OF_TYPES
from netspec.proto.layers_pb2 import LayerParameter
from netspec.sources.base import REGISTRY as SOURCES

ROOT = Path(__file__).resolve().parents[1]
FAMILY_NAMES = {family.__name__.rsplit(".", 1)[-1] for family in FAMILIES}
# Types that the battery cannot run, and the file that tests them instead: one is not compiled, one
# writes a file, one is written by users.
TESTED_IN = {
    "Filter": "test_filter.py",
    "HDF5Output": "test_hdf5_output.py",
    "Python": "test_python.py",
}
IN_CAFFE = {row.name for row in CAFFE["LayerParameter"]}
# From here on neither Caffe nor a fork of it has fields.
FIRST_OWN = 20001


def missing(layer: type[Layer]) -> list[str]:
    """The places where a layer type is forgotten, each with what has to stand there."""
    checks = (_in_class(layer), _in_protos(layer), _in_tests(layer), _in_docs(layer))
    return [each for found in checks for each in found]


def _in_class(layer: type[Layer]) -> list[str]:
    name, doc = layer.__name__, layer.__doc__ or ""
    found = []
    if not re.search(r"Caffe: ``\w+\.(cpp|hpp|cu)``|Not in Caffe\.", doc):
        found.append("docstring: its source, ``Caffe: x_layer.cpp`` or ``Not in Caffe.``")
    if not layer.formula:
        found.append("class: a formula")
    if layer.family not in FAMILY_NAMES:
        found.append(f"netspec/layers/__init__.py: the family {layer.family} in FAMILIES")
    if name in FORKS_OF_TYPES:
        found.append(f"netspec/layers/fork_names.py: no type {name}, since it is registered")
    return found


def _in_protos(layer: type[Layer]) -> list[str]:
    field = layer.param_field
    if field is None:
        return []
    known = LayerParameter.DESCRIPTOR.fields_by_name.get(field)
    if known is None:
        return [f"protos/layers.proto: {field} in LayerParameter"]
    found = []
    if field not in IN_CAFFE and known.number < FIRST_OWN:
        found.append(f"protos/layers.proto: a number from {FIRST_OWN} on for {field}")
    if ("LayerParameter", field) in FORKS_OF_FIELDS:
        found.append(f"netspec/layers/fork_names.py: no field {field}, since it is known")
    return found


def _in_tests(layer: type[Layer]) -> list[str]:
    name = layer.__name__
    if name in TESTED_IN:
        path = ROOT / "tests" / TESTED_IN[name]
        tested = path.exists() and name in path.read_text(encoding="utf-8")
        return [] if tested else [f"tests/{path.name}: a test of {name}"]
    if layer.traits.is_source:
        read = layer.traits.is_input or name in SOURCES
        return [] if read else [f"netspec/sources/readers: what reads {name}"]
    rows = [case for case in CASES if name in {node.type for node in case.graph.nodes}]
    found = [] if any(case.golden is None for case in rows) else [f"tests/cases: a row of {name}"]
    if name not in RULES and all(case.golden is None for case in rows):
        found.append(f"tests/reference: a rule of {name}, or an array of Caffe's in tests/golden")
    return found


def _in_docs(layer: type[Layer]) -> list[str]:
    name, family = layer.__name__, layer.family
    page = ROOT / "docs" / "layers" / f"{family}.md"
    found = []
    if not page.exists() or f"\n## {name}\n" not in page.read_text(encoding="utf-8"):
        found.append(f"docs/layers/{family}.md: a section {name}; run tools/layer_docs.py")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if f"layers/{family}.md#{name.lower()})" not in readme:
        found.append(f"README.md: a row of {name}; run tools/readme.py")
    return found


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_type_lacks_nothing(name: str) -> None:
    assert REGISTRY[name].__name__ == name
    assert missing(REGISTRY[name]) == []


def test_a_planted_type_lacks_everything() -> None:
    planted = type("Permute", (Layer,), {"param_field": "permute_param", "family": "nowhere"})
    assert missing(planted) == [
        "docstring: its source, ``Caffe: x_layer.cpp`` or ``Not in Caffe.``",
        "class: a formula",
        "netspec/layers/__init__.py: the family nowhere in FAMILIES",
        "netspec/layers/fork_names.py: no type Permute, since it is registered",
        "protos/layers.proto: permute_param in LayerParameter",
        "tests/cases: a row of Permute",
        "tests/reference: a rule of Permute, or an array of Caffe's in tests/golden",
        "docs/layers/nowhere.md: a section Permute; run tools/layer_docs.py",
        "README.md: a row of Permute; run tools/readme.py",
    ]


def test_a_planted_source_lacks_a_reader() -> None:
    planted = type("Planted", (REGISTRY["HDF5Data"],), {})
    assert "netspec/sources/readers: what reads Planted" in missing(planted)


def test_the_tables_of_exceptions_are_not_stale() -> None:
    assert TESTED_IN.keys() <= REGISTRY.keys()
    fields = {("LayerParameter", name) for name in LayerParameter.DESCRIPTOR.fields_by_name}
    assert sorted(FORKS_OF_FIELDS.keys() & fields) == []
    assert sorted(FORKS_OF_TYPES.keys() & REGISTRY.keys()) == []
