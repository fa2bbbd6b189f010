"""Nets and data for several devices and processes."""

import os
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
ROWS = """
layer { name: "data" type: "HDF5Data" top: "x" top: "label"
  hdf5_data_param { source: "rows.txt" batch_size: 2 shuffle: true } }
layer { name: "norm" type: "BatchNorm" bottom: "x" top: "norm" }
"""
LEARNED = """
layer { name: "drop" type: "Dropout" bottom: "norm" top: "drop" }
layer { name: "ip1" type: "InnerProduct" bottom: "drop" top: "h"
  inner_product_param { num_output: 16 weight_filler { type: "xavier" } } }
layer { name: "ip2" type: "InnerProduct" bottom: "h" top: "y"
  inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "label" top: "loss" }
"""
IMAGES = """
layer { name: "data" type: "SegmentationData" top: "data" top: "label"
  segmentation_data_param { source: "pairs.txt" mean_value: 120 scale: 0.02 shuffle: true } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param {
  num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
"""
SCORED = """
layer { name: "score" type: "Convolution" bottom: "conv" top: "score" convolution_param {
  num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss"
  loss_param { ignore_label: 255 normalize: false } }
"""
NETS = {
    "rows": ROWS + LEARNED,
    "sizes": IMAGES + SCORED,
    "misfit": IMAGES
    + """
layer { name: "bins" type: "SPP" bottom: "conv" top: "bins" spp_param { pyramid_height: 1 } }
layer { name: "loss" type: "Reduction" bottom: "bins" top: "loss" loss_weight: 1 }
""",
    "host": ROWS + LEARNED + 'layer { name: "out" type: "HDF5Output" bottom: "y" bottom: "label" '
    'hdf5_output_param { file_name: "out.h5" } }',
    "memory": ROWS
    + """
layer { name: "cont" type: "DummyData" top: "cont" dummy_data_param {
  shape { dim: 2 dim: 1 } data_filler { value: 1 } } }
layer { name: "up" type: "Reshape" bottom: "norm" top: "up"
  reshape_param { shape { dim: 2 dim: 1 dim: 6 } } }
layer { name: "lstm" type: "LSTM" bottom: "up" bottom: "cont" top: "norm2"
  recurrent_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "Reduction" bottom: "norm2" top: "loss" loss_weight: 1 }
""",
}


def write_nets(folder: Path) -> None:
    draw = np.random.default_rng(0)
    with h5py.File(folder / "rows.h5", "w") as file:
        file["x"] = draw.normal(size=(11, 6)).astype(np.float32)
        file["label"] = draw.normal(size=(11, 1)).astype(np.float32)
    (folder / "rows.txt").write_text("rows.h5\n")
    lines = []
    for i, (height, width) in enumerate([(20, 41), (31, 37), (33, 29), (45, 47), (20, 41)]):
        image = draw.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(image).save(folder / f"{i}.png")
        labels = draw.integers(0, 3, (height, width), np.uint8)
        Image.fromarray(labels).save(folder / f"{i}-labels.png")
        lines.append(f"{i}.png {i}-labels.png\n")
    (folder / "pairs.txt").write_text("".join(lines))
    for name, net in NETS.items():
        (folder / f"{name}.prototxt").write_text(net)


def environment(devices: int = 1) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    flags = f"--xla_force_host_platform_device_count={devices}"
    return {
        **os.environ,
        "PYTHONPATH": path,
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        # What runs a few times is not worth the time that making it fast takes.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    }
