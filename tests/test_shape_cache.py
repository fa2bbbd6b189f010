import pytest

from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shape_cache import shared_shapes

NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 3] } } }
layer { name: "y" type: "Power" bottom: "x" top: "y" power_param { power: 2 } }
"""


def test_equal_nets_have_one_object() -> None:
    one, other = (connect(parse_net(NET, "net.prototxt")) for _ in range(2))
    assert shared_shapes(one, {}) is shared_shapes(other, {})
    assert shared_shapes(one, {"x": (5, 3)}) is not shared_shapes(one, {})


@pytest.mark.parametrize(
    ("text", "file"),
    [(NET, "other.prototxt"), (NET.replace("power: 2", "power: 3"), "net.prototxt")],
)
def test_other_nets_have_their_own(text: str, file: str) -> None:
    one, other = connect(parse_net(NET, "net.prototxt")), connect(parse_net(text, file))
    first = shared_shapes(one, {})
    assert shared_shapes(other, {}) is not first
