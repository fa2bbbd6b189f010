"""SqueezeNet v1.0 on ImageNet (Iandola et al., 2016): AlexNet's accuracy, 1.25 M weights."""

from nets import classifiers as c
from netspec.spec import NetSpec, Top
from netspec.spec import layers as L
from netspec.spec import params as P

# Module -> channels it squeezes to; it expands to eight times as many.
FIRES = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}
POOLED = (4, 8)


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    n = NetSpec()
    images = c.ilsvrc12(227, train=32, val=25, mean=c.MEAN_PIXEL, mirror=False)
    c.feed(n, images, phase)
    conv = L.Convolution(n.data, num_output=96, kernel_size=7, stride=2, weight_filler=c.XAVIER)
    top = n.pool1 = c.max_pool(c.rectified(n, "conv1", "relu_conv1", conv))
    for number, channels in FIRES.items():
        top = _fire(n, f"fire{number}", top, channels)
        if number in POOLED:
            top = n[f"pool{number}"] = c.max_pool(top)
    n.drop9 = L.Dropout(top, dropout_ratio=0.5, in_place=True)
    filler = {"type": "gaussian", "std": 0.01}
    conv = L.Convolution(n.drop9, num_output=c.CLASSES, kernel_size=1, pad=1, weight_filler=filler)
    top = c.rectified(n, "conv10", "relu_conv10", conv)
    n.pool10 = L.Pooling(top, pool=P.Pooling.AVE, global_pooling=True)
    return c.finish(n, n.pool10, phase, top5=True)


def _fire(n: NetSpec, fire: str, bottom: Top, channels: int) -> Top:
    """(N, C, H, W) -> ``channels`` -> 8 * ``channels``, half by 1x1 and half by 3x3."""
    squeezed = _conv(n, fire, "squeeze1x1", bottom, channels, kernel_size=1)
    ones = _conv(n, fire, "expand1x1", squeezed, 4 * channels, kernel_size=1)
    threes = _conv(n, fire, "expand3x3", squeezed, 4 * channels, kernel_size=3, pad=1)
    n[f"{fire}/concat"] = L.Concat(ones, threes)
    return n[f"{fire}/concat"]


def _conv(n: NetSpec, fire: str, name: str, bottom: Top, channels: int, **settings: object) -> Top:
    conv = L.Convolution(bottom, num_output=channels, weight_filler=c.XAVIER, **settings)
    return c.rectified(n, f"{fire}/{name}", f"{fire}/relu_{name}", conv)
