"""One of ``net.layers``: a layer's type, its learned blobs, and of a Python layer the object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from netspec.caffe.blob import Blob, BlobVec
from netspec.caffe.vectors import FixedVector
from netspec.layers.python_class import UserLayer

_OWN = ("type", "blobs", "_find")


class LayerView(UserLayer):
    """A layer as pycaffe shows it.

    Of a Python layer it is the user's object, too: what else is read or set there is that one's.
    """

    blobs: BlobVec  # type: ignore[assignment]

    def __init__(
        self, layer_type: str, blobs: Sequence[Blob], find: Callable[[], Any] | None = None
    ) -> None:
        """find: gives the user's object of now, or None where there is none."""
        self.type = layer_type
        self.blobs = BlobVec(blobs)
        self._find = find or (lambda: None)

    def __getattr__(self, name: str) -> Any:
        user = None if name in _OWN else self._find()
        if user is None:
            raise AttributeError(f"a layer of type {self.type} has no attribute {name!r}")
        return getattr(user, name)

    def __setattr__(self, name: str, value: Any) -> None:
        user = None if name in _OWN else self._find()
        if user is None:
            object.__setattr__(self, name, value)
        else:
            setattr(user, name, value)


class LayerVec(FixedVector[LayerView]):
    """The layers of a net, in order."""
