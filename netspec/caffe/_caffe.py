"""pycaffe's ``caffe._caffe``, its part in C++, from where some scripts import."""

from netspec.caffe.blob import Blob as Blob
from netspec.caffe.blob import BlobVec as BlobVec
from netspec.caffe.blob import RawBlobVec as RawBlobVec
from netspec.caffe.layer import LayerVec as LayerVec
from netspec.caffe.net import Net as Net
from netspec.caffe.net import NetVec as NetVec
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
from netspec.caffe.vectors import BoolVec as BoolVec
from netspec.caffe.vectors import DtypeVec as DtypeVec
from netspec.caffe.vectors import IntVec as IntVec
from netspec.caffe.vectors import StringVec as StringVec
from netspec.layers.python_class import UserLayer
from netspec.proto.layers_pb2 import LayerParameter as LayerParameter
from netspec.proto.solver_pb2 import SolverParameter as SolverParameter
from netspec.reporting.version import __version__ as __version__

# What users call it.
Layer = UserLayer
