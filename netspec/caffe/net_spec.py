"""pycaffe's ``caffe.net_spec``: nets written in Python, over `netspec.spec`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netspec import spec
from netspec.spec import Function as Function
from netspec.spec import NetSpec as NetSpec
from netspec.spec import Top as Top
from netspec.spec import params as params
from netspec.spec import to_proto as to_proto

# As pycaffe calls it.
assign_proto = spec.assign


def param_name_dict() -> dict[str, str]:
    """Layer type -> what its message's field is called before ``_param``: ``inner_product``."""
    return {name: field.removesuffix("_param") for name, field in spec.OWN_MESSAGES.items()}


class Layers:
    """``L.Convolution(bottom, num_output=64)``, as `netspec.spec.layers` gives it.

    Raises TypeError where a bottom is no top, as pycaffe does.
    """

    def __getattr__(self, type_name: str) -> Callable[..., Any]:
        make = getattr(spec.layers, type_name)

        def layer(*inputs: Any, **settings: Any) -> Any:
            for i, bottom in enumerate(inputs):
                if not isinstance(bottom, Top | str):
                    raise TypeError(f"{type_name} input {i} is not a Top (type is {type(bottom)})")
            return make(*inputs, **settings)

        return layer


layers = Layers()
