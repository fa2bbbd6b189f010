"""Weights of one net as the beginning of another, against what is computed here or said there."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from netspec import build
from netspec.cli import main
from netspec.errors import NetSpecError
from netspec.proto.net_pb2 import NetParameter
from netspec.runtime.module import Net
from netspec.weights.caffemodel import write_weights
from netspec.weights.surgery import SurgeryPlan, transplant

INPUT = """layer {{ name: "data" type: "Input" top: "data"
  input_param {{ shape {{ dim: [2, {channels}, 6, 8] }} }} }}
"""
CONV = """layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
  convolution_param {{ num_output: {outputs} kernel_size: {kernel} {more}
    weight_filler {{ type: "xavier" }} bias_filler {{ type: "gaussian" std: 1 }} }} }}
"""
FC = """layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}"
  inner_product_param {{ num_output: {outputs}
    weight_filler {{ type: "xavier" }} bias_filler {{ type: "gaussian" std: 1 }} }} }}
"""
EMBED = """layer {{ name: "embed" type: "Embed" bottom: "data" top: "embed"
  embed_param {{ input_dim: 7 num_output: {outputs} weight_filler {{ type: "xavier" }} }} }}
"""
UP = """layer {{ name: "{name}" type: "Deconvolution" bottom: "{bottom}" top: "{name}"
  convolution_param {{ num_output: {outputs} kernel_size: {kernel} stride: 2 {more}
    weight_filler {{ type: "xavier" }} }} }}
