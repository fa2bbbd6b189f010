"""Programs with layers that run on the host, or that cannot be compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax

from netspec.errors import blame
from netspec.frontend.graph import Graph
from netspec.layers.host_errors import host_errors

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def runnable(graph: Graph, compiled: AnyFunction) -> AnyFunction:
    """``compiled`` as a net can run it: the plain function in it where it cannot be compiled.

    What a layer on the host raises arrives as its own error, with its place.
    """
    function = compiled.__wrapped__ if graph.data_dependent else compiled  # type: ignore[attr-defined]
    if not graph.on_host:
        return function

    def finished(*args: Any) -> Any:
        with host_errors() as reports:
            try:
                return jax.block_until_ready(function(*args))
            except Exception as error:
                for node in graph.on_host:
                    for layer, failure in reports:
                        if layer is node.layer:
                            with blame(node.place, node.who):
                                raise failure from error
                raise

    return finished  # type: ignore[return-value]
