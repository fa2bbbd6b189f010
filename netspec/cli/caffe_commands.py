"""``netspec caffe train``, ``test``, ``time`` and ``device_query``.

Lines go to stderr, as glog's do. Caffe: ``tools/caffe.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click
import numpy as np

from netspec.cli import train as training
from netspec.cli.caffe import FLAGS
from netspec.cli.caffe_flags import Flagged
from netspec.cli.caffe_time import LayerTimes, Timer
from netspec.errors import NetSpecError, require
from netspec.frontend.net_graph import read_graph
from netspec.frontend.prototxt import read_solver
from netspec.proto.solver_pb2 import SolverParameter
from netspec.reporting.console import metric_lines
from netspec.reporting.glog import GlogWriter
from netspec.runtime import devices
from netspec.solving.distributed.launch import DeviceOptions
from netspec.solving.evaluation import Evaluation, evaluate
from netspec.sources.fed_net import with_data
from netspec.weights.caffemodel import copy_into, read_weights


def _command(function: Callable[..., None]) -> click.Command:
    """A command that takes every flag, as each of Caffe's does."""
    return click.command(function.__name__, cls=Flagged, params=[*FLAGS])(function)


@_command
def train(solver: str, gpu: str, log_dir: str, **flags: Any) -> None:
    """Train the net of a solver, or go on from a snapshot."""
    require(solver, "train needs a solver: --solver=solver.prototxt", NetSpecError)
    with GlogWriter(log_dir) as log:
        count = _train_on(log, gpu, solver)
        options = training.Options(
            scale=DeviceOptions(devices=f"{count}"),
            weights=flags["weights"] or None,
            weights_only=True,
            snapshot=flags["snapshot"] or None,
            may_be_over=True,
            level=flags["level"],
            stages=_stages(flags["stage"]),
            sigint=flags["sigint_effect"],
            sighup=flags["sighup_effect"],
            glog=True,
            output=log.stream,
        )
        training.run(solver, options)


@_command
def test(model: str, weights: str, iterations: int, gpu: str, log_dir: str, **flags: Any) -> None:
    """Score a net on its test data."""
    require(model, "test needs a net: --model=net.prototxt", NetSpecError)
    require(weights, "test needs weights: --weights=net.caffemodel", NetSpecError)
    with GlogWriter(log_dir) as log:
        _compute_on(log, gpu)
        connected = read_graph(model, "test", flags["level"], _stages(flags["stage"]))
        with with_data(connected) as (net, feed):
            log.say(str(copy_into(net, read_weights(weights))))
            log.say(f"Running for {iterations} iterations.")
            found = evaluate(net, feed, iterations, seen=partial(_say_batch, log))
        _say_scores(log, found)


def _say_batch(log: GlogWriter, batch: int, name: str, scores: np.ndarray) -> None:
    for score in scores:
        log.say(f"Batch {batch}, {name} = {score:.6g}")


def _say_scores(log: GlogWriter, found: Evaluation) -> None:
    log.say(f"Loss: {found.loss:.6g}")
    for name, means in found.outputs.items():
        weight = found.weights[name]
        for mean in means:
            note = f" (* {weight:g} = {weight * mean:.6g} loss)" if weight else ""
            log.say(f"{name} = {mean:.6g}{note}")
    for line in metric_lines(found):
        log.say(line)


@_command
def time(model: str, weights: str, iterations: int, gpu: str, log_dir: str, **flags: Any) -> None:
    """Measure how long each layer of a net takes, forward and backward."""
    require(model, "time needs a net: --model=net.prototxt", NetSpecError)
    with GlogWriter(log_dir) as log:
        _compute_on(log, gpu)
        phase = flags["phase"] or "TRAIN"
        connected = read_graph(model, phase.lower(), flags["level"], _stages(flags["stage"]))
        with with_data(connected, inputs_ok=True) as (net, feed):
            if weights:
                log.say(str(copy_into(net, read_weights(weights))))
            log.say("Performing Forward")
            timer = Timer(net, feed)
            log.say(f"Initial loss: {timer.loss:.6g}")
            log.say("Performing Backward")
            log.say("*** Benchmark begins ***")
            log.say(f"Testing for {iterations} iterations.")
            times = timer.run(iterations, partial(_say_pass, log))
        _say_times(log, [node.name for node in connected.nodes], times, iterations)


def _say_pass(log: GlogWriter, number: int, seconds: float) -> None:
    log.say(f"Iteration: {number} forward-backward time: {1e3 * seconds:.6g} ms.")


def _say_times(log: GlogWriter, layers: list[str], times: LayerTimes, passes: int) -> None:
    log.say("Average time per layer: ")
    for name, forward, backward in zip(layers, times.forward, times.backward, strict=True):
        log.say(f"{name:>10}\tforward: {1e3 * forward:.6g} ms.")
        log.say(f"{name:>10}\tbackward: {1e3 * backward:.6g} ms.")
    both = times.forward_pass + times.backward_pass
    log.say(f"Average Forward pass: {1e3 * times.forward_pass:.6g} ms.")
    log.say(f"Average Backward pass: {1e3 * times.backward_pass:.6g} ms.")
    log.say(f"Average Forward-Backward: {1e3 * both:.6g} ms.")
    log.say(f"Total Time: {1e3 * both * passes:.6g} ms.")
    log.say("*** Benchmark ends ***")


@_command
def device_query(gpu: str, log_dir: str, **_: Any) -> None:
    """Say what devices there are."""
    with GlogWriter(log_dir) as log:
        log.say(f"Querying GPUs {gpu}")
        for device in devices.chosen(gpu):
            for line in devices.describe(device):
                log.say(line)


def _train_on(log: GlogWriter, gpu: str, solver: str) -> int:
    """Choose the devices to train on, by ``--gpu`` or else by the solver's ``solver_mode``.

    Returns how many there are; they are the first of JAX's. Raises NetSpecError.
    """
    param = read_solver(solver).message
    stated = param.HasField("solver_mode") and param.solver_mode == SolverParameter.GPU
    if not gpu and stated and devices.accelerators():
        gpu = str(param.device_id)
    elif not gpu and stated:
        log.warn(f"{solver}: solver_mode: GPU, but JAX finds no GPU here")
    found = devices.chosen(gpu)
    require(
        len(found) < 2 or found == devices.accelerators()[: len(found)],
        f"--gpu {gpu}: several devices are the first that JAX finds, in their order; "
        f"CUDA_VISIBLE_DEVICES={gpu} and --gpu=all take these",
        NetSpecError,
    )
    devices.use(found)
    numbers = ", ".join(f"{device.id}" for device in found)
    log.say(f"Using GPUs {numbers}" if found else "Use CPU.")
    for device in found:
        log.say(f"GPU {device.id}: {device.device_kind}")
    return max(1, len(found))


def _compute_on(log: GlogWriter, gpu: str) -> None:
    """Choose the device to run on: the first if several are given, as Caffe does."""
    found = devices.chosen(gpu)
    devices.use(found[:1])
    log.say(f"Use GPU with device ID {found[0].id}" if found else "Use CPU.")
    if found:
        log.say(f"GPU device name: {found[0].device_kind}")


def _stages(flag: str) -> tuple[str, ...]:
    return tuple(filter(None, flag.split(",")))
