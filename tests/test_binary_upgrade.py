"""A damaged binary net is upgraded or refused with one line, never with an error of protobuf's."""

from pathlib import Path

import numpy as np
import pytest

from netspec.errors import NetSpecError, ParseError
from netspec.frontend.upgrade import upgrade_weights_file
from netspec.proto.layers_pb2 import BlobProto
from netspec.proto.legacy_pb2 import V0LayerParameter, V1LayerParameter
from netspec.proto.net_pb2 import NetParameter

SEEDS = 400


def _blob() -> BlobProto:
    return BlobProto(num=1, channels=1, height=2, width=3, data=range(6))


def _nets() -> list[bytes]:
    """A net of each schema: V0, V1 and today's."""
    v0 = NetParameter(name="zero", input=["data"], input_dim=[1, 1, 4, 4])
    v0.layers.add(bottom=["data"], top=["c"]).layer.CopyFrom(
        V0LayerParameter(name="c", type="conv", num_output=1, kernelsize=2, meanfile="m")
    )
    v1 = NetParameter(name="one")
    v1.layers.add(
        name="c",
        type=V1LayerParameter.CONVOLUTION,
        bottom=["data"],
        top=["c"],
        param=["w", "b"],
        blobs_lr=[1, 2],
        blobs=[_blob()],
    )
    v2 = NetParameter(name="two", input=["data"])
    v2.layer.add(name="c", type="Convolution", bottom=["data"], top=["c"], blobs=[_blob()])
    v2.layer[0].include.add(stage=["deploy"])
    v2.layer[0].param.add(name="w")
    return [net.SerializeToString() for net in (v0, v1, v2)]


def _mutant(data: bytes, seed: int) -> bytes:
    """A net with a few bytes changed, and sometimes a run of them shuffled."""
    draw = np.random.default_rng(seed)
    damaged = np.frombuffer(data, np.uint8).copy()
    for at in draw.integers(len(damaged), size=draw.integers(1, 4)):
        damaged[at] = draw.integers(256)
    if seed % 3 == 0:
        start = int(draw.integers(len(damaged)))
        draw.shuffle(damaged[start : start + 12])
    return damaged.tobytes()


@pytest.mark.parametrize("schema", range(3))
def test_mutants_are_upgraded_or_refused(tmp_path: Path, schema: int) -> None:
    data, path = _nets()[schema], tmp_path / "a.caffemodel"
    refused = []
    for seed in range(SEEDS):
        path.write_bytes(_mutant(data, seed))
        try:
            upgrade_weights_file(path, tmp_path / "new")
        except NetSpecError as error:
            refused.append(str(error))
    assert 0 < len(refused) < SEEDS
    assert not [message for message in refused if "\n" in message]


@pytest.mark.differs("binary-not-utf8")
def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel"
    for data in _nets():
        path.write_bytes(data.replace(b"data", b"da\x87a"))
        if b"data" not in data:
            path.write_bytes(data.replace(b"Convolution", b"Convoluti\x80n"))
        with pytest.raises(ParseError, match="is damaged, or no binary net: a text in it is not"):
            upgrade_weights_file(path, tmp_path / "new")
    path.write_bytes(_nets()[0].replace(b"c", b"\xff"))
    with pytest.raises(ParseError, match=rf"^{path}: is "):
        upgrade_weights_file(path, tmp_path / "new")
