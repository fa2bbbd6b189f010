"""A progress bar on stderr."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import track


def with_progress(items: Iterable[Any], total: int) -> Iterable[Any]:
    """Items as they come, with a bar on stderr if that is a terminal."""
    console = Console(stderr=True)
    return track(items, "", total, console=console, transient=True, disable=not console.is_terminal)