"""


def conv(name: str, bottom: str, outputs: int, kernel: int = 1, more: str = "") -> str:
    return CONV.format(name=name, bottom=bottom, outputs=outputs, kernel=kernel, more=more)


def fc(name: str, bottom: str, outputs: int) -> str:
    return FC.format(name=name, bottom=bottom, outputs=outputs)


def up(name: str, bottom: str, outputs: int, kernel: int = 4, more: str = "") -> str:
    return UP.format(name=name, bottom=bottom, outputs=outputs, kernel=kernel, more=more)


CLASSIFIER = (
    INPUT.format(channels=3) + conv("conv", "data", 5, 3) + fc("fc", "conv", 7) + fc("cls", "fc", 4)
)
# What the classifier computes on 6x8 pixels, on any number of them.
CONVOLUTIONAL = (
    INPUT.format(channels=3)
    + conv("conv", "data", 5, 3)
    + conv("fc", "conv", 7, 0, "kernel_h: 4 kernel_w: 6").replace("kernel_size: 0 ", "")
)
FCN = CONVOLUTIONAL + conv("score", "fc", 4)


def compiled(prototxt: str, folder: Path, name: str, seed: int = 0) -> Net:
    path = folder / f"{name}.prototxt"
    path.write_text(prototxt)
    return build.load(path, seed=seed)


def saved(net: Net, folder: Path, name: str = "old") -> Path:
    path = folder / f"{name}.caffemodel"
    write_weights(path, net.shapes, net.arrays())
    return path


def blob(net: Net, layer: str, which: int = 0) -> NDArray[np.float32]:
    return np.array(net.params[layer][which][...])


def images(channels: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(5).standard_normal((2, channels, 6, 8)).astype(np.float32)


def sources(net: Net, files: Sequence[Path], plan: SurgeryPlan) -> dict[str, str]:
    """Layer -> where its blobs come from, as told; files by their names alone."""
    done = transplant(net, files, plan)
    return {
        origin.layer: origin.source.replace(f"{files[0].parent}/", "") for origin in done.origins
    }


def test_a_classifier_becomes_convolutional(tmp_path: Path) -> None:
    old, new = compiled(CLASSIFIER, tmp_path, "a"), compiled(FCN, tmp_path, "b", seed=1)
    plan = SurgeryPlan(rename={"cls": "score"}, fc_to_conv=True)
    told = sources(new, [saved(old, tmp_path)], plan)
    data = images()
    expected = np.asarray(old(data=data)["cls"])
    np.testing.assert_allclose(new(data=data)["score"][:, :, 0, 0], expected, atol=1e-5)
    turned = "of old.caffemodel, fully connected read as convolution"
    assert told == {
        "conv": "conv of old.caffemodel",
        "fc": f"fc {turned}",
        "score": f"cls {turned}",
    }


@pytest.mark.parametrize("kernel", [2, 4, 8])
@pytest.mark.parametrize("group", [1, 3])
def test_bilinear_upsampling_is_interpolation(tmp_path: Path, kernel: int, group: int) -> None:
    """The published kernel, in one channel's own place each, whatever the file has."""
    net = INPUT.format(channels=3) + up("up", "data", 3, kernel, f"group: {group}")
    net += conv("conv", "up", 2)
    old, new = (compiled(net, tmp_path, "up", seed) for seed in (0, 1))
    told = sources(new, [saved(old, tmp_path)], SurgeryPlan(bilinear=["u*"]))
    ramp = 1 - np.abs(np.arange(kernel) - (kernel - 1) / 2) / (kernel // 2)
    weight = blob(new, "up")
    for i in range(3):
        for j in range(weight.shape[1]):
            own = i == j or group == 3
            np.testing.assert_allclose(weight[i, j], np.outer(ramp, ramp) * own, atol=1e-6)
    assert told == {"up": "bilinear interpolation", "conv": "conv of old.caffemodel"}
    assert np.array_equal(blob(new, "conv"), blob(old, "conv"))


def test_more_classes_keep_the_old_rows(tmp_path: Path) -> None:
    """Of a fully connected layer, too; new rows are what the net began with."""
    old = compiled(CLASSIFIER, tmp_path, "a")
    grown = CONVOLUTIONAL + conv("score", "fc", 6)
    new, before = (compiled(grown, tmp_path, "b", seed=1) for _ in range(2))
    plan = SurgeryPlan(rename={"cls": "score"}, more_classes=["score"], fc_to_conv=True)
    told = sources(new, [saved(old, tmp_path)], plan)
    for which in (0, 1):
        theirs = blob(old, "cls", which)
        assert np.array_equal(blob(new, "score", which)[:4].reshape(theirs.shape), theirs)
        assert np.array_equal(blob(new, "score", which)[4:], blob(before, "score", which)[4:])
        assert blob(new, "score", which)[4:].any()
    assert told["score"] == (
        "cls of old.caffemodel, 4 of 6 classes, the others as the fillers begin them"
    )
    data = images()
    expected = np.asarray(old(data=data)["cls"])
    np.testing.assert_allclose(new(data=data)["score"][:, :4, 0, 0], expected, atol=1e-5)


def old_file(net: Net, folder: Path) -> Path:
    """A net's weights as Caffe wrote them in 2014, when every blob had four axes."""
    message = NetParameter()
    for name, layer in net.params.items():
        stored = message.layers.add(name=name)
        for variable in layer:
            array = np.asarray(variable[...])
            dims = (1,) * (4 - array.ndim) + array.shape
            num, channels, height, width = dims
            stored.blobs.add(
                num=num, channels=channels, height=height, width=width, data=array.ravel()
            )
    path = folder / "old.caffemodel"
    path.write_bytes(message.SerializeToString())
    return path


def test_files_of_old_become_more_classes_and_channels(tmp_path: Path) -> None:
    old = compiled(CLASSIFIER, tmp_path, "a")
    wide = CONVOLUTIONAL.replace("3, 6, 8", "4, 6, 8") + conv("score", "fc", 6)
    new = compiled(wide, tmp_path, "b", seed=1)
    plan = SurgeryPlan({"cls": "score"}, (), (), ["score"], ["conv"], fc_to_conv=True)
    transplant(new, [old_file(old, tmp_path)], plan)
    data = images(4) * np.array([1, 1, 1, 0], np.float32)[:, None, None]
    expected = np.asarray(old(data=data[:, :3])["cls"])
    np.testing.assert_allclose(new(data=data)["score"][:, :4, 0, 0], expected, atol=1e-5)


def test_a_channel_more_begins_as_the_mean_of_the_others(tmp_path: Path) -> None:
    old = compiled(INPUT.format(channels=3) + conv("conv", "data", 5, 3), tmp_path, "a")
    wide = INPUT.format(channels=4) + conv("conv_d", "data", 5, 3)
    new = compiled(wide, tmp_path, "b", seed=1)
    plan = SurgeryPlan(rename={"conv": "conv_d"}, more_channels=["conv_d"])
    told = sources(new, [saved(old, tmp_path)], plan)
    weight = blob(new, "conv_d")
    assert np.array_equal(weight[:, :3], blob(old, "conv"))
    np.testing.assert_allclose(weight[:, 3], blob(old, "conv").mean(1), rtol=1e-6)
    assert np.array_equal(blob(new, "conv_d", 1), blob(old, "conv", 1))
    # An image whose fourth channel is black is seen as before.
    data = images(4) * np.array([1, 1, 1, 0], np.float32)[:, None, None]
    expected = np.asarray(old(data=data[:, :3])["conv"])
    np.testing.assert_allclose(new(data=data)["conv_d"], expected, atol=1e-5)
    assert told == {
        "conv_d": "conv of old.caffemodel, 3 of 4 input channels, the others their mean"
    }


@pytest.mark.parametrize(
    ("old", "wide", "plan", "axis"),
    [
        (up("up", "data", 4), up("up", "data", 6), SurgeryPlan(more_classes=["up"]), 1),
        (up("up", "data", 4), up("up", "wide", 4), SurgeryPlan(more_channels=["up"]), 0),
        (
            fc("fc", "data", 4).replace("num", "transpose: true num"),
            fc("fc", "data", 6).replace("num", "transpose: true num"),
            SurgeryPlan(more_classes=["fc"]),
            1,
        ),
        (
            EMBED.format(outputs=4),
            EMBED.format(outputs=6),
            SurgeryPlan(more_classes=["embed"]),
            1,
        ),
        (
            up("up", "data", 3, more="group: 3"),
            up("up", "wide", 5, more="group: 5"),
            SurgeryPlan(more_classes=["up"]),
            0,
        ),
    ],
)
def test_layers_whose_outputs_lie_elsewhere(
    tmp_path: Path, old: str, wide: str, plan: SurgeryPlan, axis: int
) -> None:
    """What was there comes first along their axis."""
    inputs = INPUT.format(channels=3) + INPUT.format(channels=5).replace('"data"', '"wide"')
    before = compiled(inputs + old, tmp_path, "old")
    begun, after = (compiled(inputs + wide, tmp_path, "new", seed=1) for _ in range(2))
    (name,) = after.params
    sources(after, [saved(before, tmp_path)], plan)
    weight, had = blob(after, name), blob(before, name).shape[axis]
    kept, rest = np.split(weight, [had], axis)
    assert np.array_equal(kept, blob(before, name))
    mean = np.broadcast_to(kept.mean(axis, keepdims=True), rest.shape)
    expected = mean if plan.more_channels else np.split(blob(begun, name), [had], axis)[1]
    np.testing.assert_allclose(rest, expected, rtol=1e-6)


TRUNK = INPUT.format(channels=3) + conv("conv", "data", 5, 3)
TWO = INPUT.format(channels=3) + conv("conv_a", "data", 5, 3) + conv("conv_b", "data", 5, 3)


@pytest.mark.parametrize("names", [["one"], ["one", "other"]])
def test_a_trunk_for_each_of_two_modalities(tmp_path: Path, names: list[str]) -> None:
    """Both from one file, or each from its own."""
    olds = {name: compiled(TRUNK, tmp_path, "a", seed) for seed, name in enumerate(names)}
    files = [saved(net, tmp_path, name) for name, net in olds.items()]
    new = compiled(TWO, tmp_path, "b", seed=7)
    told = sources(new, files, SurgeryPlan(suffixes=["_a", "_b"]))
    for suffix, name in (("_a", names[0]), ("_b", names[-1])):
        assert told[f"conv{suffix}"] == f"conv of {name}.caffemodel"
        for which in (0, 1):
            assert np.array_equal(
                blob(new, f"conv{suffix}", which), blob(olds[name], "conv", which)
            )


def test_the_last_file_counts_and_what_no_file_has_stays(tmp_path: Path) -> None:
    first = compiled(TWO, tmp_path, "a", seed=1)
    second = compiled(TRUNK, tmp_path, "b", seed=2)
    new = compiled(TWO + conv("late", "conv_b", 2), tmp_path, "c", seed=3)
    before = blob(new, "late")
    files = [saved(first, tmp_path, "first"), saved(second, tmp_path, "second")]
    told = sources(new, files, SurgeryPlan(rename={"conv": "conv_b"}))
    assert np.array_equal(blob(new, "conv_a"), blob(first, "conv_a"))
    assert np.array_equal(blob(new, "conv_b"), blob(second, "conv"))
    assert np.array_equal(blob(new, "late"), before)
    assert told == {
        "conv_a": "conv_a of first.caffemodel",
        "conv_b": "conv of second.caffemodel",
        "late": "as its fillers begin it",
    }


def test_classes_that_the_last_file_lacks_are_new(tmp_path: Path) -> None:
    """Though a file before it had them."""
    wide, narrow = (TRUNK + conv("score", "conv", outputs) for outputs in (6, 4))
    files = [
        saved(compiled(text, tmp_path, name, seed), tmp_path, name)
        for seed, (name, text) in enumerate({"wide": wide, "narrow": narrow}.items())
    ]
    new, before = (compiled(wide, tmp_path, "new", seed=7) for _ in range(2))
    transplant(new, files, SurgeryPlan(more_classes=["score"]))
    assert np.array_equal(blob(new, "score")[4:], blob(before, "score")[4:])


def test_what_went_nowhere_is_told(tmp_path: Path) -> None:
    """Of a file that is taken twice, what neither time took."""
    trunk = compiled(TRUNK + conv("late", "conv", 2) + conv("cls", "late", 4), tmp_path, "a")
    file = saved(trunk, tmp_path)
    new = compiled(TWO + conv("late_b", "conv_b", 2), tmp_path, "b")
    assert transplant(new, [file], SurgeryPlan(suffixes=["_a", "_b"])).unused == {
        str(file): ("cls",)
    }


def test_misfits_are_left_if_asked(tmp_path: Path) -> None:
    old = compiled(TRUNK + conv("score", "conv", 4), tmp_path, "a")
    new = compiled(TRUNK + conv("score", "conv", 6), tmp_path, "b", seed=1)
    before = blob(new, "score")
    told = sources(new, [saved(old, tmp_path)], SurgeryPlan(skip_misfits=True))
    assert np.array_equal(blob(new, "score"), before)
    assert told["score"] == (
        "as its fillers begin it: not fitting old.caffemodel "
        "(weight is 4x5x1x1 in the file, 6x5x1x1 in the net)"
    )


GROUPED = INPUT.format(channels=4) + conv("conv", "data", 6, 3, "group: 2")


@pytest.mark.parametrize(
    ("old", "new", "plan", "message"),
    [
        (
            CLASSIFIER,
            FCN,
            SurgeryPlan(),
            'FILE: layer "fc" (Convolution): weight is 7x120 in the file, 7x5x4x6 in the net; '
            "fc_to_conv (--fc-to-conv) reads the one as the other",
        ),
        (
            TRUNK,
            INPUT.format(channels=4) + conv("conv", "data", 5, 3),
            SurgeryPlan(),
            'FILE: layer "conv" (Convolution): weight is 5x3x3x3 in the file, 5x4x3x3 in the net; '
            "skip_misfits (--skip-misfits) leaves the layer as it is; to learn it anew, rename it",
        ),
        (
            TRUNK,
            INPUT.format(channels=4) + conv("conv", "data", 5, 3),
            SurgeryPlan(more_classes=["conv"]),
            'FILE: layer "conv" (Convolution): weight is 5x3x3x3 in the file, 5x4x3x3 in the net, '
            "which is not the same with more classes",
        ),
        (
            TRUNK,
            INPUT.format(channels=3) + conv("conv", "data", 4, 3),
            SurgeryPlan(more_classes=["conv"]),
            'FILE: layer "conv" (Convolution): weight is 5x3x3x3 in the file, 4x3x3x3 in the net, '
            "which is not the same with more classes",
        ),
        (
            INPUT.format(channels=2) + conv("conv", "data", 6, 3, "group: 2"),
            GROUPED,
            SurgeryPlan(more_channels=["conv"]),
            'FILE: layer "conv" (Convolution): its weight 6x2x3x3 has not one input channel for '
            "each of the bottom's 2x4x6x8, so that none can be added",
        ),
        (
            INPUT.format(channels=4) + conv("conv", "data", 4, 3, "group: 2"),
            GROUPED,
            SurgeryPlan(more_classes=["conv"]),
            'FILE: layer "conv" (Convolution): its weight 6x2x3x3 has its classes in groups, so '
            "that none can be added behind them",
        ),
        (
            INPUT.format(channels=6) + up("up", "data", 4),
            INPUT.format(channels=6) + up("up", "data", 6),
            SurgeryPlan(more_channels=["up"]),
            'FILE: layer "up" (Deconvolution): weight is 6x4x4x4 in the file, 6x6x4x4 in the net, '
            "which is not the same with more input channels",
        ),
        (
            TRUNK,
            TRUNK,
            SurgeryPlan(rename={"conv": "cnov"}),
            'no layer "cnov" to rename "conv" to has learned blobs; did you mean "conv"?',
        ),
        (
            TRUNK,
            TRUNK,
            SurgeryPlan(bilinear=["conv"]),
            'NET:3: layer "conv" (Convolution): weights 5x3x3x3 have no diagonal: channels differ',
        ),
        (
            TRUNK,
            TRUNK,
            SurgeryPlan(more_classes=["cnov"]),
            'NET: no layer "cnov" has learned blobs; did you mean "conv"?',
        ),
        (
            TRUNK,
            TRUNK,
            SurgeryPlan(more_classes=["conv"], bilinear=["c*"]),
            'layer "conv" can be only one of bilinear, of more classes, of more channels',
        ),
        (
            TRUNK,
            TRUNK,
            SurgeryPlan(rename={"cnov": "x"}),
            'no file has a layer "cnov" to rename; did you mean "conv"?',
        ),
        (
            TWO,
            TWO,
            SurgeryPlan(rename={"conv_a": "conv_b"}),
            'FILE: layers "conv_a" and "conv_b" would both be "conv_b"',
        ),
        (
            TRUNK,
            TRUNK,
            SurgeryPlan(suffixes=["_a"]),
            "FILE: has no layer of NET; it has conv_a",
        ),
    ],
)
def test_mistakes(tmp_path: Path, old: str, new: str, plan: SurgeryPlan, message: str) -> None:
    file = saved(compiled(old, tmp_path, "old"), tmp_path)
    net = compiled(new, tmp_path, "new", seed=1)
    with pytest.raises(NetSpecError) as error:
        transplant(net, [file], plan, tmp_path / "out.caffemodel")
    said = str(error.value).replace(str(file), "FILE")
    assert said.replace(str(tmp_path / "new.prototxt"), "NET") == message
    assert not (tmp_path / "out.caffemodel").exists()


def test_suffixes_go_with_files(tmp_path: Path) -> None:
    net = compiled(TRUNK, tmp_path, "net")
    files = [saved(net, tmp_path, "a"), saved(net, tmp_path, "b")]
    with pytest.raises(NetSpecError, match=r"^suffix given 1 time for 2 files; give one"):
        transplant(net, files, SurgeryPlan(suffixes=["_a"]))


# The command


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["surgery", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize("ending", ["caffemodel", "caffemodel.h5"])
def test_the_command_writes_weights_and_tells_their_origins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.chdir(tmp_path)
    old = compiled(CLASSIFIER, Path(), "classifier")
    saved(old, Path())
    Path("fcn.prototxt").write_text(CONVOLUTIONAL + conv("score", "fc", 6) + up("up", "score", 6))
    out = f"new/fcn.{ending}"
    options = ["--fc-to-conv", "--bilinear", "up", "--shape", "data=1,3,9,9"]
    result = run("fcn.prototxt", "old.caffemodel", "-o", out, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "conv   weight 5x3x3x3, bias 5  conv of old.caffemodel",
        "fc     weight 7x5x4x6, bias 7  fc of old.caffemodel, fully connected read as convolution",
        "score  weight 6x7x1x1, bias 6  as its fillers begin it",
        "up     weight 6x6x4x4, bias 6  bilinear interpolation",
        "in old.caffemodel only: cls",
        out,
    ]
    new = build.load("fcn.prototxt", out)
    assert np.array_equal(blob(new, "conv"), blob(old, "conv"))
    assert blob(new, "up")[2, 2].max() == pytest.approx(0.75**2)
    assert [path.name for path in Path("new").iterdir()] == [Path(out).name]


def test_a_net_can_be_filled_without_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own fillers, and interpolation where that is asked for."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(INPUT.format(channels=3) + up("up", "data", 3))
    told = run("net.prototxt", "-o", "out.caffemodel", "--bilinear", "up").stdout.splitlines()
    assert told == ["up  weight 3x3x4x4, bias 3  bilinear interpolation", "out.caffemodel"]
    assert blob(build.load("net.prototxt", "out.caffemodel"), "up")[0, 1].max() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rename", "conv"], "--rename conv: write it as OLD=NEW"),
        (["--shape", "data"], "--shape data: write it as data=1,3,500,500"),
        (
            ["-o", "./old.caffemodel"],
            "./old.caffemodel: is among the weights to take from; write to another",
        ),
        (["-o", "net.prototxt/x.caffemodel"], "net.prototxt/x.caffemodel: not a directory"),
        (
            ["-o", "net.prototxt"],
            "net.prototxt: the name of weights ends in .caffemodel or .caffemodel.h5",
        ),
    ],
)
def test_mistakes_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(compiled(TRUNK, Path(), "net"), Path())
    result = run("net.prototxt", "old.caffemodel", "-o", "out.caffemodel", *arguments)
    assert (result.exit_code, result.stderr) == (1, f"netspec: {message}\n")
