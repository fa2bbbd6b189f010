"""The compiler's table of contents: a prototxt becomes a net, a line a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from netspec.frontend.graph import connect
from netspec.frontend.phase import phase_of, select, state_of
from netspec.frontend.prototxt import read_net
from netspec.frontend.shape_cache import shared_shapes
from netspec.frontend.unshaped_inputs import feed_unshaped_inputs
from netspec.frontend.upgrade import upgrade
from netspec.layers import create
from netspec.layers.base import Shape
from netspec.layers.placeholder import create_unimported
from netspec.runtime.compute_policy import ComputePolicy
from netspec.runtime.module import Net
from netspec.sources.feed import shapes_of_sources
from netspec.weights.caffemodel import copy_into, read_weights


def load(
    prototxt: str | Path,
    caffemodel: str | Path | None = None,
    phase: str = "test",
    shapes: Mapping[str, Shape] | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    seed: int = 0,
    dtype: str = "f32",
    run_python: bool = False,
) -> Net:
    """A net from its prototxt, with weights if a .caffemodel (or .h5) is named.

    phase: "train", or "test", the default. shapes: blob name -> (N, C, H, W) of inputs, where the
    prototxt does not state them or states others; a data layer without one is opened to see. seed:
    for the fillers. dtype: "f32", "tf32" or "bf16", what it computes in (see `ComputePolicy`).
    run_python: whether Python layers' modules, which the prototxt names, are imported and run;
    without it a net that needs one raises LayerError or SourceError. Raises a NetSpecError that
    says where and what.
    """
    number = phase_of(phase)
    text = read_net(prototxt)
    current = upgrade(text)
    selected = select(current, state_of(text, number, level, stages))
    fed = feed_unshaped_inputs(selected, text.message.input)
    graph = connect(fed, create if run_python else create_unimported)
    given = shapes_of_sources(graph, shapes or {}, run_python=run_python)
    net = Net(shared_shapes(graph, given), seed, ComputePolicy(dtype))
    if caffemodel is not None:
        copy_into(net, read_weights(caffemodel))
    return net
