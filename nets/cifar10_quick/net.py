"""CIFAR-10, quickly learned: Caffe's smaller net of three convolutions, 75 % right in minutes."""

from nets import classifiers as c
from netspec.spec import NetSpec, Top
from netspec.spec import layers as L
from netspec.spec import params as P

CIFAR10 = c.Dataset(
    train="./data/cifar10_train_lmdb",
    val="./data/cifar10_test_lmdb",
    shape=(3, 32, 32),
    batch={"train": 100, "val": 100, "deploy": 1},
    transform={"mean_file": "./data/cifar10_mean.binaryproto"},
    name="cifar",
)


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    n = NetSpec()
    c.feed(n, CIFAR10, phase)
    n.conv1 = _conv(n.data, 32, std=0.0001)
    top = c.rectified(n, "pool1", "relu1", c.max_pool(n.conv1))
    n.pool2 = _mean_pool(c.rectified(n, "conv2", "relu2", _conv(top, 32)))
    n.pool3 = _mean_pool(c.rectified(n, "conv3", "relu3", _conv(n.pool2, 64)))
    n.ip1 = _learned("InnerProduct", n.pool3, 64, std=0.1)
    n.ip2 = _learned("InnerProduct", n.ip1, 10, std=0.1)
    return c.finish(n, n.ip2, phase)


def _conv(bottom: Top, channels: int, std: float = 0.01) -> Top:
    return _learned("Convolution", bottom, channels, std, pad=2, kernel_size=5)


def _learned(type_name: str, bottom: Top, channels: int, std: float, **settings: object) -> Top:
    """As published, biases decay like weights here."""
    top: Top = getattr(L, type_name)(
        bottom,
        num_output=channels,
        weight_filler={"type": "gaussian", "std": std},
        param=[{"lr_mult": 1}, {"lr_mult": 2}],
        **settings,
    )
    return top


def _mean_pool(bottom: Top) -> Top:
    return L.Pooling(bottom, pool=P.Pooling.AVE, kernel_size=3, stride=2)
