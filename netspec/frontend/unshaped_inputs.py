"""Inputs that a net names by ``input:`` alone: old deploy prototxts state no shape for them."""

from __future__ import annotations

from collections.abc import Collection

from netspec.errors import Place
from netspec.frontend.prototxt import NetText
from netspec.proto.layers_pb2 import LayerParameter


def feed_unshaped_inputs(net: NetText, names: Collection[str]) -> NetText:
    """A net whose layers can read the inputs of these names, though nothing states their shape.

    net: in the current schema, of one state. names: of the ``input`` fields as they were written.
    Each one that a layer reads and no layer above it makes becomes a blob of an Input layer, whose
    shape is given apart. Differs: Caffe has no such blob.
    """
    made: set[str] = set()
    unshaped: list[str] = []
    for layer in net.message.layer:
        unshaped += [name for name in layer.bottom if name in names and name not in made]
        made.update(unshaped, layer.top)
    if not unshaped:
        return net
    fed = LayerParameter(name="input", type="Input", top=dict.fromkeys(unshaped))
    places = zip(net.message.layer, net.places, strict=True)
    return net.with_layers([(fed, Place(net.file, 1)), *places])
