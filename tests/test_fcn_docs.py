"""docs/fcn.md tells the truth: its commands lead from classifiers to every net of the family.

They run on narrow copies of the nets, in the order of the page. Training itself is left out, which
tests/test_fcn_family.py tries: here a solver takes its weights and writes what it would end with.
"""

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_sets
from click.testing import CliRunner

from netspec import build
from netspec.cli import main
from netspec.cli.surgery import surgery
from netspec.frontend.prototxt import write
from netspec.frontend.shapes import ParamKey
from netspec.proto.layers_pb2 import BlobProto
from netspec.proto.net_pb2 import NetParameter
from netspec.solving.solver import Solver
from netspec.weights.caffemodel import Copied, read_weights, write_weights

ROOT = Path(__file__).resolve().parents[1]
DOC = (ROOT / "docs" / "fcn.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```sh\n(.*?)^```$", DOC, re.DOTALL | re.MULTILINE)
    for line in block.replace("\\\n", "").splitlines()
]
WIDTH = 1 / 16
# The narrow nets, which have pages of their own.
ELSEWHERE = ("shapes", "camvid")
FULLY_CONNECTED = ("fc6", "fc7")
# Weights of a classifier -> the net of ours whose trunk it is.
CLASSIFIERS = {
    "vgg16": "voc-fcn32s",
    "vgg19": "voc-fcn32s-vgg19",
    "caffenet": "voc-fcn-alexnet",
    "googlenet": "voc-fcn32s-googlenet",
}
# The generators import from `nets`, which this makes importable.
runpy.run_path(str(ROOT / "tools" / "nets.py"))


# What runs a few times is not worth the time that making it fast takes.
pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has, all of it small: nets, solvers, sets, classifiers."""
    root = tmp_path_factory.mktemp("fcn")
    tiny_sets.write_all(root)
    for folder in sorted(ROOT.glob("nets/*-fcn*")):
        if not folder.name.startswith(ELSEWHERE):
            narrow_copy(folder, root)
    (root / "weights").mkdir()
    for name, net in CLASSIFIERS.items():
        classifier(root / "weights" / f"{name}.caffemodel", root / "nets" / net)
    return root


def narrow_copy(folder: Path, root: Path) -> None:
    generate = runpy.run_path(str(folder / "net.py"))["net"]
    for phase in ("train", "val", "deploy"):
        path = root / "nets" / folder.name / f"{phase}.prototxt"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Random fillers are compiled for each shape, and every trunk is loaded.
        path.write_text(re.sub("msra|xavier", "constant", write(generate(phase, WIDTH).to_proto())))
    for path in (ROOT / "solvers").glob(f"{folder.name}*.prototxt"):
        (root / "solvers").mkdir(exist_ok=True)
        (root / "solvers" / path.name).write_text(path.read_text())


def classifier(path: Path, net: Path) -> None:
    """Random weights for the trunk of a net, fc6 and fc7 fully connected, and scores of its own."""
    random = np.random.default_rng(0)
    message = NetParameter()
    shapes = build.load(net / "deploy.prototxt").shapes
    for key, blob in [*shapes.params.items(), *own_scores()]:
        if key.layer.startswith(("score", "upscore")):
            continue
        shape = blob if isinstance(blob, tuple) else blob.shape
        if key.layer in FULLY_CONNECTED and len(shape) > 1:
            shape = (shape[0], int(np.prod(shape[1:])))
        stored = BlobProto(data=random.standard_normal(int(np.prod(shape))) / 10)
        stored.shape.dim.extend(shape)
        if not message.layer or message.layer[-1].name != key.layer:
            message.layer.add(name=key.layer)
        message.layer[-1].blobs.append(stored)
    path.write_bytes(message.SerializeToString())


def own_scores() -> list[tuple[ParamKey, tuple[int, ...]]]:
    return [(ParamKey("fc8", "weight"), (10, 256)), (ParamKey("fc8", "bias"), (10,))]


def run(command: list[str]) -> str:
    result = CliRunner().invoke(main, command[1:])
    assert result.exit_code == 0, f"{shlex.join(command)}\n{result.output}"
    return result.stdout


def begin(path: str, weights: str, fc_to_conv: bool) -> Copied:
    """Load a solver's weights, and write them as if it had come to its end."""
    solver = Solver.from_file(path)
    [copied] = solver.load_weights(weights, fc_to_conv)
    end = f"{solver.param.snapshot_prefix}_iter_{solver.param.max_iter}.caffemodel"
    write_weights(end, solver.net.shapes, solver.net.arrays())
    solver.close()
    return copied


