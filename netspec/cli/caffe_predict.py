"""pycaffe's scripts as verbs of ``netspec caffe``: classify and detect.

Caffe: ``python/classify.py``, ``python/detect.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from netspec.caffe import Classifier, Detector
from netspec.caffe.io import load_image
from netspec.cli.caffe_windows import read_windows, write_detections
from netspec.errors import NetSpecError, counted, fail, require, unreadable
from netspec.formats.atomic import atomic_write
from netspec.formats.regular import require_regular
from netspec.formats.text import read_text
from netspec.frontend.net_graph import read_graph
from netspec.runtime import devices

_Function = TypeVar("_Function", bound=Callable[..., Any])

# From Caffe's root, as its scripts look for them.
_MODEL = "models/bvlc_reference_caffenet/"
_MEAN = "python/caffe/imagenet/ilsvrc_2012_mean.npy"

_FLAGS = (
    click.option(
        "--model_def",
        default=f"{_MODEL}deploy.prototxt",
        show_default=True,
        help="The net's prototxt.",
    ),
    click.option(
        "--pretrained_model",
        default=f"{_MODEL}bvlc_reference_caffenet.caffemodel",
        show_default=True,
        help="Its weights.",
    ),
    click.option("--gpu", is_flag=True, help="Compute on a GPU."),
    click.option(
        "--mean_file",
        default=_MEAN,
        show_default=True,
        help="A mean (C, H, W), .npy; '' for none.",
    ),
    click.option("--input_scale", type=float, help="Multiply inputs by this in the end."),
    click.option(
        "--raw_scale",
        default=255.0,
        show_default=True,
        help="Multiply images, from 0 to 1, by this at first.",
    ),
    click.option(
        "--channel_swap",
        default="2,1,0",
        show_default=True,
        help="The order of channels that the net takes; '' for red, green, blue.",
    ),
)


def _prepared(function: _Function) -> _Function:
    """Add the options that say how images become a net's input."""
    for flag in reversed(_FLAGS):
        function = flag(function)
    return function


@click.command()
@click.argument("source", metavar="INPUT_FILE")
@click.argument("out", metavar="OUTPUT_FILE")
@_prepared
@click.option("--center_only", is_flag=True, help="One crop of each image instead of ten.")
@click.option(
    "--images_dim",
    default="256,256",
    show_default=True,
    help="height,width that images are scaled to.",
)
@click.option("--ext", default="jpg", show_default=True, help="The images' ending in a folder.")
def classify(source: str, out: str, center_only: bool, images_dim: str, **options: Any) -> None:
    """Classify an image, the images of a folder, or arrays (N, H, W, K) of a .npy.

    The probabilities (N, classes) go to OUTPUT_FILE, a .npy.
    """
    _use(options["gpu"])
    mean = _mean(options["mean_file"])
    with _fitting(options["model_def"]):
        classifier = Classifier(
            options["model_def"],
            options["pretrained_model"],
            image_dims=_numbers("--images_dim", images_dim),
            **_preparation(options, mean),
        )
    inputs = _images(Path(source).expanduser(), options["ext"])
    click.echo(f"Classifying {counted(len(inputs), 'input')}.")
    start = time.perf_counter()
    predictions = classifier.predict(inputs, not center_only)
    click.echo(f"Done in {time.perf_counter() - start:.2f} s.")
    # NumPy's own writer adds the ending too.
    path = Path(out if out.endswith(".npy") else f"{out}.npy")
    click.echo(f"Saving results into {path}")
    try:
        with atomic_write(path) as part, open(part, "wb") as file:
            np.save(file, predictions)
    except OSError as error:
        fail(unreadable(path, error), NetSpecError)


