"""Runs nets with Caffe: started by ``real_caffe`` with a Python that imports it.

A line of standard input names a net, its phase, an .npz of arrays and the .npz to write. It is
answered by a line: "ok", or what was raised. Caffe aborts at what it refuses, which ends this.
It needs Caffe and numpy alone.
"""

import json
import sys

import caffe
import numpy as np


def serve(net_file: str, phase: str, arrays: str, out: str) -> None:
    """Run one net forward and backward, and write what it made."""
    given = np.load(arrays)
    net = caffe.Net(net_file, caffe.TRAIN if phase == "train" else caffe.TEST)
    for key in given.files:
        kind, _, name = key.partition("/")
        if kind == "in":
            net.blobs[name].data[...] = given[key]
        elif kind == "param":
            layer, _, index = name.rpartition("/")
            blob = net.params[layer][int(index)]
            blob.data[...] = given[key].reshape(blob.data.shape)
    net.forward()
    made = {f"data/{name}": blob.data.copy() for name, blob in net.blobs.items()}
    seeds = {k.partition("/")[2]: given[k] for k in given.files if k.startswith("seed/")}
    net.backward(**seeds)
    for name, blob in net.blobs.items():
        made[f"diff/{name}"] = blob.diff.copy()
    for layer, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            made[f"param_diff/{layer}/{index}"] = blob.diff.copy()
    np.savez(out, **made)


def main() -> None:
    """Answer until standard input ends."""
    for line in sys.stdin:
        try:
            serve(**json.loads(line))
            answer = "ok"
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"[:300].replace("\n", " ")
        sys.stdout.write("fuzz " + answer + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
