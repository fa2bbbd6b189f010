"""pycaffe's names over our nets: ``import netspec.caffe as caffe``.

`install` lets scripts that say ``import caffe`` find this module.
"""

from netspec.caffe import _caffe as _caffe
from netspec.caffe import coord_map as coord_map
from netspec.caffe import draw as draw
from netspec.caffe import io as io
from netspec.caffe import net_spec as net_spec
from netspec.caffe import pycaffe as pycaffe
from netspec.caffe.blob import Blob as Blob
from netspec.caffe.classifier import Classifier as Classifier
from netspec.caffe.detector import Detector as Detector
from netspec.caffe.net import Net as Net
from netspec.caffe.net_spec import NetSpec as NetSpec
from netspec.caffe.net_spec import layers as layers
from netspec.caffe.net_spec import params as params
from netspec.caffe.net_spec import to_proto as to_proto
from netspec.caffe.proto import caffe_pb2 as caffe_pb2
from netspec.caffe.runtime import NCCL as NCCL
from netspec.caffe.runtime import Timer as Timer
from netspec.caffe.runtime import has_nccl as has_nccl
from netspec.caffe.runtime import init_log as init_log
from netspec.caffe.runtime import layer_type_list as layer_type_list
from netspec.caffe.runtime import log as log
from netspec.caffe.runtime import set_device as set_device
from netspec.caffe.runtime import set_mode_cpu as set_mode_cpu
from netspec.caffe.runtime import set_mode_gpu as set_mode_gpu
from netspec.caffe.runtime import set_multiprocess as set_multiprocess
from netspec.caffe.runtime import set_random_seed as set_random_seed
from netspec.caffe.runtime import set_solver_count as set_solver_count
from netspec.caffe.runtime import set_solver_rank as set_solver_rank
from netspec.caffe.runtime import solver_count as solver_count
from netspec.caffe.runtime import solver_rank as solver_rank
from netspec.caffe.solver import AdaDeltaSolver as AdaDeltaSolver
from netspec.caffe.solver import AdaGradSolver as AdaGradSolver
from netspec.caffe.solver import AdamSolver as AdamSolver
from netspec.caffe.solver import NesterovSolver as NesterovSolver
from netspec.caffe.solver import RMSPropSolver as RMSPropSolver
from netspec.caffe.solver import SGDSolver as SGDSolver
from netspec.caffe.solver import Solver as Solver
from netspec.caffe.solver import get_solver as get_solver
from netspec.layers.import_hook import install as install
from netspec.layers.import_hook import uninstall as uninstall
from netspec.layers.python_class import UserLayer
from netspec.proto.layers_pb2 import TEST as TEST
from netspec.proto.layers_pb2 import TRAIN as TRAIN
from netspec.reporting.version import __version__ as __version__

# What users call it.
Layer = UserLayer
