"""Write the prototxts in ``nets/`` from the ``net.py`` beside them.

python tools/nets.py [FOLDER ...]     all folders, or those named
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# `nets.fcn` is not installed, and this file must not stand before it as `nets`.
sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path) != ROOT / "tools")]

from netspec.frontend.prototxt import write  # noqa: E402

PHASES = {"train": "training", "val": "validation", "deploy": "use, without labels or loss"}


def folders() -> list[Path]:
    """The folders in ``nets/`` that have a generator."""
    return sorted(path.parent for path in (ROOT / "nets").glob("*/net.py"))


def prototxts(folder: Path) -> dict[Path, str]:
    """Each file that a folder's generator writes -> its text."""
    generator = runpy.run_path(str(folder / "net.py"))
    title = generator["__doc__"].splitlines()[0]
    texts = {}
    for phase, purpose in PHASES.items():
        net = generator["net"](phase).to_proto()
        net.name = folder.name
        head = (
            f"# {title}\n# For {purpose}. Written by net.py: change that, then run tools/nets.py.\n"
        )
        texts[folder / f"{phase}.prototxt"] = f"{head}\n{write(net)}"
    return texts


def main(names: list[str]) -> None:
    """Write the files of the folders named, or of all."""
    for folder in [ROOT / "nets" / name for name in names] or folders():
        for path, text in prototxts(folder).items():
            path.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
