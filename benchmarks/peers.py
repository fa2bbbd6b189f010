"""FCN-8s in other frameworks, where they are installed: the same weights, the same step."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import CLASSES, Absent, Work, resident

# Channels and convolutions of each block of VGG-16.
_VGG = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_IGNORED = 255
_MOMENTUM, _DECAY, _RATE = 0.99, 0.0005, 1e-14


class PyTorch:
    """PyTorch as its documentation advises, eager, or compiled with the option ``compile``.

    On a GPU: channels-last, autocast for bf16, and cuDNN chooses its algorithms by trying them.
    """

    def __init__(self, work: Work) -> None:
        self.torch: Any = import_module("torch")
        torch, self.work = self.torch, work
        self.device = "cpu" if work.device == "cpu" else "cuda"
        last = self.device == "cuda"
        self.format = torch.channels_last if last else torch.contiguous_format
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = work.dtype != "f32"
        torch.backends.cudnn.allow_tf32 = work.dtype != "f32"
        self.net = fcn8s(torch, work.weights).to(self.device, memory_format=self.format)
        self.run: Callable[..., Any] = self.net
        if work.options.get("compile"):
            self.run = torch.compile(self.net)
        image = torch.from_numpy(work.image()).to(self.device, memory_format=self.format)
        self.image = image
        self.label = torch.from_numpy(work.label()[:, 0]).long().to(self.device)
        learned = [p for p in self.net.named_parameters() if p[1].requires_grad]
        weights = [p for name, p in learned if name.endswith("weight")]
        biases = [p for name, p in learned if name.endswith("bias")]
        groups = [
            {"params": weights, "weight_decay": _DECAY},
            {"params": biases, "lr": 2 * _RATE},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=_RATE, momentum=_MOMENTUM, fused=True)

    def forward(self) -> None:
        """Compute the scores of the image."""
        self.net.eval()
        with self.torch.inference_mode(), self._cast():
            self.found = self.run(self.image)
        self._wait()

    def step(self) -> None:
        """Forward, backward and SGD with momentum."""
        self.net.train()
        with self._cast():
            scores = self.run(self.image)
        loss = self.torch.nn.functional.cross_entropy(
            scores.float(), self.label, ignore_index=_IGNORED, reduction="sum"
        )
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._wait()

    def scores(self) -> np.ndarray:
        """(1, 21, size, size)."""
        self.forward()
        scores: np.ndarray = self.found.float().cpu().numpy()
        return scores

    def memory(self) -> float:
        """Bytes on the GPU, or of the process."""
        if self.device == "cpu":
            return resident()
        return float(self.torch.cuda.max_memory_allocated())

    def _cast(self) -> Any:
        enabled = self.work.dtype == "bf16"
        return self.torch.autocast(self.device, self.torch.bfloat16, enabled=enabled)

    def _wait(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()


def fcn8s(torch: Any, weights: str) -> Any:
    """FCN-8s on VGG-16 as a PyTorch module, with weights from a file."""
    nn, f = torch.nn, torch.nn.functional

    class Fcn8s(nn.Module):  # type: ignore[misc,name-defined]
        """(N, 3, H, W) -> (N, 21, H, W); its layers are named as in the prototxt."""

        def __init__(self) -> None:
            super().__init__()
            channels = 3
            for block, (width, depth) in enumerate(_VGG, 1):
                for i in range(1, depth + 1):
                    pad = 100 if (block, i) == (1, 1) else 1
                    setattr(self, f"conv{block}_{i}", nn.Conv2d(channels, width, 3, padding=pad))
                    channels = width
            self.fc6 = nn.Conv2d(512, 4096, 7)
            self.fc7 = nn.Conv2d(4096, 4096, 1)
            for name, width in (("score_fr", 4096), ("score_pool4", 512), ("score_pool3", 256)):
                setattr(self, name, nn.Conv2d(width, CLASSES, 1))
            for name, kernel in (("upscore2", 4), ("upscore_pool4", 4), ("upscore8", 16)):
                up = nn.ConvTranspose2d(CLASSES, CLASSES, kernel, kernel // 2, bias=False)
                up.weight.requires_grad = False
                up.weight.copy_(torch.from_numpy(bilinear(kernel)))
                setattr(self, name, up)

        def forward(self, image: Any) -> Any:
            x, pools = image, []
            for block, (_, depth) in enumerate(_VGG, 1):
                for i in range(1, depth + 1):
                    x = f.relu(getattr(self, f"conv{block}_{i}")(x))
                x = f.max_pool2d(x, 2, 2, ceil_mode=True)
                pools.append(x)
            x = f.dropout(f.relu(self.fc6(x)), 0.5, self.training)
            x = f.dropout(f.relu(self.fc7(x)), 0.5, self.training)
            x = self.upscore2(self.score_fr(x))
            x = self.upscore_pool4(x + _cut(self.score_pool4(pools[3]), 5, x))
            x = self.upscore8(x + _cut(self.score_pool3(pools[2]), 9, x))
            return _cut(x, 31, image)

    net = Fcn8s()
    found = net.state_dict()
    for name, array in np.load(weights).items():
        layer, index = name.split("/")
        found[f"{layer}.{('weight', 'bias')[int(index)]}"] = torch.from_numpy(array)
    net.load_state_dict(found)
    return net


def bilinear(kernel: int) -> np.ndarray:
    """(21, 21, kernel, kernel): bilinear interpolation of every channel on its own."""
    line = 1 - np.abs(np.arange(kernel) - (kernel - 1) / 2) / (kernel // 2)
    return np.einsum("io,h,w->iohw", np.eye(CLASSES), line, line).astype(np.float32)


def _cut(x: Any, offset: int, like: Any) -> Any:
    height, width = like.shape[2:]
    return x[:, :, offset : offset + height, offset : offset + width]


class OpenCV:
    """OpenCV's dnn module, forward only, on what PyTorch exports."""

    def __init__(self, work: Work) -> None:
        if (work.device, work.dtype) != ("cpu", "f32"):
            raise Absent("compared on the CPU in f32")
        cv2: Any = import_module("cv2")
        torch: Any = import_module("torch")
        import_module("onnx")
        path = os.path.join(work.folder, "fcn8s.onnx")
        image = work.image()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The newer exporter writes weights of this size to a file beside, which is not read.
            torch.onnx.export(
                fcn8s(torch, work.weights).eval(), torch.from_numpy(image), path, dynamo=False
            )
        self.net = cv2.dnn.readNetFromONNX(path)
        self.net.setInput(image)
        self.image = image

    def forward(self) -> None:
        """Compute the scores of the image."""
        self.net.setInput(self.image)
        self.found = self.net.forward()

    def step(self) -> None:
        """OpenCV does not train."""
        raise Absent("does not train")

    def scores(self) -> np.ndarray:
        """(1, 21, size, size)."""
        self.forward()
        return np.asarray(self.found)

    def memory(self) -> float:
        """Bytes of the process, which exported the net first."""
        return resident()


