"""Pooling, over windows and over pyramids."""

import itertools
import math

import numpy as np

from netspec.proto.layers_pb2 import LayerParameter, PoolingParameter, SPPParameter

from .rules import Array, positions, rule

# What Caffe starts a maximum from.
LEAST = -float(np.finfo(np.float32).max)


@rule("Pooling")
def pooling(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.pooling_param

    def pair(stem: str, plain: str) -> tuple[int, int]:
        if p.HasField(f"{stem}_h"):
            return getattr(p, f"{stem}_h"), getattr(p, f"{stem}_w")
        return getattr(p, plain), getattr(p, plain)

    size = x.shape[2:]
    kernel = size if p.global_pooling else pair("kernel", "kernel_size")
    stride, pad = pair("stride", "stride"), pair("pad", "pad")
    rounded = math.ceil if p.round_mode == PoolingParameter.CEIL else math.floor
    out = [rounded((size[i] + 2 * pad[i] - kernel[i]) / stride[i]) + 1 for i in range(2)]
    if any(pad):
        out = [n - 1 if (n - 1) * stride[i] >= size[i] + pad[i] else n for i, n in enumerate(out)]
    top, mask = np.zeros((*x.shape[:2], *out)), np.zeros((*x.shape[:2], *out))
    for n, c, *at in positions(top.shape):
        starts = [at[i] * stride[i] - pad[i] for i in range(2)]
        ends = [min(starts[i] + kernel[i], size[i] + pad[i]) for i in range(2)]
        covered = math.prod(e - s for s, e in zip(starts, ends, strict=True))
        seen = [
            (h * size[1] + w, x[n, c, h, w])
            for h in range(max(starts[0], 0), min(ends[0], size[0]))
            for w in range(max(starts[1], 0), min(ends[1], size[1]))
        ]
        here = (n, c, *at)
        if p.pool == PoolingParameter.MAX:
            # Without pad, the last window may lie beyond the image: Caffe's first values remain.
            mask[here], top[here] = max(
                seen, key=lambda pixel: (pixel[1], -pixel[0]), default=(-1, LEAST)
            )
        elif p.pool == PoolingParameter.AVE:
            total = sum(value for _, value in seen)
            top[here] = total / covered if covered else np.nan
        else:
            total = sum(value for _, value in seen)
            top[here] = sum(value * value for _, value in seen) / total if total else 0
    return [top, mask]


@rule("SPP")
def spp(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    """Bins pooled one by one, each over what of it lies in the image."""
    p = layer.spp_param
    joined: list[list[float]] = [[] for _ in x]
    for level in range(p.pyramid_height):
        bins = 2**level
        sides, starts = [], []
        for size in x.shape[2:]:
            side = math.ceil(size / bins)
            pad = math.ceil((side * bins - size) / 2)
            count = math.ceil((size + 2 * pad - side) / side) + 1
            every = [i * side - pad for i in range(count)]
            if any(n % bins for n in x.shape[2:]):
                every = [start for start in every if start < size]
            sides.append((side, pad))
            starts.append(every)
        for n, c, h0, w0 in itertools.product(*map(range, x.shape[:2]), *starts):
            spans = [
                (start, min(start + side, size + pad))
                for start, (side, pad), size in zip((h0, w0), sides, x.shape[2:], strict=True)
            ]
            seen = [
                x[n, c, h, w]
                for h, w in itertools.product(*(range(*span) for span in spans))
                if 0 <= h < x.shape[2] and 0 <= w < x.shape[3]
            ]
            if p.pool == SPPParameter.MAX:
                value = max(seen)
            elif p.pool == SPPParameter.AVE:
                value = sum(seen) / math.prod(end - start for start, end in spans)
            else:
                value = sum(v * v for v in seen) / sum(seen)
            joined[n].append(value)
    top = np.array(joined)
    return [top.reshape(*x.shape[:2], 1, 1) if p.pyramid_height == 1 else top]
