"""What ``netspec run`` adds to the errors of a script: that it is written for Python 2."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from netspec import caffe
from netspec.cli import main

TOLD = (
    "this looks like a Python 2 script, and netspec runs Python 3: convert it, by 2to3 -w (Python "
    "3.12 and before) or by futurize -w (of the package future)\n"
)


def output(path: Path, script: str) -> str:
    (path / "script.py").write_text(script)
    try:
        result = CliRunner().invoke(main, ["run", str(path / "script.py")])
    finally:
        caffe.uninstall()
    assert result.exit_code == 1
    return result.output


@pytest.mark.parametrize(
    "script",
    [
        'import caffe\nprint "phase", caffe.TEST\n',
        'import sys\nprint >>sys.stderr, "no"\n',
        "for i in xrange(3): pass\n",
        "{}.iteritems()\n",
        "{}.has_key(1)\n",
        "{}.keys()[0]\n",
        "map(int, [1])[0]\n",
        "import cPickle\n",
        "try:\n    pass\nexcept IOError, e:\n    pass\n",
        'raise ValueError, "no"\n',
        "x = 10L\n",
        "x = 0777\n",
        "if 1 <> 2: pass\n",
    ],
)
def test_python_2(tmp_path: Path, script: str) -> None:
    found = output(tmp_path, script)
    assert found.startswith(("Traceback", "  File"))
    assert found.endswith(TOLD)


@pytest.mark.parametrize(
    "script", ["x = [1, 2\n", "foo\n", "import nowhere\n", "(1).bar\n", "1 + ''\n", "x = 3x\n"]
)
def test_other_mistakes(tmp_path: Path, script: str) -> None:
    assert "Python 2" not in output(tmp_path, script)