class Caffe:
    """Caffe, or what is imported by its name, with the same prototxts."""

    def __init__(self, work: Work) -> None:
        if work.dtype != "f32":
            raise Absent("computes in f32")
        self.caffe: Any = import_module("caffe")
        if work.device == "cpu":
            self.caffe.set_mode_cpu()
        else:
            self.caffe.set_mode_gpu()
        self.work = work
        self.net = self.caffe.Net(_prototxt(work, "deploy"), self.caffe.TEST)
        self.solver: Any = None
        self._fill(self.net)

    def forward(self) -> None:
        """Compute the scores of the image."""
        self.found = self.net.forward()["score"]

    def step(self) -> None:
        """One step of the solver; the first makes its net."""
        if self.solver is None:
            self.solver = self.caffe.get_solver(_solver(self.work))
            self._fill(self.solver.net)
        self.solver.step(1)

    def scores(self) -> np.ndarray:
        """(1, 21, size, size)."""
        self.forward()
        return np.array(self.found)

    def memory(self) -> float:
        """Bytes of the process."""
        return resident()

    def _fill(self, net: Any) -> None:
        for name, array in np.load(self.work.weights).items():
            layer, index = name.split("/")
            net.params[layer][int(index)].data[...] = array
        for layer, blobs in net.params.items():
            if layer.startswith("upscore"):
                blobs[0].data[...] = bilinear(blobs[0].data.shape[-1])
        for blob, values in (("data", self.work.image()), ("label", self.work.label())):
            if blob in net.blobs:
                net.blobs[blob].reshape(*values.shape)
                net.blobs[blob].data[...] = values


def _prototxt(work: Work, name: str) -> str:
    """One of the net's prototxts with Input layers, without the filler that Caffe lacks."""
    # Imported here: PyTorch and OpenCV do without.
    from benchmarks.ours import NETS
    from netspec.frontend.prototxt import read_net, write

    message = read_net(NETS / f"{name}.prototxt").message
    data = message.layer[0]
    tops = list(data.top)
    data.Clear()
    data.name, data.type = "data", "Input"
    data.top.extend(tops)
    for top in tops:
        data.input_param.shape.add(dim=[1, 3 if top == "data" else 1, work.size, work.size])
    for layer in message.layer:
        if layer.type == "Deconvolution":
            layer.convolution_param.ClearField("weight_filler")
    path = Path(work.folder) / f"{name}.prototxt"
    path.write_text(write(message), encoding="utf-8")
    return str(path)


def _solver(work: Work) -> str:
    path = Path(work.folder) / "solver.prototxt"
    path.write_text(
        f'train_net: "{_prototxt(work, "train")}" base_lr: {_RATE} lr_policy: "fixed" '
        f"momentum: {_MOMENTUM} weight_decay: {_DECAY} max_iter: 1000000 "
        "snapshot_after_train: false\n",
        encoding="utf-8",
    )
    return str(path)
