"""Looking at a net imports no module that its prototxt names, unless it is asked to."""

import os
import re
import sys
from pathlib import Path

import pytest
from command_line import mistake, output, run

import netspec
from netspec import caffe
from netspec.errors import LayerError, SourceError
from netspec.inspect.look import look_at

SPY = """
import caffe

open("imported", "w").close()

class Spy(caffe.Layer):
    def setup(self, bottom, top):
        open("set_up", "w").close()

    def reshape(self, bottom, top):
        top[0].reshape(1, 2)

    def forward(self, bottom, top):
        top[0].data[...] = 5

    def backward(self, top, propagate_down, bottom):
        pass
"""
INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }\n'
PARAM = 'python_param { module: "MODULE" layer: "Spy" } }\n'
AFTER = 'layer { name: "r" type: "ReLU" bottom: "p" top: "r" }\n'
MIDDLE = INPUT + 'layer { name: "p" type: "Python" bottom: "x" top: "p" ' + PARAM + AFTER
DATA = 'layer { name: "p" type: "Python" top: "p" ' + PARAM + AFTER
WHY = (
    "runs spy_layers.Spy, and a module that a prototxt names is not imported unless asked for; if "
    "you trust it, give --run-python, or run_python=True in Python"
)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "spy_layers", raising=False)
    Path("spy_layers.py").write_text(SPY)
    os.makedirs("package")
    Path("package/__init__.py").write_text(SPY)
    Path("package/inner.py").write_text(SPY)


def written(text: str, module: str = "spy_layers") -> str:
    Path("net.prototxt").write_text(text.replace("MODULE", module))
    return "net.prototxt"


def ran() -> bool:
    return Path("imported").exists() or Path("set_up").exists()


@pytest.mark.differs("look-runs-nothing")
@pytest.mark.parametrize("text", [MIDDLE, DATA], ids=["middle", "data"])
@pytest.mark.parametrize("module", ["spy_layers", "package.inner", "package.not_there"])
def test_looking_runs_nothing(text: str, module: str) -> None:
    net = written(text, module)
    line = text.splitlines().index(next(x for x in text.splitlines() if "Python" in x)) + 1
    said = f'net.prototxt:{line}: layer "p" (Python): {WHY}\n'.replace("spy_layers", module)
    assert output("draw", net, "-o", "net.svg") == f"{said}net.svg\n"
    assert f"Python {module}.Spy<" in Path("net.svg").read_text()
    table = output("summary", net)
    assert table.startswith(said)
    assert re.search(rf"^p +Python .*  {re.escape(module)}\.Spy$", table, re.M), table
    assert output("rf", net).startswith(said)
    assert output("caffe", "draw_net", net, "drawn.svg") == f"Drawing net to drawn.svg\n{said}"
    output("upgrade", net, "new.prototxt")
    look_at(net, "train")
    assert not ran()


def test_receptive_fields_end_at_what_is_not_run() -> None:
    note, *lines = output("rf", written(MIDDLE)).splitlines()
    assert note.endswith(WHY)
    keeps_none = 'has no coordinates on "x": layer "p" (Python) keeps none'
    assert lines[-4:-1] == [f"p {keeps_none}", f"r {keeps_none}", ""]
    # The reason why a blob has no field comes after the note.
    assert run("rf", "net.prototxt", "r").output.startswith(f"{note}\nnetspec: ")
    assert "asked for" not in output("rf", "--run-python", "net.prototxt")


@pytest.mark.parametrize(
    ("text", "error"), [(MIDDLE, LayerError), (DATA, SourceError)], ids=["middle", "data"]
)
def test_load_runs_nothing_and_says_what_to_pass(text: str, error: type[Exception]) -> None:
    net = written(text)
    with pytest.raises(
        error, match=r'layer "p" \(Python\): runs spy_layers.Spy, .*run_python=True'
    ):
        netspec.load(net)
    assert not ran()


def test_surgery_and_data_show_run_nothing() -> None:
    assert mistake("surgery", written(MIDDLE), "-o", "w.caffemodel").endswith(WHY)
    assert mistake("data", "show", written(DATA)).endswith(WHY)
    assert not ran()


def test_given_shapes_stand_in_for_data_that_is_not_read() -> None:
    net = netspec.load(written(DATA), shapes={"p": (1, 2)})
    assert net(p=[[-1, 3]])["r"].tolist() == [[0, 3]]
    assert not ran()


@pytest.mark.parametrize("text", [MIDDLE, DATA], ids=["middle", "data"])
def test_the_flag_runs_it(text: str) -> None:
    table = output("summary", "--run-python", written(text))
    assert re.search(r"^p +Python +1x2 .*  spy_layers\.Spy$", table, re.M), table
    assert "asked for" not in table
    assert ran()
    drawn = output("caffe", "draw_net", "--run-python", "net.prototxt", "drawn.dot")
    assert drawn == "Drawing net to drawn.dot\n"
    assert '"p 1x2"' in Path("drawn.dot").read_text()
    assert netspec.load("net.prototxt", run_python=True).shapes["r"] == (1, 2)


@pytest.mark.parametrize("text", [MIDDLE, DATA], ids=["middle", "data"])
def test_pycaffe_runs_it(text: str) -> None:
    net = caffe.Net(written(text), caffe.TEST)
    assert net.forward()["r"].tolist() == [[5, 5]]
    assert ran()


def test_netspecs_own_layers_need_no_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of published FCNs: ours are read, a file of that name beside them is not run."""
    Path("voc_layers.py").write_text(SPY)
    text = DATA.replace("Spy", "VOCSegDataLayer").replace(
        "layer: ", "param_str: \"{'voc_dir': 'voc', 'split': 'train'}\" layer: "
    )
    said = output("summary", written(text, "voc_layers").replace('top: "p"', 'top: "p" top: "l"'))
    assert "the data is not here" in said
    assert not ran()
