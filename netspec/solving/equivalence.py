"""Turns a training regime into its equivalent with another number of images a step.

With momentum p, an image's gradient still has the share p^n in the n-th step after its own. Where
k images make a step, that is about p^(1/k) an image, for any k: p^(1/k) = p'^(1/k') is the equation
of the FCN papers, by which 0.9 over 20 images is 0.995 over one.

Source: Shelhamer, Long and Darrell, PAMI 2017, on momentum and batch size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from netspec.errors import NetSpecError, SolverError, require, unreadable
from netspec.formats.atomic import atomic_write
from netspec.frontend.prototxt import read_solver, rewrite_solver
from netspec.frontend.upgrade import upgrade_solver_type
from netspec.proto.solver_pb2 import SolverParameter
from netspec.solving import settings
from netspec.solving.schedules import gamma_in_parts

# What is counted in iterations.
COUNTS = ("max_iter", "stepsize", "test_interval", "snapshot", "display", "average_loss")
_MOST = 2**31 - 1
# How far off a number the nearest float may be, by half.
_FLOAT = 2.0**-24
_TYPES = ("SGD", "Nesterov")


@dataclass(frozen=True)
class Target:
    """The regime to turn another into.

    iter_size: batches a step; None for as many as before. batch: images in a batch of the train
    net, before and after. momentum: instead of the equivalent one. keep: which effect of an image
    stays: "step", its weight in a step, as in the papers' equation, or "way", how far it moves the
    weights in all.
    """

    iter_size: int | None = None
    batch: tuple[int, int] = (1, 1)
    momentum: float | None = None
    keep: str = "step"


@dataclass(frozen=True)
class _Images:
    """Images a step, before and after."""

    old: int
    new: int

    @property
    def parts(self) -> float:
        """How many new steps see as many images as an old one."""
        return self.old / self.new


# The papers' regimes: 20 batches a step, one, and one with the momentum that is usual for 20.
NAMED = {"accum": Target(20), "heavy": Target(1), "online": Target(1, momentum=0.9)}


def target(names: Sequence[str], iter_size: int | None, **others: Any) -> Target:
    """Choose one of `NAMED`, or a target of ``iter_size``; others: its other settings, if given."""
    named = [f"--{name}" for name in names] + ["--iter-size"] * (iter_size is not None)
    require(
        len(named) < 2,
        f"{' and '.join(named)} each say how many batches make a step; give one",
        SolverError,
    )
    given = [value for value in (*names, iter_size, *others.values()) if value is not None]
    require(
        given and given != [others.get("keep")],
        "say what to turn it into: --accum, --online, --heavy, --iter-size N, --batch OLD NEW or "
        "--momentum P",
        SolverError,
    )
    begun = NAMED[names[0]] if names else Target(iter_size)
    return replace(begun, **{k: value for k, value in others.items() if value is not None})


def convert(old: str | Path, new: str | Path, target: Target) -> list[str]:
    """Write the equivalent of a solver prototxt, with its comments; returns what was changed.

    Raises a NetSpecError where there is none, or ``new`` cannot be written.
    """
    solver = read_solver(old)
    require(
        Path(old).resolve() != Path(new).resolve(),
        f"{new}: is the solver to turn; write to another",
        NetSpecError,
    )
    with solver.blamed():
        message, told = equivalent(upgrade_solver_type(solver).message, target)
    title = f"# {Path(old).name}, turned by netspec regime: {' '.join(told[0].split())}.\n"
    text = title + rewrite_solver(old, message)
    try:
        with atomic_write(new) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise NetSpecError(unreadable(new, error)) from None
    return told


def equivalent(solver: SolverParameter, target: Target) -> tuple[SolverParameter, list[str]]:
    """A solver with another number of images a step, and what was changed, in words.

    The rate: Caffe averages a step's gradient over its images, so an image has the weight
    base_lr / k in its step, and moves the weights by base_lr / k / (1 - momentum) in all its
    steps. Whether the loss is a sum over pixels or their mean is the same before and after. Raises
    SolverError where the equation says nothing.
    """
    iter_size = solver.iter_size if target.iter_size is None else target.iter_size
    _check(solver, target, iter_size)
    images = _Images(solver.iter_size * target.batch[0], iter_size * target.batch[1])
    same = solver.momentum ** (1 / images.parts)
    new = SolverParameter()
    new.CopyFrom(solver)
    new.iter_size = iter_size
    momentum = same if target.momentum is None else target.momentum
    _set_factors(new, momentum, images)
    _set_rate(new, solver, momentum, target.keep, images)
    _rescale(new, images.parts)
    if solver.clip_gradients > 0 and iter_size != solver.iter_size:
        new.clip_gradients = _shortest(solver.clip_gradients * iter_size / solver.iter_size)
    if new == solver:
        return new, _nothing_told(solver, images.old)
    told = [
        f"images    {images.old} -> {images.new} a step",
        f"momentum  {_momentum_told(solver, new, same)}",
        f"base_lr   {_rate_told(solver, new, target.keep, images)}",
    ]
    return new, [*told, *_others_told(solver, new, target, images.parts)]


def _set_factors(new: SolverParameter, momentum: float, images: _Images) -> None:
    """Set what is multiplied anew each iteration: momentum, and gamma as its policy needs it."""
    # How much of a factor's float is rounding, which its power has more or less of.
    doubt = _FLOAT / images.parts
    if momentum != new.momentum:
        new.momentum = _factor("momentum", momentum, doubt, images)
    gamma = gamma_in_parts(new, images.parts)
    if gamma != new.gamma:
        # Of other policies gamma is no factor, and may be near to 1.
        exact = new.lr_policy == "exp"
        new.gamma = _factor("gamma", gamma, doubt, images) if exact else _shortest(gamma)


def _set_rate(
    new: SolverParameter, old: SolverParameter, momentum: float, keep: str, images: _Images
) -> None:
    """Set base_lr; momentum: the new one, before it was rounded."""
    shorter, doubt = 1.0, 0.0
    if keep == "way":
        shorter = (1 - momentum) / (1 - old.momentum)
        doubt = _FLOAT / (1 - old.momentum) + _FLOAT / (1 - momentum)
    rate = old.base_lr / images.parts * shorter
    if rate != old.base_lr:
        new.base_lr = _shortest(rate, doubt)


def _check(solver: SolverParameter, target: Target, iter_size: int) -> None:
    settings.check(solver)
    require(
        solver.type in _TYPES,
        f"type \"{solver.type}\": p^(1/k) = p'^(1/k') is about {' and '.join(_TYPES)}",
        SolverError,
    )
    require(solver.base_lr > 0, f"base_lr {solver.base_lr:g} must be positive", SolverError)
    require(
        0 <= solver.momentum < 1,
        f"momentum {solver.momentum:g} is outside 0 to 1",
        SolverError,
    )
    require(solver.gamma >= 0, f"gamma {solver.gamma:g} must not be negative", SolverError)
    require(
        target.momentum is None or 0 <= target.momentum < 1,
        f"--momentum {target.momentum} is outside 0 to 1",
        SolverError,
    )
    for name, value in (("iter-size", iter_size), ("batch", min(target.batch))):
        require(value > 0, f"--{name} {value} must be at least 1", SolverError)
    for name, value in (("iter-size", iter_size), ("batch", max(target.batch))):
        require(value <= _MOST, f"--{name} {value} must be at most {_MOST}", SolverError)


def _shortest(value: float, doubt: float = 0.0) -> float:
    """The number with the fewest digits that rounding cannot tell from ``value``.

    So turning a regime there and back gives the same regime. doubt: which share of the value is
    rounding already, beside that of a float.
    """
    near = max(doubt, _FLOAT)
    for digits in range(1, 17):
        kept = float(f"{value:.{digits}g}")
        if math.isclose(kept, value, rel_tol=near):
            return kept
    return value


def _factor(name: str, value: float, doubt: float, images: _Images) -> float:
    """As `_shortest`, for what is multiplied anew each iteration: its distance to 1 counts.

    Raises SolverError where a solver's float would be off by more than a hundredth of that.
    """
    kept = _shortest(value, doubt)
    require(
        math.isclose(1 - float(np.float32(kept)), 1 - value, rel_tol=0.01),
        f"{name} would have to be {value:.9g} for {images.new} of {images.old} images a step, too "
        "near to 1 to keep",
        SolverError,
    )
    return kept


def _shown(value: float) -> str:
    """Format a float of a solver with all digits that it has."""
    return f"{float(str(np.float32(value))):.9g}"


def _rescale(solver: SolverParameter, parts: float) -> None:
    """Turn each count of iterations into ``parts`` times as many."""
    for name in COUNTS:
        if getattr(solver, name) and solver.HasField(name):
            setattr(solver, name, _count(getattr(solver, name), parts))
    solver.stepvalue[:] = [_count(value, parts) for value in solver.stepvalue]


def _count(value: int, parts: float) -> int:
    return min(max(1, round(value * parts)), _MOST)


def _momentum_told(old: SolverParameter, new: SolverParameter, same: float) -> str:
    if not old.momentum and not new.momentum:
        return "0: a step forgets those before it, whatever their images"
    change = f"{_shown(old.momentum)} -> {_shown(new.momentum)}"
    if math.isclose(new.momentum, same, abs_tol=1e-6):
        return f"{change}: p^(1/k) stays, so that an image is forgotten after as many others"
    return f"{change} as asked for: not the equivalent, which is {same:.6g} by p^(1/k) = p'^(1/k')"


def _rate_told(old: SolverParameter, new: SolverParameter, keep: str, images: _Images) -> str:
    step, way = (
        [
            solver.base_lr / count / divisor
            for solver, count, divisor in zip(
                (old, new), (images.old, images.new), divisors, strict=True
            )
        ]
        for divisors in ((1, 1), (1 - old.momentum, 1 - new.momentum))
    )
    why = f"{_shown(old.base_lr)} -> {_shown(new.base_lr)}: Caffe averages a step over its images; "
    if keep == "step":
        return (
            f"{why}an image's weight in a step, base_lr / k, stays {step[0]:.3g}; in all, "
            f"base_lr / k / (1 - p), it moves the weights {way[1] / way[0]:.3g} times as far, by "
            f"{images.parts:g} times as many steps (--keep way: as far)"
        )
    return (
        f"{why}how far an image moves the weights in all, base_lr / k / (1 - p), stays "
        f"{way[0]:.3g}; its weight in a step is {step[1] / step[0]:.3g} times what it was"
    )


def _nothing_told(solver: SolverParameter, images: int) -> list[str]:
    return [
        f"images    {images} -> {images} a step",
        f"unchanged momentum {_shown(solver.momentum)}, base_lr {_shown(solver.base_lr)} and all "
        "else: a regime of as many images a step is its own equivalent (--momentum P asks for "
        "another memory, as 0.99 of FCN-heavy)",
    ]


def _others_told(
    old: SolverParameter, new: SolverParameter, target: Target, parts: float
) -> Iterator[str]:
    counts = [name for name in (*COUNTS, "stepvalue") if getattr(old, name) != getattr(new, name)]
    if counts:
        listed = ", ".join(
            f"{n} {_text(old, n)} -> {_text(new, n)}{_inexact(old, n, parts)}" for n in counts
        )
        yield f"counts    {listed}: as many images"
    if old.gamma != new.gamma:
        change = f"{_shown(old.gamma)} -> {_shown(new.gamma)}"
        yield f"gamma     {change}: the rate falls over as many images"
    if old.weight_decay:
        yield "decay     weight_decay stays, beside a gradient that is averaged before and after"
    if old.clip_gradients != new.clip_gradients:
        yield (
            f"clipping  clip_gradients {_shown(old.clip_gradients)} -> "
            f"{_shown(new.clip_gradients)}: of a sum over iter_size; the same only where all "
            "gradients point one way"
        )
    if target.batch[0] != target.batch[1]:
        yield (
            f"the net   needs another batch_size, {target.batch[1]} for {target.batch[0]}, and a "
            "loss that is divided by it, as all but normalization: NONE are"
        )
    if old.HasField("snapshot_prefix"):
        yield (
            f"snapshots {old.snapshot_prefix}, as before: runs of both regimes would write over "
            "each other's"
        )


def _inexact(old: SolverParameter, name: str, parts: float) -> str:
    """Say how a count differs from its exact equivalent, if it does."""
    exact = [value * parts for value in _values(old, name)]
    if max(exact) > _MOST:
        return " (cut to the most that a solver can count)"
    whole_numbers = all(math.isclose(value, max(1, round(value)), rel_tol=1e-9) for value in exact)
    return "" if whole_numbers else f" (rounded from {'+'.join(f'{value:g}' for value in exact)})"


def _text(solver: SolverParameter, name: str) -> str:
    return "+".join(map(str, _values(solver, name)))


def _values(solver: SolverParameter, name: str) -> list[int]:
    value = getattr(solver, name)
    return [value] if isinstance(value, int) else list(value)
