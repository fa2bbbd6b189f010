"""Weights that go into a net, wholly or in part."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from weight_files import BLOBS, NET, arrays, blob, compiled, layer, same, written
from weight_files import net as net
from weight_files import other as other

from netspec.errors import WeightsError
from netspec.frontend.shapes import ParamKey
from netspec.proto.layers_pb2 import BlobProto, LayerParameter
from netspec.proto.net_pb2 import NetParameter
from netspec.runtime.module import Net
from netspec.weights.caffemodel import copy_into, read_weights, write_weights


def test_layers_of_one_side_only_are_left_alone(net: Net, other: Net, tmp_path: Path) -> None:
    before = arrays(other)
    file = NetParameter(
        layer=[
            layer("gone", blob([1])),
            layer("relu", type="ReLU"),
            layer("conv", blob(np.ones((3, 2, 3, 3))), blob([1, 2, 3])),
        ]
    )
    copied = copy_into(other, read_weights(written(tmp_path, file)))
    assert str(copied) == (
        f"1 layer from {tmp_path}/x.caffemodel; not in the file, left as they are: block/1x1, "
        "again, ip; in the file only: gone"
    )
    after = arrays(other)
    assert after.pop(ParamKey("conv", "weight")).tolist() == np.ones((3, 2, 3, 3)).tolist()
    assert after.pop(ParamKey("conv", "bias")).tolist() == [1, 2, 3]
    assert same(after, before)


def legacy(array: object) -> BlobProto:
    floats = np.asarray(array, np.float32)
    num, channels, height, width = (1,) * (4 - floats.ndim) + floats.shape
    return BlobProto(data=floats.ravel(), num=num, channels=channels, height=height, width=width)


GOOD_CONV = layer("conv", blob(np.ones((3, 2, 3, 3))), blob([1, 2, 3]))
WEIGHT = np.arange(90, dtype=np.float32)
AS_CONV = NET.replace(
    """type: "InnerProduct" bottom: "again" top: "ip"
  inner_product_param { num_output: 2 """,
    """type: "Convolution" bottom: "again" top: "ip"
  convolution_param { num_output: 2 kernel_h: 3 kernel_w: 5 """,
)


@pytest.mark.parametrize("name", ["x.caffemodel", "x.caffemodel.h5"])
@pytest.mark.parametrize(("old", "new"), [(NET, AS_CONV), (AS_CONV, NET)], ids=["conv", "fc"])
def test_fully_connected_is_convolution(tmp_path: Path, old: str, new: str, name: str) -> None:
    """They compute the same: (O, C H W) and (O, C, H, W) list the same numbers."""
    theirs, mine = compiled(old), compiled(new, seed=1)
    write_weights(tmp_path / name, theirs.shapes, theirs.arrays())
    weights = read_weights(tmp_path / name)
    with pytest.raises(WeightsError, match=r"in the net; fc_to_conv \(--fc-to-conv\) reads the on"):
        copy_into(mine, weights)
    copied = copy_into(mine, weights, fc_to_conv=True)
    assert (sorted(copied.layers), copied.turned) == (sorted(BLOBS), ("ip",))
    assert "; fully connected read as convolution: ip" in str(copied)
    x = np.random.default_rng(0).normal(size=(1, 2, 5, 7)).astype(np.float32)
    top, expected = (np.asarray(net(data=x)["ip"]).ravel() for net in (mine, theirs))
    np.testing.assert_allclose(top, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("stored", "prototxt", "turns"),
    [
        (blob(WEIGHT.reshape(2, 45)), AS_CONV, True),
        (legacy(WEIGHT.reshape(2, 45)), AS_CONV, True),
        (legacy(WEIGHT.reshape(2, 3, 3, 5)), NET, True),
        (blob(WEIGHT.reshape(2, 3, 15)), NET, True),
        (blob(WEIGHT.reshape(45, 2)), AS_CONV, False),
        (blob(WEIGHT.reshape(3, 2, 3, 5)), NET, False),
        (blob(WEIGHT.reshape(2, 3, 5, 3)), AS_CONV, False),
        (blob(WEIGHT[:88].reshape(2, 44)), AS_CONV, False),
        (legacy(WEIGHT.reshape(1, 1, 45, 2)), NET, False),
        (blob(WEIGHT), AS_CONV, False),
    ],
)
def test_which_shapes_turn(tmp_path: Path, stored: BlobProto, prototxt: str, turns: bool) -> None:
    file = NetParameter(layer=[layer("ip", stored, legacy([3, 4]))])
    weights = read_weights(written(tmp_path, file))
    mine = compiled(prototxt)
    if turns:
        assert copy_into(mine, weights, fc_to_conv=True).turned == ("ip",)
        assert np.array_equal(arrays(mine)[ParamKey("ip", "weight")].ravel(), WEIGHT)
        assert arrays(mine)[ParamKey("ip", "bias")].tolist() == [3, 4]
    else:
        with pytest.raises(WeightsError, match=r"in the net; skip_misfits \(--skip-misfits\) l"):
            copy_into(mine, weights, fc_to_conv=True)


def test_what_fits_is_not_turned(net: Net, other: Net, tmp_path: Path) -> None:
    write_weights(tmp_path / "x.caffemodel", net.shapes, net.arrays())
    assert copy_into(other, read_weights(tmp_path / "x.caffemodel"), fc_to_conv=True).turned == ()


def test_layers_that_do_not_fit_may_be_left(other: Net, tmp_path: Path) -> None:
    """All blobs of a layer are left, even those that would fit."""
    before = arrays(other)
    misfits = [
        layer("ip", blob(np.ones((5, 45))), blob([1, 2])),
        layer("block/1x1", blob(np.ones((3, 3, 1, 1))), blob([1, 2, 3])),
    ]
    weights = read_weights(written(tmp_path, NetParameter(layer=[GOOD_CONV, *misfits])))
    copied = copy_into(other, weights, skip_misfits=True)
    assert (copied.layers, copied.missing, copied.unused) == (("conv",), ("again",), ())
    assert copied.misfits == {
        "block/1x1": "the file has 2 blobs, the net 1 (weight)",
        "ip": "weight is 5x45 in the file, 2x45 in the net",
    }
    assert str(copied) == (
        f"1 layer from {tmp_path}/x.caffemodel; not fitting, left as they are: block/1x1 (the file "
        "has 2 blobs, the net 1 (weight)), ip (weight is 5x45 in the file, 2x45 in the net); not "
        "in the file, left as they are: again"
    )
    after = arrays(other)
    assert after.pop(ParamKey("conv", "bias")).tolist() == [1, 2, 3]
    assert after.pop(ParamKey("conv", "weight")).tolist() == np.ones((3, 2, 3, 3)).tolist()
    assert same(after, before)
    path = written(tmp_path, NetParameter(layer=misfits))
    with pytest.raises(WeightsError) as error:
        copy_into(other, read_weights(path), skip_misfits=True)
    assert str(error.value) == (
        f'{path}: no layer fits net.prototxt: layer "block/1x1": the file has 2 blobs, the net 1 '
        "(weight)"
    )


def test_a_shared_blob_may_be_left_to_its_owner(other: Net, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["data/again/1"] = np.array([5, 6, 7], np.float64)
    weight = arrays(other)[ParamKey("block/1x1", "weight")]
    assert copy_into(other, read_weights(path)).layers == ("again",)
    assert arrays(other)[ParamKey("again", "bias")].tolist() == [5, 6, 7]
    assert np.array_equal(arrays(other)[ParamKey("block/1x1", "weight")], weight)


SKIP = "skip_misfits (--skip-misfits) leaves the layer as it is; to learn it anew, rename it"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [layer("ip", blob(np.ones((2, 45))))],
            f'layer "ip" (InnerProduct): the file has 1 blob, the net 2 (weight, bias); {SKIP}',
        ),
        (
            [layer("ip")],
            f'layer "ip" (InnerProduct): the file has 0 blobs, the net 2 (weight, bias); {SKIP}',
        ),
        (
            [layer("block/1x1", blob(np.ones((3, 3, 1, 1))), blob([1, 2, 3]))],
            'layer "block/1x1" (Convolution): the file has 2 blobs, the net 1 (weight); ' + SKIP,
        ),
        (
            [layer("relu", blob([0.25]), type="PReLU")],
            f'layer "relu" (ReLU): the file has 1 blob, the net 0; {SKIP}',
        ),
        (
            [layer("again", blob([1, 2, 3]))],
            f'layer "again" (Convolution): the file has 1 blob, the net 2 (weight, bias); {SKIP}',
        ),
        (
            [layer("ip", blob(np.ones((5, 45))), blob([1, 2]))],
            'layer "ip" (InnerProduct): weight is 5x45 in the file, 2x45 in the net; ' + SKIP,
        ),
        (
            [layer("ip", blob(np.ones((2, 45))), blob([[1, 2]]))],
            f'layer "ip" (InnerProduct): bias is 1x2 in the file, 2 in the net; {SKIP}',
        ),
        (
            [layer("ip", blob(np.ones((2, 3, 3, 5))), blob([1, 2]))],
            'layer "ip" (InnerProduct): weight is 2x3x3x5 in the file, 2x45 in the net; '
            "fc_to_conv (--fc-to-conv) reads the one as the other",
        ),
    ],
)
def test_nothing_is_set_unless_everything_fits(
    other: Net, tmp_path: Path, layers: list[LayerParameter], message: str
) -> None:
    before = arrays(other)
    path = written(tmp_path, NetParameter(layer=[GOOD_CONV, *layers]))
    with pytest.raises(WeightsError) as error:
        copy_into(other, read_weights(path))
    assert str(error.value) == f"{path}: {message}"
    assert same(before, other.arrays())


def test_a_file_of_another_net(other: Net, tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    for count, listing in ((6, "a, b, c, d, e, ..."), (2, "a, b")):
        file = NetParameter(layer=[layer(name, blob([1])) for name in names[:count]])
        path = written(tmp_path, file)
        with pytest.raises(WeightsError) as error:
            copy_into(other, read_weights(path))
        assert str(error.value) == f"{path}: has no layer of net.prototxt; it has {listing}"
