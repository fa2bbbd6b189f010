"""VGG-16 on ImageNet: configuration D of Simonyan and Zisserman, ICLR 2015.

The published net is the deployed one. To learn from nothing it begins as Glorot and Bengio's
weights, which the paper found to do without pretraining a shallower net; batches of 64 make the
paper's 256 in four.
"""

from nets import classifiers as c
from netspec.spec import NetSpec

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and number of convolutions
MEAN = {"mean_value": [103.939, 116.779, 123.68]}


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    n = NetSpec()
    c.feed(n, c.ilsvrc12(224, train=64, val=50, mean=MEAN), phase)
    filler = {"weight_filler": c.XAVIER}
    top = n.data
    for b, (channels, depth) in enumerate(BLOCKS, 1):
        for i in range(1, depth + 1):
            conv = c.learned("Convolution", top, channels, kernel_size=3, pad=1, **filler)
            top = c.rectified(n, f"conv{b}_{i}", f"relu{b}_{i}", conv)
        top = n[f"pool{b}"] = c.max_pool(top, 2)
    top = c.hidden(n, 7, c.hidden(n, 6, top, **filler), **filler)
    n.fc8 = c.learned("InnerProduct", top, c.CLASSES, **filler)
    return c.finish(n, n.fc8, phase, top5=True)
