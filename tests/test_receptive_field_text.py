from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import infer
from netspec.inspect.receptive_field_text import table
from netspec.spec import NetSpec
from netspec.spec import layers as L


def test_each_input_has_its_table() -> None:
    n = NetSpec()
    n.left = L.Input(shape={"dim": [1, 1, 30, 30]})
    n.right = L.Input(shape={"dim": [1, 1, 30, 30]})
    n.pool = L.Pooling(n.left, kernel_size=2, stride=2)
    n.up = L.Deconvolution(n.pool, num_output=1, kernel_size=[3, 1], stride=[3, 1])
    n.conv = L.Convolution(n.right, num_output=1, kernel_size=[3, 2])
    n.both = L.Eltwise(n.left, L.Power(n.right))
    n.ip = L.InnerProduct(n.both, num_output=2)
    graph = connect(parse_net(str(n.to_proto()), "net.prototxt"))
    assert table(infer(graph, {}, "known")) == (
        "in pixels of left\n"
        "\n"
        "blob  stride  field    offset\n"
        "----  ------  -----  --------\n"
        "left       1      1         0\n"
        "pool       2      2       0.5\n"
        "up     2/3x2      2  -1/6x0.5\n"
        "both       1      1         0\n"
        "\n"
        'ip sees all of "left": layer "ip" (InnerProduct)\n'
        "\n"
        "in pixels of right\n"
        "\n"
        "blob    stride  field  offset\n"
        "------  ------  -----  ------\n"
        "right        1      1       0\n"
        "conv         1    3x2   1x0.5\n"
        "Power1       1      1       0\n"
        "both         1      1       0\n"
        "\n"
        'ip sees all of "right": layer "ip" (InnerProduct)\n'
        "\n"
        "no least pad: nothing is cut to the size of something else"
    )


def test_a_fed_blob_sees_itself_if_asked() -> None:
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 30, 30]})
    n.pool = L.Pooling(n.data, kernel_size=2, stride=2)
    lines = table(infer(connect(parse_net(str(n.to_proto()))), {}, "known"), "data").splitlines()
    assert lines[:5] == [
        "in pixels of data",
        "",
        "blob  stride  field  offset",
        "----  ------  -----  ------",
        "data       1      1       0",
    ]
