"""Python layers without bottoms: classes that users write to feed a net, as pycaffe runs them.

A class of one's own needs nothing of netspec: what it writes into its tops in ``forward`` is the
batch, and tops may take other shapes at every step::

    class Noise(caffe.Layer):
        def setup(self, bottom, top):
            self.size = int(self.param_str)

        def reshape(self, bottom, top):
            top[0].reshape(1, 3, self.size, self.size)

        def forward(self, bottom, top):
            top[0].data[...] = np.random.rand(*top[0].shape)

        def backward(self, top, propagate_down, bottom):
            pass

Its module is looked for in the folder of the script that runs, in the current one, beside the
prototxt and on Python's path. If it is found, it takes precedence over netspec's own
(``voc_layers.VOCSegDataLayer`` and others), so that an edited copy of a published layer is used.
Where that file cannot be imported, as one for Python 2, a warning says so and netspec's own is
used.
"""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from netspec.errors import Place, SourceError, counted, fail, nearest, require
from netspec.layers.base import Shape
from netspec.layers.python_class import HostBlob, User
from netspec.proto.layers_pb2 import LayerParameter
from netspec.sources.base import REGISTRY, Batch, LayerSource, register, require_keys
from netspec.sources.images.untransform import add_mean, fits, mean_setting
from netspec.sources.sampling import settle_seed

_LOG = logging.getLogger(__name__)


@register("Python")
def open_python(spec: LayerParameter, phase: int, seed: int | None, place: Place) -> LayerSource:
    """The source of a Python layer: the user's class, or else netspec's own of that name.

    Raises SourceError.
    """
    user = User(spec.python_param, phase, SourceError, Path(place.file).parent)
    built_in = REGISTRY.get(user.name)
    file = user.file
    if file is None:
        return built_in(spec, phase, seed, place) if built_in else _refuse(user)
    try:
        _ = user.kind
    except SourceError as error:
        if built_in is None:
            raise
        _LOG.warning("%s; netspec's own %s is used instead", error.message, user.name)
        return built_in(spec, phase, seed, place)
    try:
        return PythonReader(user, spec, phase, seed, place)
    except SourceError as error:
        if built_in is not None:
            error.message += f"; without {file}, netspec's own {user.name} would be used"
        raise


def _refuse(user: User) -> NoReturn:
    known = [name for name in REGISTRY if "." in name]
    fail(f"{user.missing}; built in are {', '.join(known)}{nearest(user.name, known)}", SourceError)


