"""The base of all sources: a source feeds one data layer, a batch at a time.

A source is found by the layer's type; a Python layer may be netspec's own, by ``module.layer``.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netspec.errors import DamagedDataError, Place, SourceError, blame, fail, require
from netspec.frontend.prototxt import who
from netspec.layers.base import Shape
from netspec.layers.python_class import class_name, not_imported
from netspec.proto.layers_pb2 import LayerParameter

Batch = dict[str, NDArray[np.float32]]
Job = Callable[[], Batch]


class About(NamedTuple):
    """What is known of a set besides its samples.

    classes: label top -> what its classes are called, in order. results: the folder in which the
    set's judges look for a folder of label images.
    """

    classes: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    results: str = ""


class Source(ABC):
    """A stream of batches for one data layer.

    current: the file behind the batch last handed out, for messages; empty before the first.
    sample: the name of the batch's only sample; empty if it has several, or no name. files: the
    file behind each of its samples; empty where they are not known. about: what is known of the
    set. read_ahead: how many batches threads may read in advance; None: the feed decides. user: an
    object of a class that a user wrote, which makes the batches. parallel: whether `job` only
    steps, so that threads may make several batches at once and one that fails can be skipped.
    takes_arrays: whether the caller hands in its data, by `set_arrays`.
    """

    current: str = ""
    sample: str = ""
    files: tuple[str, ...] = ()
    about: About = About()
    read_ahead: int | None = None
    user: Any = None
    parallel: ClassVar[bool] = False
    takes_arrays: ClassVar[bool] = False

    @property
    @abstractmethod
    def tops(self) -> dict[str, Shape]:
        """Blob name -> its shape in the batch that `next` hands out next."""

    @abstractmethod
    def next(self) -> Batch:
        """The next batch: blob name -> a C-contiguous array of its own; raises SourceError."""

    def job(self) -> Job:
        """Step to the next batch; returns a function that makes it: call it once, in any thread.

        `state` and `current` are those of that batch as soon as this returns. Sources that are not
        parallel make the batch here.
        """
        batch = self.next()
        return lambda: batch

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The position of the stream after the last batch handed out, in JSON's types."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``; raises SourceError if it is another source's."""

    def pixels(self, state: Mapping[str, Any], batch: Batch) -> Batch:
        """The images (N, C, H, W) of a batch as they were before mean subtraction and scaling.

        state: that of the source before the batch. Tops whose mean is not known are left out.
        """
        return {}

    def label_tops(self) -> dict[str, int]:
        """The tops that the source itself knows to hold class indices -> the index for no class."""
        return {}

    @property
    @abstractmethod
    def batches(self) -> int:
        """How many batches one pass over all samples takes."""

    @abstractmethod
    def describe(self) -> str:
        """One line: what, how many samples, from where."""

    def set_arrays(self, data: ArrayLike, labels: ArrayLike) -> None:
        """Feed these arrays from now on; raises SourceError unless `takes_arrays`."""
        fail("its data is not handed in", SourceError)

    def close(self) -> None:  # noqa: B027 (most sources hold nothing open)
        """Close files and end threads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class LayerSource(Source):
    """A source bound to its layer: what classes in the registry derive from.

    seed: what randomness starts from where the layer names no seed of its own; None: anything.
    """

    def __init__(self, spec: LayerParameter, phase: int, seed: int | None, place: Place) -> None:
        self.spec = spec
        self.phase = phase
        self.seed = seed
        self.place = place
        require(
            not spec.bottom, f"feeds the net: {len(spec.bottom)} bottoms, needs none", SourceError
        )

    def blamed(self) -> AbstractContextManager[None]:
        """Add this layer and its place to errors raised inside."""
        return blame(self.place, who(self.spec))

    def locate(self, path: str) -> Path:
        """A path that the layer names: see `locate`."""
        return locate(path, self.place.file)


class ParallelSource(LayerSource):
    """A source whose `job` only chooses the next batch, so that threads can make several at once.

    It steps over a batch that cannot be made, too.
    """

    parallel = True

    @abstractmethod
    def job(self) -> Job:
        """Step to the next batch; returns a function that makes it: see `Source.job`."""

    def next(self) -> Batch:
        return self.job()()


# A function that opens the source of a layer: a class, or one that chooses a class.
Opener = Callable[[LayerParameter, int, int | None, Place], LayerSource]
AnyOpener = TypeVar("AnyOpener", bound=Opener)
REGISTRY: dict[str, Opener] = {}


def register(name: str) -> Callable[[AnyOpener], AnyOpener]:
    """Make a class the source of a layer type, or netspec's own Python layer ``module.layer``."""

    def enter(opener: AnyOpener) -> AnyOpener:
        if name in REGISTRY:
            raise TypeError(f"two sources are called {name}")
        REGISTRY[name] = opener
        return opener

    return enter


