"""WindowData: which windows are cut, how they are sized, and files that cannot work."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from open_sources import PIXELS, WINDOWS, goes_on, opened, raised
from open_sources import folder as folder
from PIL import Image

from netspec.formats import protobuf_wire
from netspec.frontend import ignored_fields
from netspec.proto.layers_pb2 import BlobProto
from netspec.sources import Source
from netspec.sources.images.resize import resize

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "data"


def windows(
    param: str = "batch_size: 4", transform: str = "crop_size: 4", seed: int | None = 7
) -> Source:
    source = "" if "source" in param else 'source: "windows.txt"'
    return opened(
        'layer { name: "w" type: "WindowData" top: "x" top: "y" '
        f"transform_param {{ {transform} }} window_data_param {{ {source} {param} }} }}",
        seed,
    )


def shown(left: int, top: int, right: int, bottom: int) -> NDArray[np.float32]:
    """A box of the image, both edges included, as (3, H, W) of blue, green, red."""
    box = PIXELS[top : bottom + 1, left : right + 1, ::-1]
    return box.transpose(2, 0, 1).astype(np.float32)


OBJECT, BACKGROUND = (2, 3, 5, 6), (5, 1, 8, 4)


@pytest.mark.parametrize("cache", ["", "cache_images: true"])
def test_windows_are_cut_out(folder: Path, cache: str) -> None:
    source = windows(f"batch_size: 4 {cache}")
    assert source.tops == {"x": (4, 3, 4, 4), "y": (4,)}
    assert source.batches == 1
    assert source.describe() == (
        "WindowData: 1 background and 1 object windows of 1 image that windows.txt lists"
    )
    if cache:
        Path("im0.png").unlink()
    for _ in range(2):
        batch = source.next()
        # A quarter, by default, are objects, after the background.
        assert batch["y"].tolist() == [0, 0, 0, 1]
        for i, box in enumerate([BACKGROUND] * 3 + [OBJECT]):
            np.testing.assert_array_equal(batch["x"][i], shown(*box))
        assert batch["x"].dtype == np.float32
        assert batch["x"].flags.c_contiguous
    assert source.current == "windows.txt"


@pytest.mark.parametrize(
    ("fraction", "labels"),
    [(0, [0] * 5), (0.2, [0] * 4 + [1]), (0.59, [0] * 3 + [1] * 2), (1, [1] * 5)],
)
def test_windows_of_objects_have_their_share(
    folder: Path, fraction: float, labels: list[int]
) -> None:
    assert windows(f"batch_size: 5 fg_fraction: {fraction}").next()["y"].tolist() == labels


@pytest.mark.parametrize(
    ("thresholds", "kinds"),
    [
        ("", (["2", "3"], ["0", "1"])),
        ("fg_threshold: 0.4", (["1", "2", "3"], ["0"])),
        ("bg_threshold: 0.3", (["2", "3"], ["0"])),
        ("fg_threshold: 0.7 bg_threshold: 0.7", (["3"], ["0", "1", "2"])),
    ],
)
def test_windows_are_sorted_by_overlap(
    folder: Path, thresholds: str, kinds: tuple[list[str], list[str]]
) -> None:
    """Window i lies i pixels from the left and is of class i; background is of class 0."""
    lines = [f"{i or 5} {overlap} {i} 0 {i} 0\n" for i, overlap in enumerate((0, 0.4, 0.5, 0.7))]
    Path("windows.txt").write_text(f"# 0\nim0.png\n3\n20\n26\n{len(lines)}\n{''.join(lines)}")
    source = windows(f"batch_size: 60 fg_fraction: 0.5 {thresholds}", "crop_size: 1")
    batch = source.next()
    red = [int(np.flatnonzero(PIXELS[0, :4, 0] == value)[0]) for value in batch["x"][:, 2, 0, 0]]
    assert {*map(str, red[:30])} == {*kinds[1]}
    assert {*map(str, red[30:])} == {*kinds[0]}
    assert batch["y"].tolist() == [0] * 30 + red[30:]


def test_windows_are_warped(folder: Path) -> None:
    batch = windows("batch_size: 4", "crop_size: 7").next()
    left, top, right, bottom = OBJECT
    warped = resize(PIXELS[top : bottom + 1, left : right + 1, ::-1], 7, 7)
    np.testing.assert_array_equal(batch["x"][3], warped.transpose(2, 0, 1))


def place_of(param: str, box: str, transform: str = "crop_size: 6") -> NDArray[np.float32]:
    """A batch of one object window."""
    Path("windows.txt").write_text(f"# 0\nim0.png\n3\n20\n26\n1\n1 0.9 {box}\n")
    return windows(f"batch_size: 1 fg_fraction: 1 {param}", transform).next()["x"][0]


def test_windows_with_context(folder: Path) -> None:
    """A window of 4 with a pad of 1 in 6: a half more on all sides, 7 pixels, warped to 6."""
    whole = resize(PIXELS[4:11, 9:16, ::-1], 6, 6).transpose(2, 0, 1)
    np.testing.assert_array_equal(place_of("context_pad: 1", "10 5 13 8"), whole)
    # 1 of 7 columns, 1 of 6, is left of the image, and so is 1 row above it.
    inside = resize(PIXELS[:6, :6, ::-1], 5, 5).transpose(2, 0, 1)
    shown = place_of("context_pad: 1", "0 0 3 3")
    np.testing.assert_array_equal(shown[:, 1:, 1:], inside)
    assert not shown[:, 0].any()
    assert not shown[:, :, 0].any()


def test_windows_in_a_square(folder: Path) -> None:
    """2x6 is taken as 6x6, hence 7 pixels, as far as the image reaches; zeros are mirrored too."""
    left, right = (
        place_of('crop_mode: "square"', "10 5 11 10", f"crop_size: 7 mirror: {mirror}")
        for mirror in ("false", "true")
    )
    np.testing.assert_array_equal(left, PIXELS[5:12, 8:15, ::-1].transpose(2, 0, 1))
    assert any((right == each).all() for each in (left, left[:, :, ::-1]))
    seen = set()
    for seed in range(9):
        Path("windows.txt").write_text("# 0\nim0.png\n3\n20\n26\n1\n1 0.9 0 5 1 10\n")
        source = windows(
            'batch_size: 1 fg_fraction: 1 crop_mode: "square"', "crop_size: 7 mirror: true", seed
        )
        (image,) = source.next()["x"]
        expected = np.zeros((3, 7, 7), np.float32)
        expected[:, :, 2:] = PIXELS[5:12, 0:5, ::-1].transpose(2, 0, 1)
        flipped = bool((image == expected[:, :, ::-1]).all())
        assert flipped or (image == expected).all()
        seen.add(flipped)
    assert seen == {False, True}


@pytest.mark.parametrize(
    ("transform", "more", "mean", "scale"),
    [
        ("mean_value: 10", "", [10, 10, 10], 1),
        ("mean_value: 10 mean_value: 20 mean_value: 30", "scale: 0.5", [10, 20, 30], 0.5),
        ("scale: 0.25", "", [0, 0, 0], 0.25),
    ],
)
def test_windows_less_a_mean(
    folder: Path, transform: str, more: str, mean: list[float], scale: float
) -> None:
    batch = windows(f"batch_size: 4 {more}", f"crop_size: 4 {transform}").next()
    expected = (shown(*OBJECT) - np.array(mean, np.float32)[:, None, None]) * scale
    np.testing.assert_array_equal(batch["x"][3], expected)


def write_mean(shape: tuple[int, ...]) -> NDArray[np.float32]:
    mean = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    blob = BlobProto(data=mean.ravel().tolist())
    blob.shape.dim.extend(shape)
    Path("mean.binaryproto").write_bytes(blob.SerializeToString())
    assert protobuf_wire.blob(memoryview(blob.SerializeToString())).array.shape == shape
    return mean


def test_windows_less_a_mean_image(folder: Path) -> None:
    """Of its middle; the rows begin where the columns do. Not where the window does not reach."""
    mean = write_mean((1, 3, 9, 8))[0, :, 2:6, 2:6]
    transform = 'crop_size: 4 mean_file: "mean.binaryproto"'
    batch = windows("batch_size: 4", transform).next()
    np.testing.assert_array_equal(batch["x"][3], shown(*OBJECT) - mean)
    square = place_of('crop_mode: "square"', "-1 5 1 7", transform)
    np.testing.assert_array_equal(square[:, :, 1:], shown(0, 5, 2, 8) - mean[:, :, 1:])
    assert not square[:, :, 0].any()


def test_windows_of_several_images(folder: Path) -> None:
    """``root_folder`` is put before each path as it is; images count by their place in the file."""
    Path("sub").mkdir()
    for i in range(3):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(f"sub/x{i}.png")
    blocks = [f"# {i}\n{i}.png\n3\n4\n4\n2\n{i + 1} 1 0 0 3 3\n0 0 0 0 3 3\n\n" for i in range(3)]
    Path("windows.txt").write_text("".join(blocks))
    source = windows('batch_size: 40 fg_fraction: 0.5 root_folder: "sub/x"')
    batch = source.next()
    shade = batch["x"][:, 0, 0, 0]
    assert {*shade[:20]} == {*shade[20:]} == {0, 1, 2}
    np.testing.assert_array_equal(batch["y"][20:], shade[20:] + 1)
    assert source.next()["y"].tolist() != batch["y"].tolist()


@pytest.mark.parametrize("taken", [0, 1, 4])
def test_windows_go_on_where_their_state_was_taken(folder: Path, taken: int) -> None:
    goes_on(lambda seed: windows("batch_size: 4", "crop_size: 4 mirror: true", seed), taken)


def test_windows_refuse_the_state_of_others(folder: Path) -> None:
    state = windows().state()
    Path("windows.txt").write_text(WINDOWS.replace("0 0.1", "1 0.8"))
    message = raised(lambda: windows("batch_size: 1 fg_fraction: 1").restore(state))
    assert message.endswith(
        "the state is of 1 background and 1 object windows, "
        "but windows.txt has 0 background and 2 object windows"
    )


WINDOW_SETTINGS = {
    ('source: ""', "crop_size: 4"): "source must be given: the list of windows",
    ('source: "nil.txt" batch_size: 1', "crop_size: 4"): "source: nil.txt: no such file",
    ('source: "im0.png" batch_size: 1', "crop_size: 4"): "im0.png: not a text file; source lists",
    ("", "crop_size: 4"): "batch_size must be given and positive",
    ("batch_size: 1", ""): "needs transform_param { crop_size: ... }: windows' size",
    ("batch_size: 1 context_pad: 2", "crop_size: 4"): (
        "context_pad 2 on both sides leaves nothing of crop_size 4"
    ),
    ('batch_size: 1 crop_mode: "squares"', "crop_size: 4"): (
        'unknown crop_mode "squares" (warp, square)'
    ),
    ("batch_size: 1 fg_fraction: 1.5", "crop_size: 4"): "fg_fraction 1.5 must lie in 0..1",
    ("batch_size: 1", 'crop_size: 4 mean_file: "m" mean_value: 1'): (
        "mean_file and mean_value exclude each other"
    ),
    ("batch_size: 1", "crop_size: 4 force_gray: true"): "force_gray has no meaning here",
    ("batch_size: 1", "crop_size: 4 mean_value: 1 mean_value: 2"): "2 mean_value for 3 channels",
    ("batch_size: 1", 'crop_size: 4 mean_file: "m"'): "mean_file: m: no such file",
    ("batch_size: 1", 'crop_size: 9 mean_file: "mean.binaryproto"'): (
        "mean_file: mean.binaryproto: 3x9x8 (channels, height, width), too small for windows of "
        "3x9x9"
    ),
    ('batch_size: 1 root_folder: "sub/"', "crop_size: 4"): (
        "windows.txt lacks 1 of its 1 file: sub/im0.png"
    ),
}


@pytest.mark.parametrize(("param", "transform"), WINDOW_SETTINGS)
def test_window_settings_that_cannot_work(folder: Path, param: str, transform: str) -> None:
    write_mean((3, 9, 8))
    message = raised(lambda: windows(param, transform))
    expected = WINDOW_SETTINGS[param, transform]
    assert message.startswith(f'net.prototxt:1: layer "w" (WindowData): {expected}')


WINDOW_FILES = {
    ("", ""): "windows.txt: lists no images",
    ("# 0", "0"): 'windows.txt:1: "0" where "# INDEX" of an image should be',
    ("# 0", "# zero"): 'windows.txt:1: "# zero" where "# INDEX" of an image should be',
    ("im0.png\n3", "im0.png\n1"): "windows.txt:3: 1 channels; images are read in color, 3",
    ("\n20\n26", "\n26"): 'windows.txt:6: "1 0.9 2 3 5 6" where the number of windows should be',
    ("\n2\n", "\n3\n"): "windows.txt: ends where a window should be",
    ("\n2\n", "\n1\n"): 'windows.txt:8: "0 0.1 5 1 8 4" where "# INDEX" of an image should be',
    ("0.9 2", "2"): 'windows.txt:7: "1 2 3 5 6" is no window (class overlap x1 y1 x2 y2)',
    ("0.9 2", "0.9 2.5"): 'windows.txt:7: "1 0.9 2.5 3 5 6" is no window (class overlap x1',
    ("2 3 5 6", "2 3 1 6"): "windows.txt:7: window 2 3 1 6 is empty",
    ("1 0.9", "0 0.9"): "windows.txt:7: an object of class 0, which is background's",
    ("0 0.1", "2 0.9"): "windows.txt: has no background windows, but a batch needs 3",
    ("1 0.9", "1 0.1"): "windows.txt: has no object windows, but a batch needs 1",
    ("2 3 5 6", "2 3 26 6"): "im0.png: window 2 3 26 6 lies outside of the image, 26x20",
}


@pytest.mark.parametrize(("old", "new"), WINDOW_FILES)
def test_window_files_that_cannot_work(folder: Path, old: str, new: str) -> None:
    assert old in WINDOWS
    Path("windows.txt").write_text(WINDOWS.replace(old, new) if old else "\n")
    message = raised(windows)
    assert message.startswith(f'net.prototxt:1: layer "w" (WindowData): {WINDOW_FILES[old, new]}')


def test_windows_of_damaged_images(folder: Path) -> None:
    whole = Path("im0.png").read_bytes()
    Path("im0.png").write_bytes(whole[:-30])
    assert '"w" (WindowData): im0.png: damaged, or not an image (' in raised(windows)
    message = raised(lambda: place_of("context_pad: 1", "40 5 43 8"))
    assert "damaged" in message
    Path("im0.png").write_bytes(whole)
    message = raised(lambda: place_of("context_pad: 1", "40 5 43 8"))
    assert message.endswith("im0.png: window 40 5 43 8 lies outside of the image, 26x20")


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs the window file written for Caffe")
def test_windows_of_a_file_that_caffe_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN / "files")
    source = windows("batch_size: 8 fg_fraction: 0.25 context_pad: 1", "crop_size: 12")
    assert source.describe() == (
        "WindowData: 3 background and 3 object windows of 3 images that windows.txt lists"
    )
    assert source.next()["y"].tolist()[:6] == [0] * 6


def test_settings_of_old_files_are_ignored(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As in Caffe: of the layer's own message only ``scale`` is read besides its windows."""
    ignored_fields.warn_once.cache_clear()
    old = 'batch_size: 4 crop_size: 9 mirror: true mean_file: "m"'
    with windows() as source, windows(old) as other:
        assert np.array_equal(source.next()["x"], other.next()["x"])
    said = 'net.prototxt:1: layer "w" (WindowData): {0} has no effect here, nor in Caffe; '
    assert [line.partition("to have it")[0] for line in caplog.messages] == [
        said.format(name) for name in ("mean_file", "crop_size", "mirror")
    ]
