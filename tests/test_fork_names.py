import pytest

from netspec.errors import ParseError
from netspec.frontend.prototxt import parse_net
from netspec.layers.fork_names import FORKS_OF_FIELDS, FORKS_OF_TYPES, fork_of_field, fork_of_type
from netspec.proto.layers_pb2 import LayerParameter
from netspec.spec import LayerError, layers


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("MultiBoxLoss", " (SSD's fork of Caffe)"),
        ("SmoothL1Loss", " (SSD's and Faster R-CNN's forks of Caffe)"),
        ("Upsample", " (SegNet's and MobileNet-YOLO's forks of Caffe)"),
        ("DENSE_CRF", " (DeepLab's fork of Caffe)"),
        (
            "ConvolutionDepthwise",
            " (a fork of Caffe's); write a Convolution whose group is its number of channels",
        ),
        ("Convolution", ""),
        ("multiboxloss", ""),
    ],
)
def test_types_of_forks(name: str, said: str) -> None:
    assert fork_of_type(name) == said


@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        ("LayerParameter", "upsample_param", " (SegNet's and MobileNet-YOLO's forks of Caffe)"),
        ("V1LayerParameter", "interp_param", " (DeepLab's and PSPNet's forks of Caffe)"),
        ("LayerParameter", "bn_param", " (SegNet's, PSPNet's and TSN's forks of Caffe)"),
        ("ConvolutionParameter", "hole", " (DeepLab's fork of Caffe)"),
        ("PoolingParameter", "hole", ""),
        ("SolverParameter", "ap_version", " (SSD's fork of Caffe)"),
    ],
)
def test_fields_of_forks(owner: str, name: str, said: str) -> None:
    assert fork_of_field(owner, name) == said


def test_nothing_of_caffes_own_is_called_a_forks() -> None:
    assert {"Convolution", "BatchNorm", "Scale", "LSTM"}.isdisjoint(FORKS_OF_TYPES)
    assert ("LayerParameter", "convolution_param") not in FORKS_OF_FIELDS
    assert all(owner.endswith("Parameter") for owner, _ in FORKS_OF_FIELDS)


def test_a_field_of_a_fork_is_named() -> None:
    unknown = next(
        name
        for owner, name in FORKS_OF_FIELDS
        if owner == "LayerParameter" and name not in LayerParameter.DESCRIPTOR.fields_by_name
    )
    with pytest.raises(ParseError) as caught:
        parse_net(f"layer {{\n  {unknown} {{ }}\n}}", "net")
    assert str(caught.value) == (
        f'net:2: unknown field "{unknown}" in LayerParameter'
        f"{fork_of_field('LayerParameter', unknown)}"
    )


def test_a_layer_written_in_python_too() -> None:
    with pytest.raises(LayerError) as caught:
        layers.MultiBoxLoss()
    assert str(caught.value) == 'unknown layer type "MultiBoxLoss" (SSD\'s fork of Caffe)'
