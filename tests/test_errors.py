from pathlib import Path

import pytest

from netspec import errors
from netspec.errors import (
    GraphError,
    LayerError,
    NetSpecError,
    Place,
    WeightsError,
    blame,
    counted,
    fail,
    nearest,
    require,
    unreadable,
)

HERE = Place("net.prototxt", 7)


@pytest.mark.parametrize(
    ("place", "who", "text"),
    [
        (HERE, 'layer "a" (Crop)', 'net.prototxt:7: layer "a" (Crop): too large'),
        (HERE, "", "net.prototxt:7: too large"),
        (Place("net.prototxt"), "", "net.prototxt: too large"),
        (None, 'layer "a"', 'layer "a": too large'),
        (None, "", "too large"),
    ],
)
def test_a_message_says_where_who_and_what(place: Place | None, who: str, text: str) -> None:
    assert str(NetSpecError("too large", place, who)) == text


def test_the_tree_is_the_one_that_is_drawn() -> None:
    drawn = [
        line.split("── ")[1].split()[0]
        for line in (errors.__doc__ or "").splitlines()
        if "──" in line
    ]
    kinds = NetSpecError.__subclasses__()
    assert [kind.__name__ for kind in kinds] == drawn
    assert {kind.__base__ for kind in kinds} == {NetSpecError}


def test_blame_adds_what_is_not_known() -> None:
    with pytest.raises(LayerError) as error, blame(HERE, 'layer "a"'):
        raise LayerError("too large")
    assert str(error.value) == 'net.prototxt:7: layer "a": too large'


def test_blame_keeps_what_is_known() -> None:
    with pytest.raises(WeightsError) as error, blame(HERE, "outer"), blame(None, "inner"):
        raise WeightsError("too large", Place("a.caffemodel"))
    assert str(error.value) == "a.caffemodel: inner: too large"


def test_blame_lets_others_pass() -> None:
    with pytest.raises(ValueError, match=r"^too large$"), blame(HERE):
        raise ValueError("too large")


def test_require_and_fail() -> None:
    require(True, "fine")
    require([0], "fine")
    with pytest.raises(LayerError, match=r"^not fine$"):
        require([], "not fine")
    with pytest.raises(GraphError, match=r"^not fine$"):
        fail("not fine", GraphError)


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("conv", ["conv1", "pool1"], '; did you mean "conv1"?'),
        ("RELU", ["ReLU", "Power"], '; did you mean "ReLU"?'),
        ("Convolutoin", ["Convolution", "Deconvolution"], '; did you mean "Convolution"?'),
        ("quux", ["conv1", "pool1"], ""),
        ("conv", [], ""),
    ],
)
def test_the_nearest_name(name: str, known: list[str], hint: str) -> None:
    assert nearest(name, iter(known)) == hint


def test_numbers_and_what_they_count() -> None:
    assert [counted(n, "top") for n in range(3)] == ["0 tops", "1 top", "2 tops"]


def test_files_that_the_system_does_not_open(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "missing").read_text()
    assert unreadable("a.txt", missing.value) == "a.txt: no such file"
    with pytest.raises(IsADirectoryError) as folder:
        tmp_path.read_text()
    assert unreadable("a.txt", folder.value) == "a.txt: is a directory"
    assert unreadable("a.txt", OSError("Odd")) == "a.txt: odd"