def options(command: list[str]) -> dict[str, Any]:
    """The options of a `solve` command, as click reads them."""
    solve = main.commands["solve"]
    return solve.make_context("solve", command[2:]).params


@pytest.mark.slow
def test_commands_lead_from_stage_to_stage(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for command in COMMANDS:
        assert command[0] == "netspec"
        if command[1] != "solve":
            run(command)
            continue
        given = options(command)
        copied = begin(given["solver"], given["weights"], given["fc_to_conv"])
        said = f"{shlex.join(command)}: {copied}"
        assert not copied.misfits, said
        # Only new scores, and what is fixed, are in no file.
        assert all(name.startswith(("score", "upscore", "scale")) for name in copied.missing), said
        assert copied.turned == (FULLY_CONNECTED if given["fc_to_conv"] else ()), said
        if "snapshots/" in given["weights"]:
            dropped = [name for name in copied.unused if not name.startswith("upscore")]
            assert dropped == [], said
    check_fusions()
    assert Path("heavy.prototxt").exists()


def check_fusions() -> None:
    """What surgery has made, against what it was made of."""
    vgg = read_weights("weights/vgg16.caffemodel").layers
    early = read_weights("weights/vgg16-color-d.caffemodel").layers
    colors, depth = np.split(early["conv1_1_bgrd"][0].array, [3], axis=1)
    assert np.array_equal(colors, vgg["conv1_1"][0].array)
    np.testing.assert_allclose(depth[:, 0], colors.mean(1), atol=1e-6)
    assert np.array_equal(early["fc6"][0].array.ravel(), vgg["fc6"][0].array.ravel())
    late = read_weights("weights/nyud-color-hha.caffemodel").layers
    for kind in ("color", "hha"):
        part = read_weights(f"snapshots/nyud-fcn32s-{kind}_iter_300000.caffemodel").layers
        learned = [name for name in part if part[name] and name != "upscore"]
        assert len(learned) == 16
        for name in learned:
            assert np.array_equal(late[f"{name}{kind}"][0].array, part[name][0].array)


def test_every_net_and_regime_of_the_family_is_on_the_page() -> None:
    solved = {Path(command[2]).stem for command in COMMANDS if command[1] == "solve"}
    family = {path.stem for path in ROOT.glob("solvers/*-fcn*.prototxt")}
    assert solved == {name for name in family if not name.startswith(ELSEWHERE)}


def test_links_and_files_exist() -> None:
    headings = re.findall(r"^## (.*)$", DOC, re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}
    links = re.findall(r"\]\(([^)]+)\)", DOC)
    assert links
    assert headings
    for link in links:
        assert link in anchors if link.startswith("#") else (ROOT / "docs" / link).exists(), link
    assert anchors <= set(links), "a chapter that the list above does not have"
    for command in COMMANDS:
        for word in command:
            if word.startswith(("nets/", "solvers/")):
                assert (ROOT / word).exists(), word


def test_options_of_surgery_are_listed() -> None:
    listed = set(re.findall(r"^\| `(--[\w-]+)", DOC, re.MULTILINE))
    shared = {"--out", "--phase", "--shape", "--help"}
    assert listed == {p.opts[-1] for p in surgery.params if p.opts[0][0] == "-"} - shared
