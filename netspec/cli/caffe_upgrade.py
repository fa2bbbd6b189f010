"""Caffe's three ``upgrade_*`` tools as verbs of ``netspec caffe``. Imports no JAX.

Caffe: ``upgrade_net_proto_text.cpp``, ``upgrade_net_proto_binary.cpp``,
``upgrade_solver_proto_text.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable

import click

from netspec.cli.caffe_flags import Flagged
from netspec.frontend.upgrade import upgrade_net_file, upgrade_solver_file, upgrade_weights_file
from netspec.reporting.glog import GlogWriter


@click.command("upgrade_net_proto_text", cls=Flagged)
@click.argument("old")
@click.argument("new")
def upgrade_net_proto_text(old: str, new: str) -> None:
    """Write net prototxt OLD in the current schema to NEW."""
    _upgrade(upgrade_net_file, old, new, "NetParameter text proto")


@click.command("upgrade_net_proto_binary", cls=Flagged)
@click.argument("old")
@click.argument("new")
def upgrade_net_proto_binary(old: str, new: str) -> None:
    """Write .caffemodel OLD in the current schema to NEW."""
    _upgrade(upgrade_weights_file, old, new, "NetParameter binary proto")


@click.command("upgrade_solver_proto_text", cls=Flagged)
@click.argument("old")
@click.argument("new")
def upgrade_solver_proto_text(old: str, new: str) -> None:
    """Write solver prototxt OLD in the current schema to NEW."""
    _upgrade(upgrade_solver_file, old, new, "SolverParameter text proto")


def _upgrade(upgrade: Callable[[str, str], bool], old: str, new: str, what: str) -> None:
    with GlogWriter() as log:
        if not upgrade(old, new):
            log.say(f"File already in latest proto format: {old}")
        log.say(f"Wrote upgraded {what} to {new}")
