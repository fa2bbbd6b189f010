"""pycaffe's ``caffe.draw``: pictures of net messages, drawn by `netspec.inspect.draw`."""

from __future__ import annotations

from pathlib import Path

from netspec.errors import NetSpecError, Place, fail
from netspec.formats.atomic import atomic_write
from netspec.frontend.graph import Graph
from netspec.frontend.net_graph import graph_of
from netspec.frontend.phase import state_of
from netspec.frontend.prototxt import NetText
from netspec.inspect import draw
from netspec.layers.placeholder import create_or_stand_in
from netspec.proto.layers_pb2 import TEST, TRAIN
from netspec.proto.net_pb2 import NetParameter

_WRITERS = {"svg": draw.svg, "png": draw.png, "dot": draw.dot}


def draw_net(
    caffe_net: NetParameter,
    rankdir: str = "LR",
    ext: str = "png",
    phase: int | None = None,
    display_lrm: bool = False,
) -> bytes:
    """A net as a picture file: svg, png or dot.

    phase: TRAIN or TEST. Differs: None is TRAIN, as layers of two phases make the same blobs; the
    picture is laid out as it fits best, whatever ``rankdir`` says; frozen layers are always marked,
    and ``display_lrm`` adds nothing. Raises a NetSpecError.
    """
    if ext not in _WRITERS:
        fail(f'cannot draw "{ext}"; there are {", ".join(_WRITERS)}', NetSpecError)
    return _WRITERS[ext](_graph(caffe_net, phase))


def draw_net_to_file(
    caffe_net: NetParameter,
    filename: str,
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """As `draw_net`, to a file whose ending names the format."""
    picture = draw_net(caffe_net, rankdir, Path(filename).suffix[1:], phase, display_lrm)
    with atomic_write(filename) as part:
        part.write_bytes(picture)


def _graph(net: NetParameter, phase: int | None) -> Graph:
    message = NetParameter()
    message.CopyFrom(net)
    name = net.name or "net"
    written = NetText(message, name, (Place(name),) * (len(net.layer) + len(net.layers)))
    state = state_of(written, TEST if phase == TEST else TRAIN, 0, ())
    return graph_of(written, state, create_or_stand_in)
