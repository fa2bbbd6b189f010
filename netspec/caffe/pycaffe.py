"""pycaffe's ``caffe.pycaffe``, from where some scripts import its classes."""

from netspec.caffe.net import Net as Net
from netspec.caffe.runtime import NCCL as NCCL
from netspec.caffe.runtime import Timer as Timer
from netspec.caffe.solver import AdaDeltaSolver as AdaDeltaSolver
from netspec.caffe.solver import AdaGradSolver as AdaGradSolver
from netspec.caffe.solver import AdamSolver as AdamSolver
from netspec.caffe.solver import NesterovSolver as NesterovSolver
from netspec.caffe.solver import RMSPropSolver as RMSPropSolver
from netspec.caffe.solver import SGDSolver as SGDSolver
