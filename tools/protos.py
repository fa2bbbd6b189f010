"""Regenerate ``netspec/proto`` from ``protos``: ``python tools/protos.py``.

The compiler is pinned and lives in a virtual environment that is thrown away afterwards. Code of
protoc 26 and later refuses every protobuf runtime older than itself; that of protoc 25 runs on all
from 4.25 on. Needs Python 3.11 or 3.12: the compiler has no wheels for later ones.
"""

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "netspec/proto"
# A compiler of this age imports pkg_resources, which setuptools 82 no longer has.
REQUIREMENTS = ("grpcio-tools==1.62.3", "setuptools<82")


def install_compiler(folder: Path) -> Path:
    """Make a virtual environment with the compiler in ``folder`` and return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
    subprocess.run([*install, *REQUIREMENTS], check=True)
    return python


def main() -> None:
    """Replace the generated modules and their stubs."""
    # The modules import each other by the path that protoc knows the sources by.
    sources = [f"{PACKAGE}/{path.name}" for path in sorted((ROOT / "protos").glob("*.proto"))]
    with tempfile.TemporaryDirectory() as folder:
        python = install_compiler(Path(folder, "venv"))
        output = Path(folder, "output")
        output.mkdir()
        options = [f"-I{PACKAGE}=protos", f"--python_out={output}", f"--pyi_out={output}"]
        compiler = [python, "-W", "ignore", "-m", "grpc_tools.protoc"]
        subprocess.run([*compiler, *options, *sources], cwd=ROOT, check=True)
        for path in (ROOT / PACKAGE).glob("*_pb2.py*"):
            path.unlink()
        shutil.copytree(output / PACKAGE, ROOT / PACKAGE, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