class PythonReader(LayerSource):
    """Feeds what a user's object writes into its tops: ``reshape``, then ``forward``, each time.

    The random numbers of ``random`` and ``numpy.random`` that it draws are its own: they start
    from the solver's seed if it sets none, and what else draws in the program does not change them.

    To go on where a run stopped, a new object makes, and forgets, as many batches as the old one
    had made; that takes as long as reading them. A class that defines ``state()``, which returns
    what JSON can hold, and ``restore(state)``, which is called after ``setup``, goes on at once.
    A class whose ``batches`` says how many hand out every sample once is tested on so many.

    Caffe: ``python_layer.hpp``. Differs: there the generators are those of the whole program.
    """

    def __init__(
        self, user: User, spec: LayerParameter, phase: int, seed: int | None, place: Place
    ) -> None:
        super().__init__(spec, phase, seed, place)
        self._user = user
        self._seed = settle_seed(seed)
        self._begin()

    def _begin(self) -> None:
        """Make the user's object and set it up; no batch is made yet."""
        self._generators = Generators(self._seed)
        self._position = 0
        self._pending: Batch | None = None
        self._tops = [HostBlob() for _ in self.spec.top]
        with self.blamed(), self._generators.own():
            self._object = self._user.make()
        self._call("setup")
        with self.blamed():
            require(
                not self._object.blobs,
                f"{self._user.name}.setup: adds {counted(len(self._object.blobs), 'learned blob')},"
                " but a layer without bottoms only feeds the net; a Parameter layer learns a blob",
                SourceError,
            )
        # As Caffe does when it builds a net.
        self._call("reshape")

    @property
    def user(self) -> Any:
        """The user's object of now: `restore` makes another."""
        return self._object

    @property
    def tops(self) -> dict[str, Shape]:
        """Before the first batch as ``reshape`` left them, if it gave all a shape, as in Caffe."""
        begun = self._position > 0 or self._pending is not None
        if not begun and all(top.has_shape for top in self._tops):
            shapes = [top.data.shape for top in self._tops]
            return dict(zip(self.spec.top, shapes, strict=True))
        return {name: array.shape for name, array in self._peek().items()}

    def next(self) -> Batch:
        batch = self._peek()
        self._pending = None
        self._position += 1
        self.current = f"batch {self._position} of {self._user.name}"
        return batch

    def state(self) -> dict[str, Any]:
        # The object may be a batch ahead.
        return self._now() if self._pending is None else self._before

    def restore(self, state: Mapping[str, Any]) -> None:
        with self.blamed():
            require_keys(state, self.state())
            self._seed = state["seed"]
            self._begin()
            if "own" in state:
                with self._generators.own(), self._user.calling("restore"):
                    self._object.restore(state["own"])
                self._generators.restore(state["generators"])
            else:
                for _ in range(state["position"]):
                    self._make()
            self._position = state["position"]

    def pixels(self, state: Mapping[str, Any], batch: Batch) -> Batch:
        """Of the first top, if ``param_str`` has a setting "mean" as published layers have it."""
        top, *_ = self.spec.top
        means = mean_setting(self.spec.python_param.param_str)
        return {top: add_mean(batch[top], means)} if fits(batch[top], means) else {}

    @property
    def batches(self) -> int:
        with self.blamed():
            count = getattr(self._object, "batches", None)
            require(
                isinstance(count, int) and count > 0,
                f"{self._user.name} does not say how many batches it has: say how many to run "
                "(--iterations), or give the class an attribute batches",
                SourceError,
            )
        return count  # type: ignore[return-value]

    def describe(self) -> str:
        return f"{self._user.name} of {self._user.file}, seed {self._seed}"

    def _now(self) -> dict[str, Any]:
        """The state of the user's object."""
        state = {"seed": self._seed, "position": self._position}
        if not hasattr(self._object, "state"):
            return state
        with self.blamed(), self._generators.own(), self._user.calling("state"):
            own = json.loads(json.dumps(self._object.state()))
        return {**state, "own": own, "generators": self._generators.state()}

    def _peek(self) -> Batch:
        if self._pending is None:
            self._before = self._now()
            self._pending = self._make()
        return self._pending

    def _make(self) -> Batch:
        """What the user's object makes next."""
        self._call("reshape")
        self._call("forward")
        with self.blamed():
            for name, top in zip(self.spec.top, self._tops, strict=True):
                require(
                    top.has_shape,
                    f'{self._user.name}: top "{name}" has no shape; reshape it in setup, reshape '
                    "or forward",
                    SourceError,
                )
        return {name: top.data.copy() for name, top in zip(self.spec.top, self._tops, strict=True)}

    def _call(self, step: str) -> None:
        with self.blamed(), self._generators.own(), self._user.calling(step):
            getattr(self._object, step)([], list(self._tops))


class Generators:
    """The states of Python's and NumPy's global generators, as one layer finds and leaves them.

    ``seed()`` without a number, as published layers call it, goes on with them as they are.
    """

    # The generators are the process's: one layer at a time may have them.
    _TURN = threading.RLock()

    def __init__(self, seed: int) -> None:
        self._python = random.Random(seed).getstate()
        self._numpy: Any = np.random.RandomState(abs(seed) % (1 << 32)).get_state()

    @contextmanager
    def own(self) -> Iterator[None]:
        """Draw from these inside, and leave the program's as they were."""
        with self._TURN:
            python, numpy = random.getstate(), np.random.get_state()
            random.setstate(self._python)
            np.random.set_state(self._numpy)
            try:
                with _seeded_by_numbers(random), _seeded_by_numbers(np.random):
                    yield
            finally:
                self._python, self._numpy = random.getstate(), np.random.get_state()
                random.setstate(python)
                np.random.set_state(numpy)

    def state(self) -> list[Any]:
        """In JSON's types."""
        kind, keys, *rest = self._numpy
        return [[*self._python], [kind, keys.tolist(), *rest]]

    def restore(self, state: list[Any]) -> None:
        """Continue from ``state``."""
        (version, words, gauss), (kind, keys, *rest) = state
        self._python = (version, tuple(words), gauss)
        self._numpy = (kind, np.array(keys, np.uint32), *rest)


@contextmanager
def _seeded_by_numbers(module: Any) -> Iterator[None]:
    """Let ``module.seed(None)`` do nothing: a seed from the clock could not be repeated."""
    original = module.seed

    def seed(a: Any = None, *more: Any, **named: Any) -> None:
        if a is not None:
            original(a, *more, **named)

    module.seed = seed
    try:
        yield
    finally:
        module.seed = original