def unimported(spec: LayerParameter) -> str:
    """Why a data layer is not opened where no module that a prototxt names may be run, or nothing.

    netspec's own classes, which published FCNs name, are no such modules.
    """
    if spec.type != "Python" or python_name(spec) in REGISTRY:
        return ""
    return not_imported(spec.python_param)


def python_name(spec: LayerParameter) -> str:
    """``module.Class`` of a Python layer."""
    return class_name(spec.python_param)


def open_source(
    spec: LayerParameter,
    phase: int,
    seed: int | None,
    place: Place,
    read: bool = True,
    run_python: bool = True,
) -> LayerSource:
    """Open the source of a data layer: find its files and read its first sample.

    phase: TRAIN or TEST. seed: the solver's. place: where the layer stands. read: whether to
    read the first sample now, so that one that cannot be read is found. run_python: whether modules
    that the prototxt names may be imported; else only netspec's own classes are. Raises
    SourceError.
    """
    with blame(place, who(spec)):
        known = sorted(name for name in REGISTRY if "." not in name)
        if spec.type not in known:
            fail(f"no source feeds this type (those that are fed: {', '.join(known)})", SourceError)
        require(run_python or not unimported(spec), unimported(spec), SourceError)
        own = spec.type == "Python" and not run_python
        source = REGISTRY[python_name(spec) if own else spec.type](spec, phase, seed, place)
        try:
            _ = source.tops if read else None
        except SourceError:
            source.close()
            raise
        except MemoryError as error:
            source.close()
            fail(f"its batch does not fit in memory ({error})", DamagedDataError)
        return source


def locate(path: str, named_in: str) -> Path:
    """Resolve a path from the current folder or, if nothing is there, from ``named_in``'s folder.

    named_in: the file that names ``path``. Caffe looks from the current folder only.
    """
    beside = Path(named_in).parent / path
    return beside if os.path.exists(beside) and not os.path.exists(path) else Path(path)


def require_keys(state: Any, like: Mapping[str, Any]) -> None:
    """Raise SourceError unless a restored state has the keys of ``like``, and values of its kinds.

    A state comes from a file that anyone may have written.
    """
    require(isinstance(state, Mapping), "the state is none of a source's", SourceError)
    require(
        state.keys() == set(like),
        f"the state is another source's: it has {', '.join(sorted(state)) or 'nothing'}; "
        f"needed are {', '.join(sorted(like))}",
        SourceError,
    )
    for name, value in state.items():
        if name == "seed":
            fits = value is None or _fits(value, 0)
        elif name == "own":
            # What a user's object has said of itself.
            fits = True
        else:
            fits = _fits(value, like[name]) and not (isinstance(value, int) and value < 0)
        require(fits, f'the state\'s "{name}" is no such value', SourceError)


def _fits(value: Any, like: Any) -> bool:
    """Whether a value of a state is of the kind of another one."""
    if isinstance(like, list):
        counts = all(isinstance(each, int) for each in like)
        return isinstance(value, list) and (not counts or all(_fits(each, 0) for each in value))
    if isinstance(like, int):
        # No count is more than a file can hold.
        return type(value) is int and abs(value) < 1 << 63
    return isinstance(value, type(like)) if isinstance(like, str | float) else True
