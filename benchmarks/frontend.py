"""What comes before XLA: ``python -m benchmarks.frontend``.

The stages of the compiler on residual nets of 1,000 and 10,000 layers, beside protobuf's own parser
on the same text, and how long commands take that compute nothing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from google.protobuf import text_format

from benchmarks.figures import Row, machine, tell
from benchmarks.rounds import Run, rates
from netspec.frontend.graph import connect
from netspec.frontend.phase import select, state_of
from netspec.frontend.prototxt import parse_net, write
from netspec.frontend.shapes import infer
from netspec.frontend.upgrade import upgrade
from netspec.proto.layers_pb2 import TRAIN
from netspec.proto.net_pb2 import NetParameter
from netspec.spec import NetSpec
from netspec.spec import layers as L

AIMS = {1_000: "netspec under 300 ms", 10_000: "as many times longer"}
# A block of the net below.
_BLOCK = 5


def residual(layers: int) -> str:
    """The prototxt of a net of about so many layers: convolutions with what usually follows."""
    n = NetSpec()
    n.data = top = L.Input(shape={"dim": [1, 16, 64, 64]})
    for i in range(layers // _BLOCK):
        conv = L.Convolution(
            top,
            num_output=16,
            kernel_size=3,
            pad=1,
            weight_filler={"type": "msra"},
            param=[{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}],
        )
        normal = L.BatchNorm(conv, in_place=True)
        scaled = L.Scale(normal, bias_term=True, in_place=True)
        top = L.Eltwise(L.ReLU(scaled, in_place=True), top)
        n[f"sum{i}"] = top
    return write(n.to_proto())


def stages(text: str) -> dict[str, Callable[[], object]]:
    """What is timed on a prototxt, each stage on what the ones before it made."""
    parsed = parse_net(text)
    current = upgrade(parsed)
    state = state_of(current, TRAIN)
    selected = select(current, state)
    connected = connect(selected)
    return {
        "protobuf": lambda: text_format.Parse(text, NetParameter()),
        "parse": lambda: parse_net(text),
        "upgrade and select": lambda: select(upgrade(parsed), state),
        "connect": lambda: connect(selected),
        "shapes": lambda: infer(connected),
        "all": lambda: infer(connect(select(upgrade(parse_net(text)), state))),
    }


def compiler(layers: int, rounds: int) -> Row:
    """Milliseconds of each stage on a net of so many layers."""
    runs = {name: partial(_once, stage) for name, stage in stages(residual(layers)).items()}
    ms = {name: 1000 / rate.things for name, rate in rates(runs, rounds).items()}
    return {
        "what": f"{layers:,} layers",
        "protobuf's parser, ms": ms["protobuf"],
        "netspec, ms": ms["all"],
        "ratio": ms["all"] / ms["protobuf"],
        "of it": ", ".join(f"{name} {ms[name]:.0f}" for name in list(ms)[1:-1]),
        "aim": AIMS.get(layers, ""),
    }


def commands(rounds: int) -> list[Row]:
    """Milliseconds from start to end of commands, and of Python alone."""
    with TemporaryDirectory(prefix="netspec-frontend-") as name:
        net = Path(name) / "net.prototxt"
        net.write_text(residual(100))
        arguments: Mapping[str, tuple[str, list[str]]] = {
            "python -c pass": ("", ["-c", "pass"]),
            "netspec --help": ("under 200 ms", ["-m", "netspec", "--help"]),
            "netspec layers": ("", ["-m", "netspec", "layers"]),
            "netspec upgrade, 100 layers": (
                "",
                ["-m", "netspec", "upgrade", f"{net}", f"{net}.new"],
            ),
            "netspec summary, 100 layers": ("", ["-m", "netspec", "summary", f"{net}"]),
        }
        runs: dict[str, Run] = {
            name: partial(_started, words) for name, (_, words) in arguments.items()
        }
        found = rates(runs, rounds)
    rows: list[Row] = []
    for name, (aim, _) in arguments.items():
        rows.append({"what": name, "ms": 1000 / found[name].things, "aim": aim})
    return rows


def _once(stage: Callable[[], object]) -> int:
    stage()
    return 1


def _started(arguments: list[str]) -> int:
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return 1


@click.command()
@click.option("--json", "path", metavar="FILE", help="Write the figures there, too.")
@click.option("--rounds", default=5, show_default=True, help="Take the median of so many.")
@click.option("--layers", default=list(AIMS), show_default=True, multiple=True, help="Of the nets.")
def main(path: str | None, rounds: int, layers: tuple[int, ...]) -> None:
    """Measure what comes before XLA."""
    nets = [compiler(count, rounds) for count in layers]
    tell([nets, commands(rounds)], machine("protobuf"), path)


if __name__ == "__main__":
    main()
