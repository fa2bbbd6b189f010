"""Scripts for pycaffe as they are: ``import caffe``, in a notebook and by ``netspec run``."""

import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner, Result

from netspec import caffe
from netspec.cli import main

SUBMODULES = """
    caffe caffe.io caffe.proto caffe.proto.caffe_pb2 caffe.net_spec caffe.coord_map caffe.draw
    caffe.classifier caffe.detector caffe.pycaffe caffe._caffe
""".split()
# What scripts find in pycaffe.
EXPORTS = """
    Net SGDSolver NesterovSolver AdaGradSolver RMSPropSolver AdaDeltaSolver AdamSolver NCCL Timer
    init_log log set_mode_cpu set_mode_gpu set_device Layer get_solver layer_type_list
    set_random_seed solver_count set_solver_count solver_rank set_solver_rank set_multiprocess
    has_nccl __version__ TRAIN TEST Classifier Detector io layers params NetSpec to_proto
    pycaffe _caffe
""".split()


ROOT = Path(__file__).resolve().parents[1]
LAYER = """
class Value(caffe.Layer):
    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        top[0].data[...] = VALUE
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", [*sys.argv])
    yield tmp_path
    caffe.uninstall()


@pytest.mark.parametrize("name", SUBMODULES)
def test_install(name: str) -> None:
    caffe.install()
    caffe.install()
    found = importlib.import_module(name)
    assert found is importlib.import_module(f"netspec.{name}")
    caffe.uninstall()
    assert not any(module.partition(".")[0] == "caffe" for module in sys.modules)
    caffe.uninstall()


def test_what_netspec_has_not() -> None:
    caffe.install()
    with pytest.raises(ModuleNotFoundError, match=r"^netspec has no caffe\.nonsense$"):
        importlib.import_module("caffe.nonsense")


def test_an_installed_pycaffe_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, part = ModuleType("caffe"), ModuleType("caffe.io")
    monkeypatch.setitem(sys.modules, "caffe", theirs)
    monkeypatch.setitem(sys.modules, "caffe.io", part)
    caffe.install()
    assert importlib.import_module("caffe.io") is caffe.io
    caffe.uninstall()
    assert importlib.import_module("caffe") is theirs
    assert importlib.import_module("caffe.io") is part


@pytest.mark.parametrize("name", EXPORTS)
def test_exports(name: str) -> None:
    assert hasattr(caffe, name)


@pytest.mark.parametrize("part", [caffe.pycaffe, caffe._caffe])
def test_parts_have_the_same(part: ModuleType) -> None:
    names = [name for name in EXPORTS if hasattr(part, name)]
    assert {"Net", "SGDSolver", "AdamSolver", "Timer"} <= set(names)
    assert [name for name in names if getattr(part, name) is not getattr(caffe, name)] == []


def test_messages_are_written_as_by_pycaffe() -> None:
    names = caffe.net_spec.param_name_dict()
    assert (names["InnerProduct"], names["ReLU"]) == ("inner_product", "relu")
    layer = caffe.caffe_pb2.LayerParameter()
    caffe.net_spec.assign_proto(layer, "bottom", ["a", "b"])
    caffe.net_spec.assign_proto(layer, "param", [{"lr_mult": 2}])
    caffe.net_spec.assign_proto(layer.convolution_param, "kernel_size", 3)
    assert (list(layer.bottom), layer.param[0].lr_mult) == (["a", "b"], 2)
    assert list(layer.convolution_param.kernel_size) == [3]


@pytest.mark.differs("device")
@pytest.mark.differs("nccl")
def test_switches() -> None:
    assert {"Data", "Convolution", "Python"} <= set(caffe.layer_type_list())
    assert (caffe.solver_count(), caffe.solver_rank(), caffe.has_nccl()) == (1, 0, False)
    caffe.set_multiprocess(True)
    timer = caffe.Timer()
    timer.start()
    timer.stop()
    assert 0 <= timer.ms < 1000
    caffe.set_mode_cpu()
    caffe.set_device(0)
    caffe.set_mode_gpu()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["run", *arguments], catch_exceptions=False)


def test_run_is_as_python_does() -> None:
    Path("tools").mkdir()
    Path("tools/helper.py").write_text("import caffe.io\nNAME = caffe.io.__name__\n")
    Path("tools/script.py").write_text(
        "import sys\nimport helper, caffe\n"
        "if __name__ == '__main__':\n"
        "    print(__file__, sys.argv[1:], helper.NAME, caffe.TRAIN)\n"
        "    sys.exit(len(sys.argv))\n"
    )
    done = run("tools/script.py", "-h", "--gpu", "0")
    assert done.stdout == f"tools/script.py ['-h', '--gpu', '0'] netspec.caffe.io {caffe.TRAIN}\n"
    assert done.exit_code == 4


def test_the_script_s_folder_goes_first() -> None:
    """As for all that Python imports; then the current folder, as for every command."""
    Path("tools").mkdir()
    for folder, value in ((".", 1), ("tools", 2)):
        text = "import caffe\n" + LAYER.replace("VALUE", str(value))
        Path(folder, "of_both.py").write_text(text)
    Path("of_one.py").write_text(Path("of_both.py").read_text())
    Path("tools/script.py").write_text(
        "import caffe\n"
        "for name in ('of_both', 'of_one'):\n"
        "    with open('net.prototxt', 'w') as file:\n"
        '        file.write(\'layer { name: "x" type: "Python" top: "x" python_param { \'\n'
        '                   f\'module: "{name}" layer: "Value" }} }}\')\n'
        "    print(caffe.Net('net.prototxt', caffe.TEST).forward()['x'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "netspec", "run", "tools/script.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("[2.]\n[1.]\n", 0), done.stderr


def test_run_a_module() -> None:
    Path("package").mkdir()
    Path("package/__init__.py").write_text("")
    Path("package/__main__.py").write_text("import sys, caffe\nprint(caffe.__name__, sys.argv[1:])")
    assert run("-m", "package", "-x").stdout == "netspec.caffe ['-x']\n"


def test_what_a_script_raises_is_its_own() -> None:
    Path("wrong.py").write_text("import caffe\n\n\ncaffe.Net('no.prototxt', caffe.TEST)\n")
    done = run("wrong.py")
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert lines[:2] == [
        "Traceback (most recent call last):",
        '  File "wrong.py", line 4, in <module>',
    ]
    assert lines[-1] == "netspec.errors.ParseError: no.prototxt: no such file"
    assert run("absent.py").stderr == "netspec: absent.py: no such file\n"


def test_a_process_with_threads_under_way_ends_well() -> None:
    Path("net.prototxt").write_text(
        'layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 99 dim: 99 } '
        'data_filler { type: "gaussian" } } }'
    )
    script = (
        "import netspec.caffe as c; c.install(); import caffe;"
        "print(caffe.Net('net.prototxt', caffe.TRAIN).forward()['x'].shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "JAX_PLATFORMS": "cpu"},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(99, 99)\n", "")


RECORDS = """
import numpy as np

