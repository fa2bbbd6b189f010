"""``netspec draw``."""

import re
import shutil
from pathlib import Path

import pytest
from command_line import DEPLOY, FORK, UNKNOWN, WEIGHTS, mistake, output
from command_line import here as here
from command_line import signals as signals
from command_line import trained as trained


def test_draw(here: Path) -> None:
    assert output("draw", "net.prototxt", "-o", "net.svg") == "net.svg\n"
    drawing = Path("net.svg").read_text()
    assert drawing.lstrip().startswith("<")
    assert "conv" in drawing
    assert "32" in drawing


def test_draw_another_phase_or_shape(here: Path) -> None:
    """Without being asked, the train net as its file has it; one that has no loss as it is used."""
    phases = "".join(
        f'layer {{ name: "in{phase}" type: "Input" top: "x" include {{ phase: {phase} }} '
        "input_param { shape { dim: [1, 2] } } }"
        for phase in ("TRAIN", "TEST")
    )
    phases += 'layer { name: "sum" type: "Reduction" bottom: "x" top: "sum" loss_weight: 1 }'
    Path("phases.prototxt").write_text(phases)
    for option, kept, gone in ((["--phase", "test"], "TEST", "TRAIN"), ([], "TRAIN", "TEST")):
        output("draw", "phases.prototxt", *option, "-o", "phases.dot")
        assert f"in{kept}" in Path("phases.dot").read_text()
        assert f"in{gone}" not in Path("phases.dot").read_text()
    assert "71" not in Path("deploy.prototxt").read_text()
    output("draw", "deploy.prototxt", "--shape", "data=1,3,71,53", "-o", "deploy.dot")
    assert "71" in Path("deploy.dot").read_text()
    output("draw", "deploy.prototxt", "-o", "deploy.svg")
    assert "phase TEST" in Path("deploy.svg").read_text()


def test_draw_without_the_data(here: Path) -> None:
    """Shapes that hang on data may be given; without them a net is drawn without."""
    shutil.rmtree("voc")
    assert output("draw", "net.prototxt", "-o", "net.dot") == (
        "without the shapes that hang on data, label, as the data is not here; "
        "give --shape data=1,3,500,500\nnet.dot\n"
    )
    assert 'label="conv ?"' in Path("net.dot").read_text()
    shapes = ["--shape", "data=1,3,71,53", "--shape", "label=1,1,71,53"]
    assert output("draw", "net.prototxt", "-o", "net.dot", *shapes) == "net.dot\n"
    assert "71" in Path("net.dot").read_text()


def test_draw_a_net_with_unknown_layers(here: Path) -> None:
    """They are drawn as what they are, once said for each type; to run them is refused."""
    Path("fork.prototxt").write_text(FORK)
    assert output("draw", "fork.prototxt", "-o", "fork.svg") == f"{UNKNOWN}fork.svg\n"
    drawing = Path("fork.svg").read_text()
    for words in ("Interp", "unknown", "1x2x5x7", ">?<", "as far as shapes are known"):
        assert words in drawing
    assert mistake("test", "fork.prototxt") == UNKNOWN.splitlines()[0]


def test_look_at_a_net_whose_python_is_elsewhere(here: Path) -> None:
    layer = """layer { name: "own" type: "Python" bottom: "data" top: "own"
  python_param { module: "elsewhere" layer: "Own" } }
"""
    Path("own.prototxt").write_text(DEPLOY + layer)
    said = (
        'own.prototxt:11: layer "own" (Python): no module "elsewhere" in the current folder or on '
        "PYTHONPATH; it should define the class Own\n"
    )
    run = ("own.prototxt", "--run-python")
    assert output("draw", *run, "-o", "own.svg") == f"{said}own.svg\n"
    table = output("summary", *run)
    assert table.startswith(said)
    assert re.search(r"^own +Python( +\?){4}  elsewhere\.Own$", table, re.M)


def test_draw_a_net_with_an_unknown_field(here: Path) -> None:
    Path("fork.prototxt").write_text(
        FORK.replace('top: "b"', 'top: "b" interp_param { pad_beg: 0 }')
    )
    assert 'unknown field "interp_param"' in mistake("draw", "fork.prototxt", "-o", "fork.svg")


DRAWS = [
    ("nowhere.prototxt -o net.svg", "nowhere.prototxt: no such file"),
    (f"{WEIGHTS} -o net.svg", f"{WEIGHTS}: not a text file; weights (.caffemodel) are given beside "
     "the net, not instead of it"),
    ("net.prototxt -o log.txt/net.svg", "log.txt/net.svg: not a directory"),
    ("deploy.prototxt -o net.svg --shape data", "--shape data: write it as data=1,3,500,500"),
    ("deploy.prototxt -o net.svg --shape data=1,3,x,5", "--shape data=1,3,x,5: write it as "
     "data=1,3,500,500"),
    ("deploy.prototxt -o net.svg --shape dta=1,3,5,7", 'deploy.prototxt: no input blob "dta"; the '
     "net is fed data"),
    ("deploy.prototxt -o net.svg --shape data=1,3,-5,7", 'deploy.prototxt:1: layer "in" (Input): '
     'blob "data" is 1x3x-5x7; no size can be negative'),
    ("net.prototxt -o net.svg --shape data=1,3,7,5", 'net.prototxt:16: layer "loss" '
     "(SoftmaxWithLoss): scores 1x6x7x5 need 35 labels, one for each position off axis 1, but "
     "labels are 1x1x32x40"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), DRAWS, ids=[arguments for arguments, _ in DRAWS])
def test_draw_mistakes(here: Path, arguments: str, message: str) -> None:
    assert mistake("draw", *arguments.split()) == message
    assert not Path("net.svg").exists()


@pytest.mark.parametrize("out", ["net.pdf", "net", ".svg", "snap"])
def test_draw_to_another_kind_of_file(here: Path, out: str) -> None:
    message = mistake("draw", "deploy.prototxt", "-o", out)
    assert message.startswith(f"{out}: cannot draw ")
    assert message.endswith("ends in .svg, .png or .dot")
