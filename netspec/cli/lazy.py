"""Commands whose modules are imported when they run.

JAX takes seconds to import, and ``netspec --help`` needs none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyCommand(click.Command):
    """A command of which a group knows the name and one line of help.

    The module that has the rest is imported when the command's arguments are parsed.
    """

    def __init__(self, name: str, module: str, summary: str) -> None:
        """Stand for the command ``name`` of a module; summary: its docstring's first sentence."""
        super().__init__(name, help=summary)
        self._module = module

    @property
    def command(self) -> click.Command:
        """The command itself; imports its module."""
        found: click.Command = getattr(import_module(self._module), str(self.name))
        return found

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse ``args`` as the command itself does."""
        return self.command.make_context(info_name, args, parent, **extra)


def add_lazily(group: click.Group, verbs: Mapping[str, Mapping[str, str]]) -> None:
    """Add commands to a group.

    verbs: module of ``netspec.cli`` -> name of each command in it -> its summary.
    """
    for module, summaries in verbs.items():
        for name, summary in summaries.items():
            group.add_command(LazyCommand(name, f"netspec.cli.{module}", summary))