import caffe


class Records(caffe.Layer):
    def setup(self, bottom, top):
        top[0].reshape(2, 3)

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        top[0].data[...] = self.records
"""


def test_a_data_layer_is_handed_its_data_when_the_net_is_built(folder: Path) -> None:
    """As detectors' training scripts do it."""
    (folder / "records.py").write_text(RECORDS)
    (folder / "net.prototxt").write_text(
        'layer { name: "data" type: "Python" top: "data" '
        'python_param { module: "records" layer: "Records" } }'
    )
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    assert net.blobs["data"].data.shape == (2, 3)
    net.layers[0].records = 7
    assert (net.forward()["data"] == 7).all()


def test_what_a_pass_returns_is_printed_and_pickled(folder: Path) -> None:
    """Which other processes and notebooks do with it."""
    (folder / "net.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }'
        'layer { name: "y" type: "Power" bottom: "x" top: "y" power_param { shift: 1 } }'
    )
    made = caffe.Net("net.prototxt", caffe.TEST).forward()
    assert repr(made) == "{'y': array([1., 1.], dtype=float32)}"
    assert pickle.loads(pickle.dumps(made))["y"].tolist() == [1, 1]


@pytest.mark.differs("errors")
def test_mistakes_are_of_the_types_that_scripts_catch(folder: Path) -> None:
    with pytest.raises(OSError, match=r"^no\.png: no such file$"):
        caffe.io.load_image("no.png")
    assert not hasattr(caffe.params.Pooling, "NOPE")
    assert caffe.Layer().type == "Python"


def test_blobs_of_a_layer_are_not_replaced(folder: Path) -> None:
    (folder / "net.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }'
        'layer { name: "y" type: "InnerProduct" bottom: "x" top: "y" '
        "inner_product_param { num_output: 1 } }"
    )
    net = caffe.Net("net.prototxt", caffe.TEST)
    with pytest.raises(TypeError, match=r"^a BlobVec shows what its net has"):
        net.params["y"][0] = np.zeros((1, 2))
    words = r'^the blobs of a net are not replaced; write \["[xyz]"\]\.data\[\.\.\.\] = array, '
    for blobs, name, value in (
        (net.blobs, "x", np.zeros((1, 2))),
        (net.blobs, "z", np.zeros((1, 2))),
        (net.blobs, "x", net.blobs["y"]),
        (net.params, "y", net.params["y"]),
    ):
        with pytest.raises(TypeError, match=words):
            blobs[name] = value
    assert list(net.blobs) == ["x", "y"]
