"""LeNet on MNIST: Caffe's variant of LeCun et al. 1998, with ReLU and softmax."""

from nets import classifiers as c
from netspec.spec import NetSpec, Top
from netspec.spec import layers as L

MNIST = c.Dataset(
    train="./data/mnist_train_lmdb",
    val="./data/mnist_test_lmdb",
    shape=(1, 28, 28),
    batch={"train": 64, "val": 100, "deploy": 64},
    transform={"scale": 1 / 256},
    name="mnist",
)


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    n = NetSpec()
    c.feed(n, MNIST, phase)
    n.conv1 = _learned("Convolution", n.data, 20, kernel_size=5)
    n.pool1 = c.max_pool(n.conv1, 2)
    n.conv2 = _learned("Convolution", n.pool1, 50, kernel_size=5)
    n.pool2 = c.max_pool(n.conv2, 2)
    top = c.rectified(n, "ip1", "relu1", _learned("InnerProduct", n.pool2, 500))
    n.ip2 = _learned("InnerProduct", top, 10)
    return c.finish(n, n.ip2, phase)


def _learned(type_name: str, bottom: Top, channels: int, **settings: object) -> Top:
    """As published, biases decay like weights here."""
    rates = [{"lr_mult": 1}, {"lr_mult": 2}]
    top: Top = getattr(L, type_name)(
        bottom, num_output=channels, weight_filler=c.XAVIER, param=rates, **settings
    )
    return top
