"""Names that Caffe's forks added, so that messages tell a fork's net from a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_TYPES = {
    "SSD": "AnnotatedData DetectionEvaluate DetectionOutput MultiBoxLoss Normalize Permute "
    "PriorBox SmoothL1Loss VideoData",
    "Faster R-CNN": "ROIPooling SmoothL1Loss",
    "R-FCN": "PSROIPooling BoxAnnotatorOHEM",
    "SegNet": "BN DenseImageData Upsample",
    "DeepLab": "Interp INTERP ImageSegData IMAGE_SEG_DATA SegAccuracy SEG_ACCURACY DenseCRF "
    "DENSE_CRF MatRead MAT_READ MatWrite MAT_WRITE PADDING UniqueLabel UNIQUE_LABEL "
    "DomainTransform BiasChannel AdaptiveBiasChannel SpatialProduct",
    "PSPNet": "BN Interp",
    "CRF-RNN": "MultiStageMeanfield",
    "FlowNet2": "Correlation Correlation1D FlowWarp Resample ChannelNorm NegReLU L1Loss LpqLoss "
    "Downsample Mean DataAugmentation FlowAugmentation Accum",
    "CRNN": "CtcLoss LabelsequenceAccuracy ContinuationIndicator Permute",
    "CTPN": "Lstm Transpose Reverse",
    "SENet": "Axpy",
    "MobileNet-YOLO": "ReLU6 RegionLoss Yolov3 YoloSeg Reorg Upsample YoloDetectionOutput "
    "Yolov3DetectionOutput LaneData",
    "farmingyard": "ShuffleChannel",
    "Synopsys": "ShuffleChannel",
    "NVIDIA": "Axpy DetectNetTransformation L1Loss TRT",
    "Intel": "SpatialDropout Reorg",
}
_DEPTHWISE = ("DepthwiseConvolution", "ConvolutionDepthwise")
# The "future" branches of longjon's and shelhamer's Caffe, of the FCNs of 2014 and CRF-RNN.
_FIRST_CROP = (
    " (the first FCNs' fork of Caffe, which works the offset out from the layers); write "
    'layer { type: "Crop" crop_param { offset: ... } }, and all other layers as layer, too'
)
# By the message that the field stands in; LayerParameter's are V1LayerParameter's too.
_FIELDS = {
    "SSD": {
        "LayerParameter": "prior_box_param permute_param norm_param detection_output_param "
        "multibox_loss_param",
        "SolverParameter": "eval_type ap_version plateau_winsize",
    },
    "Faster R-CNN": {
        "LayerParameter": "roi_pooling_param smooth_l1_loss_param",
        "DropoutParameter": "scale_train",
    },
    "R-FCN": {"LayerParameter": "psroi_pooling_param box_annotator_ohem_param"},
    "SegNet": {
        "LayerParameter": "upsample_param bn_param dense_image_data_param",
        "LossParameter": "weight_by_label_freqs class_weighting",
        "DropoutParameter": "sample_weights_test",
    },
    "DeepLab": {
        "LayerParameter": "interp_param dense_crf_param seg_accuracy_param",
        "ConvolutionParameter": "hole hole_h hole_w",
        "ImageDataParameter": "label_type ignore_label",
        "BatchNormParameter": "update_global_stats",
        "TransformationParameter": "scale_factors crop_width crop_height",
    },
    "PSPNet": {"LayerParameter": "bn_param interp_param"},
    "TSN": {"LayerParameter": "bn_param", "ConvolutionParameter": "dilation_h dilation_w"},
    "FlowNet2": {
        "LayerParameter": "correlation_param resample_param flow_warp_param l1_loss_param"
    },
    "CRNN": {"LayerParameter": "ctc_loss_param"},
    "CTPN": {"LayerParameter": "lstm_param transpose_param reverse_param"},
    "MobileNet-YOLO": {"LayerParameter": "relu6_param upsample_param"},
    "farmingyard": {"LayerParameter": "shuffle_channel_param"},
    "Synopsys": {"LayerParameter": "shuffle_channel_param"},
    "NVIDIA": {
        "LayerParameter": "forward_type backward_type",
        "BatchNormParameter": "scale_bias scale_filler bias_filler",
        "PoolingParameter": "torch_pooling",
        "SolverParameter": "min_lr momentum_policy",
    },
    "Intel": {
        "ConvolutionParameter": "relu",
        "BatchNormParameter": "bias_term",
    },
}


def _forks(names: Mapping[str, str]) -> dict[str, list[str]]:
    """Name -> the forks whose list has it."""
    found: dict[str, list[str]] = {}
    for fork, listed in names.items():
        for name in listed.split():
            found.setdefault(name, []).append(fork)
    return found


_OWNERS = sorted({owner for fields in _FIELDS.values() for owner in fields})
FORKS_OF_TYPES = _forks(_TYPES)
FORKS_OF_FIELDS = {
    (owner, name): forks
    for owner in _OWNERS
    for name, forks in _forks(
        {fork: fields.get(owner, "") for fork, fields in _FIELDS.items()}
    ).items()
}


def fork_of_type(name: str) -> str:
    """`` (SSD's fork of Caffe)`` for a layer type of a fork; empty for any other."""
    if name in _DEPTHWISE:
        return " (a fork of Caffe's); write a Convolution whose group is its number of channels"
    if name == "CROP":
        return _FIRST_CROP
    return _told(FORKS_OF_TYPES.get(name, ()))


def fork_of_field(owner: str, name: str) -> str:
    """The same for a field of message ``owner``, e.g. ``hole`` of ConvolutionParameter."""
    return _told(FORKS_OF_FIELDS.get((owner.removeprefix("V1"), name), ()))


def _told(forks: Iterable[str]) -> str:
    owners = [f"{fork}'s" for fork in forks]
    if len(owners) < 2:
        return f" ({owners[0]} fork of Caffe)" if owners else ""
    return f" ({', '.join(owners[:-1])} and {owners[-1]} forks of Caffe)"