@click.command()
@click.argument("source", metavar="INPUT_FILE")
@click.argument("out", metavar="OUTPUT_FILE")
@_prepared
@click.option(
    "--crop_mode",
    type=click.Choice(["list", "selective_search"]),
    default="selective_search",
    show_default=True,
    help="Windows that a .csv lists, or proposals for the images of a .txt.",
)
@click.option("--context_pad", default=16, show_default=True, help="Pixels around a window.")
def detect(source: str, out: str, crop_mode: str, context_pad: int, **options: Any) -> None:
    """Run a net on windows of images; the results go to OUTPUT_FILE, a .csv or HDF5.

    INPUT_FILE: a .csv with the columns filename, xmin, ymin, xmax, ymax, or a .txt of file names.
    """
    ending = ".csv" if crop_mode == "list" else ".txt"
    require(
        source.lower().endswith(ending),
        f"{source}: --crop_mode {crop_mode} takes a {ending}",
        NetSpecError,
    )
    _use(options["gpu"])
    mean = _mean(options["mean_file"])
    with _fitting(options["model_def"]):
        detector = Detector(
            options["model_def"],
            options["pretrained_model"],
            context_pad=context_pad,
            **_preparation(options, _by_channel(mean)),
        )
    click.echo("Loading input...")
    start = time.perf_counter()
    if crop_mode == "list":
        found = detector.detect_windows(read_windows(Path(source)).items())
    else:
        found = _searched(detector, Path(source))
    click.echo(f"Processed {len(found)} windows in {time.perf_counter() - start:.3f} s.")
    write_detections(Path(out), found)
    click.echo(f"Saved to {out}")


def _searched(detector: Any, listed: Path) -> list[dict[str, Any]]:
    """Run a detector on the proposals for the images of a list, a file name a line."""
    try:
        lines = read_text(listed).splitlines()
    except OSError as error:
        fail(unreadable(listed, error), NetSpecError)
    except UnicodeDecodeError:
        fail(f"{listed}: not a text file; it lists images, one on a line", NetSpecError)
    try:
        found: list[dict[str, Any]] = detector.detect_selective_search([x.strip() for x in lines])
    except ImportError as error:
        fail(
            f"--crop_mode selective_search needs the Python module {error.name}, which runs "
            "MATLAB; --crop_mode list takes windows from a .csv",
            NetSpecError,
        )
    return found


def _use(gpu: bool) -> None:
    devices.use(devices.chosen("0" if gpu else ""))
    click.echo("GPU mode" if gpu else "CPU mode")


@contextmanager
def _fitting(net: str) -> Iterator[None]:
    """Raise NetSpecError if the options do not fit a net."""
    require(read_graph(net).inputs, f"{net}: has no Input layer to take images", NetSpecError)
    try:
        yield
    except ValueError as error:
        fail(f"{net}: the mean or --channel_swap does not fit it: {error}", NetSpecError)


def _preparation(options: dict[str, Any], mean: np.ndarray | None) -> dict[str, Any]:
    """The arguments of pycaffe's classes for preparing images."""
    swap = options["channel_swap"]
    return {
        "mean": mean,
        "input_scale": options["input_scale"],
        "raw_scale": options["raw_scale"],
        "channel_swap": _numbers("--channel_swap", swap) if swap else None,
    }


def _numbers(option: str, given: str) -> list[int]:
    numbers = given.split(",")
    require(
        all(number.strip().isdecimal() for number in numbers),
        f"{option} {given}: write numbers as 1,2",
        NetSpecError,
    )
    return [int(number) for number in numbers]


def _mean(path: str) -> np.ndarray | None:
    """A mean (C, H, W) or (C)."""
    if not path:
        return None
    mean = _loaded(Path(path))
    require(mean.ndim in (1, 3), f"{path}: {mean.ndim} axes; a mean is (C, H, W)", NetSpecError)
    return mean


def _by_channel(mean: np.ndarray | None) -> np.ndarray | None:
    return mean if mean is None or mean.ndim == 1 else mean.mean((1, 2))


def _loaded(path: Path) -> np.ndarray:
    try:
        require_regular(path)
        # Mapped, as a header may state any sizes.
        array: np.ndarray = np.array(np.lib.format.open_memmap(path, mode="r"))
    except OSError as error:
        fail(unreadable(path, error), NetSpecError)
    except (ValueError, TypeError, MemoryError, OverflowError):
        fail(f"{path}: no .npy of numbers", NetSpecError)
    return array


def _images(source: Path, ext: str) -> Any:
    """Images (H, W, K), in a list or in one array."""
    if source.suffix == ".npy":
        click.echo(f"Loading file: {source}")
        return _loaded(source)
    if not source.is_dir():
        click.echo(f"Loading file: {source}")
        return [load_image(str(source))]
    click.echo(f"Loading folder: {source}")
    files = sorted(source.glob(f"*.{ext}"))
    require(files, f"{source}: has no *.{ext}; --ext names another ending", NetSpecError)
    return [load_image(str(file)) for file in files]
