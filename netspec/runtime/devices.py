"""Which of JAX's devices a command computes on, as Caffe's ``--gpu`` chooses."""

from __future__ import annotations

import jax
from jax import Device

from netspec.errors import NetSpecError, fail, require


def accelerators() -> list[Device]:
    """The devices of JAX's own choice, unless that is the CPU: GPUs or TPUs, by their numbers."""
    return [device for device in jax.devices() if device.platform != "cpu"]


def chosen(gpu: str) -> list[Device]:
    """The devices of a list as ``0`` or ``0,1``, of ``all``, or none of ``""``; NetSpecError.

    Caffe: ``get_gpus`` in ``caffe.cpp``. Differs: numbers that no device has are refused.
    """
    if not gpu:
        return []
    numbers = gpu.split(",")
    require(
        gpu == "all" or all(number.strip().isdecimal() for number in numbers),
        f"--gpu {gpu}: write a number, numbers as 0,1, or all",
        NetSpecError,
    )
    found = accelerators()
    require(
        found,
        f"--gpu {gpu}: JAX finds no GPU here, only {_listed(jax.devices())}; without --gpu it "
        "computes there, and pip install 'jax[cuda13]' lets it find one",
        NetSpecError,
    )
    if gpu == "all":
        return found
    by_id = {device.id: device for device in found}
    for number in map(int, numbers):
        if number not in by_id:
            fail(f"--gpu {gpu}: no device {number}; there is {_listed(found)}", NetSpecError)
    return [by_id[number] for number in map(int, numbers)]


def use(devices: list[Device]) -> None:
    """Compute on the first of these, unless told otherwise; on the CPU where there are none."""
    if devices:
        jax.config.update("jax_default_device", devices[0])
    else:
        # Before the first computation this is all that JAX looks for: nothing is started on a GPU.
        jax.config.update("jax_platforms", "cpu")


def describe(device: Device) -> list[str]:
    """What is known of a device, a line each. Caffe: ``Caffe::DeviceQuery``."""
    lines = [f"Device id: {device.id}", f"Name: {device.device_kind}"]
    memory = (device.memory_stats() or {}).get("bytes_limit")
    return lines if memory is None else [*lines, f"Memory for JAX: {memory} bytes"]


def _listed(devices: list[Device]) -> str:
    return ", ".join(f"{device.id} ({device.device_kind})" for device in devices)
