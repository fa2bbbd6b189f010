"""Logs of runs for tests to read and draw."""

import json
from pathlib import Path
from typing import Any

from netspec.inspect.read_logs import Curves, read

# As Caffe 1.0 prints them, with average_loss: 2, and as what stands beside the FCNs does.
CAFFE = """\
I1231 23:59:58.396473   655 solver.cpp:280] Solving LeNet
I1231 23:59:58.396482   655 solver.cpp:281] Learning Rate Policy: step
I1231 23:59:58.396499   655 solver.cpp:338] Iteration 0, Testing net (#0)
I1231 23:59:58.532615   655 solver.cpp:406]     Test net output #0: accuracy = 0.4268
I1231 23:59:58.532656   655 solver.cpp:406]     Test net output #1: loss = 2 (* 0.5 = 1 loss)
I1231 23:59:58.532656   655 solver.cpp:406]     Test net output #2: loss2 = 3 (* 1 = 3 loss)
I1231 23:59:58.532723   655 solver.cpp:229] Iteration 0 (-4.2039e-45 iter/s, 1.5s/10 iters), \
loss = 5.5
I1231 23:59:58.532737   655 solver.cpp:245]     Train net output #0: loss = 3 (* 0.5 = 1.5 loss)
I1231 23:59:58.532737   655 solver.cpp:245]     Train net output #1: loss2 = 4 (* 1 = 4 loss)
I1231 23:59:58.532765   655 sgd_solver.cpp:106] Iteration 0, lr = 0.01
>>> 2031-12-31 23:59:59.1 Iteration 10 overall accuracy 0.75
>>> 2031-12-31 23:59:59.1 Iteration 10 mean IU 0.5
I0101 00:00:01.932723   655 solver.cpp:229] Iteration 10 (6.5 iter/s, 1.5s/10 iters), loss = -nan
I0101 00:00:01.932737   655 solver.cpp:245]     Train net output #0: loss = inf (* 0.5 = inf loss)
I0101 00:00:01.932765   655 sgd_solver.cpp:47] MultiStep Status: Iteration 10, step = 1
I0101 00:00:01.932765   655 sgd_solver.cpp:106] Iteration 10, lr = 1e-05
"""


def step(iteration: int, loss: float | None, smoothed: float | None = None) -> str:
    smoothed = loss if smoothed is None else smoothed
    record = {"event": "step", "iteration": iteration, "loss": loss, "smoothed_loss": smoothed,
              "lr": 0.1, "outputs": {"loss": loss}}  # fmt: skip
    return json.dumps(record) + "\n"


def evaluated(iteration: int, total: float, **outputs: Any) -> str:
    metrics = {"score": {"mean_iu": 0.5}}
    record = {"event": "test", "iteration": iteration, "test": 0, "loss": total, "outputs": outputs,
              "metrics": metrics}  # fmt: skip
    return json.dumps(record) + "\n"


def curves_of(path: Path, text: str) -> Curves:
    path.write_text(text)
    return read(path)
