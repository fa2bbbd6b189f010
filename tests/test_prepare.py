"""What ``netspec data prepare`` says of the sets of the published FCNs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from set_folders import NYUD_NAMES, grid, picture, write, write_list, write_mat
from set_folders import context as context
from set_folders import nyud as nyud
from set_folders import siftflow as siftflow

from netspec.errors import SourceError
from netspec.sources.sets.prepare import DATA_SETS, Readiness, prepare


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOC with samples a, b, c in val and d in train, and SBD with b and d in train."""
    for name in "abcd":
        write(tmp_path / "voc/JPEGImages" / f"{name}.jpg", picture(1))
        write(tmp_path / "voc/SegmentationClass" / f"{name}.png", grid(0, 255, 20).astype("u1"))
    lists = tmp_path / "voc/ImageSets/Segmentation"
    write_list(lists / "val.txt", ["c", "b", "a"])
    write_list(lists / "train.txt", ["d"])
    for name in "bd":
        write(tmp_path / "sbd/img" / f"{name}.jpg", picture(2))
        mat = {"Segmentation": grid(0, 7).astype(np.uint8)}
        write_mat(tmp_path / "sbd/cls" / f"{name}.mat", "GTcls", mat)
    write_list(tmp_path / "sbd/train.txt", ["b", "d"])
    return tmp_path


def test_prepare_voc(voc: Path) -> None:
    lists, labels = voc / "voc/ImageSets/Segmentation", voc / "voc/SegmentationClass"
    shown = "5x3, classes 0 20 void of 0..20"
    expected = [
        f"PASCAL VOC in {voc / 'voc'}",
        f"  wrote {lists / 'seg11valid.txt'}: 2 samples, val without SBD's train",
        f"  train: 1 sample (1112 or 1464 when whole); {labels / 'd.png'}: {shown}",
        f"  val: 3 samples (1111 or 1449 when whole); {labels / 'c.png'}: {shown}",
        f"  seg11valid: 2 samples (736 when whole); {labels / 'a.png'}: {shown}",
    ]
    assert prepare("voc", voc / "voc", sbd=voc / "sbd") == Readiness(expected, True)
    assert (lists / "seg11valid.txt").read_text() == "a\nc\n"
    # What is there is left as it is.
    del expected[1]
    assert prepare("voc", voc / "voc", sbd=voc / "sbd") == Readiness(expected, True)


def test_prepare_voc_without_what_a_list_follows_from(voc: Path) -> None:
    missing = voc / "voc/ImageSets/Segmentation/seg11valid.txt"
    lines, ready = prepare("voc", voc / "voc", sbd=voc / "nil")
    why = f"  seg11valid.txt is val.txt without SBD's train.txt, which is not in {voc / 'nil'}"
    assert (lines[1], lines[-1], ready) == (why, f"  seg11valid: no {missing}", True)
    write_list(missing.with_name("val.txt"), [str(i) for i in range(1449)])
    lines, ready = prepare("voc", voc / "voc", sbd=voc / "sbd")
    assert lines[1].endswith("the val.txt of VOC 2011, 1111 names; this one has 1449")
    assert lines[3].startswith('  val: split "val" lacks 2898 of its 2898 files: ')
    assert lines[-1].startswith("  how to come by it: get VOCtrainval")
    assert not ready


def test_prepare_finds_labels_that_are_none(voc: Path) -> None:
    path = voc / "voc/SegmentationClass/c.png"
    write(path, grid(0, 21).astype("u1"))
    lines, ready = prepare("voc", voc / "voc", sbd=voc / "sbd")
    found = f"label 21 at (x 1, y 0) of {path}; the net has 21 classes (0..20) and ignores 255"
    assert f"  val: {found}" in lines
    assert not ready


def test_prepare_sbd(voc: Path) -> None:
    sbd = voc / "sbd"
    lines, ready = prepare("sbd", sbd)
    assert lines[1:] == [
        f"  train: 2 samples (8498 when whole); {sbd / 'cls/b.mat'}: 5x3, classes 0 7 of 0..20",
        f"  val: no {sbd / 'val.txt'}",
    ]
    assert ready
    assert not list(sbd.glob("cls/*.png"))
    lines, ready = prepare("sbd", sbd, convert=True)
    assert lines[-1] == f"  wrote 2 label images: {sbd / 'cls' / '*.png'}"
    image = Image.open(sbd / "cls/b.png")
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), grid(0, 7))


def test_prepare_nyud(nyud: Path) -> None:
    lines, ready = prepare("nyud", nyud)
    assert lines[1] == f"  wrote {nyud / 'trainval.txt'}: 3 samples, train and val"
    assert (nyud / "trainval.txt").read_text().split() == NYUD_NAMES
    assert lines[2] == (
        f"  trainval: 3 samples (795 when whole); {nyud / 'segmentation/img_5003.mat'}: "
        "5x3, 5x3, 5x3, classes 0 2 39 void of 0..39"
    )
    assert [line.split(":")[0].strip() for line in lines[2:]] == [
        "trainval",
        "train",
        "val",
        "test",
    ]
    assert ready


def test_prepare_siftflow(siftflow: Path) -> None:
    lines, ready = prepare("siftflow", siftflow)
    written = siftflow / "trainval.txt"
    assert lines[1] == f"  wrote {written}: 1 sample, images that test.txt does not list"
    # street_urb506 is known to have no labels.
    assert written.read_text() == "coast_a1\n"
    assert lines[2].endswith("5x3, classes 0 9 32 void of 0..32, classes 0 1 2 void of 0..2")
    assert ready


def test_prepare_context(context: Path) -> None:
    root = context / "pascal-context"
    lines, ready = prepare("context", root)
    sample = f"{root / 'trainval/2008_000002.mat'}: 5x3, classes 0 1 2 3 4 of 0..59"
    assert lines[1] == f"  train: 2 samples (4998 when whole); {sample}"
    assert ready
    (context / "pascal").rename(root / "VOCdevkit")
    assert prepare("context", root) == Readiness(lines, True)


@pytest.mark.parametrize("name", DATA_SETS)
def test_prepare_says_where_a_set_comes_from(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines, ready = prepare(name)
    assert lines[0].endswith(f" in {DATA_SETS[name].default}")
    assert lines[1].startswith("  not there: get ")
    assert not ready
    # A folder with nothing in it.
    lines, ready = prepare(name, ".")
    assert lines[-1].startswith("  how to come by it: get ")
    assert not ready
    assert list(tmp_path.iterdir()) == []


def test_prepare_refusals(nyud: Path) -> None:
    with pytest.raises(SourceError, match=r'^unknown data set "nyu" \(voc, sbd, nyud, .*"nyud"\?'):
        prepare("nyu")
    with pytest.raises(SourceError, match=r"^convert: nyud needs no conversion$"):
        prepare("nyud", nyud, convert=True)
