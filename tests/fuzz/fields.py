"""Random settings for any message, by what its descriptor says of each field.

A field that is not named here gets a value of its type, so a new layer's settings need no word.
"""

import random
from collections.abc import Callable
from typing import Any

FLOATS = (-1.5, -0.5, 0, 0.25, 0.5, 1, 2, 3)
FILLERS = ("constant", "uniform", "gaussian", "positive_unitball", "xavier", "msra")

# Field name -> a value for a bottom of so many axes; for fields of any message.
Value = Callable[[random.Random, int], Any]
BY_NAME: dict[str, Value] = {
    "axis": lambda rng, rank: rng.randint(-rank, max(rank - 1, 0)),
    "end_axis": lambda rng, rank: rng.randint(-rank, max(rank - 1, 0)),
    "concat_dim": lambda rng, rank: rng.randint(0, max(rank - 1, 0)),
    "slice_dim": lambda rng, rank: rng.randint(0, max(rank - 1, 0)),
    "slice_point": lambda rng, rank: rng.randint(1, 3),
    "num_axes": lambda rng, rank: rng.randint(-1, 2),
    "num_output": lambda rng, rank: rng.choice([1, 2, 3, 4, 6]),
    "dilation": lambda rng, rank: rng.choice([0, 1, 1, 2]),
    "dropout_ratio": lambda rng, rank: rng.choice([0, 0.25, 0.5]),
    "local_size": lambda rng, rank: rng.choice([1, 3, 5]),
    "moving_average_fraction": lambda rng, rank: rng.choice([0.5, 0.9, 1]),
    "eps": lambda rng, rank: rng.choice([1e-3, 0.1, 1]),
    "base": lambda rng, rank: rng.choice([-1, 0.5, 2, 10]),
    "ignore_label": lambda rng, rank: rng.choice([-1, 0, 1, 255]),
    "offset": lambda rng, rank: rng.choice([0, 0, 1, 2]),
    "dim": lambda rng, rank: rng.choice([-1, 0, 1, 2, 3, 4, 6]),
}
for _name in ("kernel_size", "kernel_h", "kernel_w"):
    BY_NAME[_name] = lambda rng, rank: rng.choice([1, 2, 2, 3])
for _name in ("stride", "stride_h", "stride_w"):
    BY_NAME[_name] = lambda rng, rank: rng.choice([1, 2, 2, 3])
for _name in ("pad", "pad_h", "pad_w"):
    BY_NAME[_name] = lambda rng, rank: rng.choice([0, 1, 1, 2])
for _name in ("lr_mult", "decay_mult"):
    BY_NAME[_name] = lambda rng, rank: rng.choice([0, 1, 1, 2])

# Wholly left to hints, or to tests that have files.
LEFT_OUT = frozenset(
    {
        ("RecurrentParameter", "debug_info"),
        ("FillerParameter", "sparse"),
        ("InfogainLossParameter", "source"),
        ("PythonParameter", "module"),
    }
)


def fill_in(message: Any, rng: random.Random, rank: int, share: float = 0.35) -> Any:
    """Give about ``share`` of a message's fields, and all required ones, a random value."""
    for descriptor in message.DESCRIPTOR.fields:
        if (message.DESCRIPTOR.name, descriptor.name) in LEFT_OUT:
            continue
        if rng.random() < share:
            put(message, descriptor, rng, rank)
    for name in message.FindInitializationErrors():
        put(message, message.DESCRIPTOR.fields_by_name[name], rng, rank)
    return message


def put(message: Any, descriptor: Any, rng: random.Random, rank: int) -> None:
    """Give one field of a message a random value; texts are left to hints."""
    held = getattr(message, descriptor.name)
    if descriptor.message_type is not None:
        inner = held.add() if hasattr(held, "add") else held
        inner.SetInParent()
        if descriptor.message_type.name == "FillerParameter":
            filler(inner, rng)
        else:
            fill_in(inner, rng, rank, 0.9 if descriptor.message_type.name == "BlobShape" else 0.35)
    elif descriptor.cpp_type == descriptor.CPPTYPE_STRING:
        return
    elif hasattr(held, "extend"):
        most = max(1, rank - 1)
        held.extend(value(descriptor, rng, rank) for _ in range(rng.randint(1, most)))
    else:
        try:
            setattr(message, descriptor.name, value(descriptor, rng, rank))
        except ValueError:  # a negative number, or one that its enum does not have
            message.ClearField(descriptor.name)


def value(descriptor: Any, rng: random.Random, rank: int) -> Any:
    """A random value for a field that is no message."""
    if descriptor.name in BY_NAME:
        return BY_NAME[descriptor.name](rng, rank)
    if descriptor.enum_type is not None:
        return rng.choice([entry.number for entry in descriptor.enum_type.values])
    if descriptor.cpp_type == descriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if descriptor.cpp_type in (descriptor.CPPTYPE_FLOAT, descriptor.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    return rng.randint(1, 3)


def filler(message: Any, rng: random.Random) -> Any:
    """A filler that makes sense."""
    # Bilinear filters fit few blobs.
    message.type = rng.choice(FILLERS) if rng.random() < 0.97 else "bilinear"
    if message.type == "constant":
        message.value = rng.choice(FLOATS)
    elif message.type == "uniform":
        message.min, message.max = sorted(rng.sample(FLOATS, 2))
    elif message.type == "gaussian":
        message.std = rng.choice([0.1, 1])
        if rng.random() < 0.3:
            message.mean = rng.choice(FLOATS)
        if rng.random() < 0.2:
            message.sparse = rng.randint(1, 3)
    elif message.type in ("xavier", "msra"):
        message.variance_norm = rng.randint(0, 2)
    return message


def said(message: Any) -> list[str]:
    """The fields that a message sets, as ``PoolingParameter.stride``, those inside it too."""
    found = []
    for descriptor, held in message.ListFields():
        found.append(f"{message.DESCRIPTOR.name}.{descriptor.name}")
        if descriptor.message_type is not None:
            for inner in held if hasattr(held, "add") else [held]:
                found.extend(said(inner))
    return found
