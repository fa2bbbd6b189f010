"""pycaffe's names over our nets: ``import netspec.caffe as caffe``."""

from netspec.caffe import io as io
from netspec.caffe.blob import Blob as Blob
from netspec.caffe.net import Net as Net
from netspec.caffe.solver import Solver as Solver
from netspec.caffe.solver import get_solver as get_solver
from netspec.layers.user import UserLayer
from netspec.proto.layers_pb2 import TEST as TEST
from netspec.proto.layers_pb2 import TRAIN as TRAIN

# What users call it.
Layer = UserLayer
