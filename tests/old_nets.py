"""Old nets, and what upgrading makes of them."""

import pytest

from netspec.errors import GraphError
from netspec.frontend.prototxt import NetText, parse_net
from netspec.frontend.upgrade import upgrade
from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.net_pb2 import NetParameter


def upgraded(text: str) -> NetText:
    return upgrade(parse_net(text, "net.prototxt"))


def layer(text: str) -> LayerParameter:
    """The only layer of an upgraded net."""
    (found,) = upgraded(text).message.layer
    return found


def message_of(text: str) -> NetParameter:
    return parse_net(text).message


def failure(text: str) -> str:
    with pytest.raises(GraphError) as error:
        upgraded(text)
    return str(error.value)
