"""Convolution, deconvolution, crop and im2col."""

from .case import normal, row

CONVOLUTION = (
    row(
        "Convolution h and w",
        "num_output: 4 kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 2",
        normal(2, 3, 7, 5),
    ),
    row(
        "Convolution repeated sizes",
        "num_output: 4 kernel_size: 2 kernel_size: 3 stride: 1 stride: 2 pad: 2 pad: 1 "
        "dilation: 3 dilation: 1",
        normal(2, 3, 5, 7),
    ),
    row("Convolution 0-D", "num_output: 4 kernel_size: 1", normal(2, 3)),
    row("Convolution 0-D without kernel_size", "num_output: 4 group: 2", normal(5, 6)),
    row("Convolution 0-D, axis 2", "num_output: 4 axis: 2", normal(2, 3, 5)),
    row(
        "Convolution of a lone window",
        "num_output: 4 kernel_h: 5 kernel_w: 4 stride_h: 3 stride_w: 2",
        normal(2, 3, 3, 7),
    ),
    row(
        "Convolution of a lone window, dilated and padded",
        "num_output: 4 kernel_size: 3 dilation: 3 stride: 2 pad: 1",
        normal(2, 3, 4, 9),
    ),
    row(
        "Convolution of a lone window, wide",
        "num_output: 3 group: 3 kernel_size: 6 stride: 4",
        normal(2, 6, 3, 9),
    ),
    row("Convolution dilation 0", "num_output: 4 kernel_size: 2 dilation: 0", normal(2, 3, 3, 5)),
    row(
        "Convolution dilation 0 on one axis",
        "num_output: 4 group: 2 kernel_size: 3 dilation: 2 dilation: 0 stride: 2 pad: 1",
        normal(2, 4, 7, 5),
    ),
    row("Convolution 1-D", "num_output: 4 kernel_size: 3 stride: 2 pad: 1", normal(2, 3, 11)),
    row(
        "Convolution 3-D",
        "num_output: 4 kernel_size: 2 kernel_size: 3 kernel_size: 1 stride: 1 stride: 2 stride: 1 "
        "pad: 0 pad: 1 pad: 0 dilation: 2 dilation: 1 dilation: 1",
        normal(2, 3, 5, 7, 4),
    ),
    row("Convolution 4-D", "num_output: 2 kernel_size: 2", normal(1, 2, 3, 4, 2, 5)),
    row("Convolution 7-D", "num_output: 2 kernel_size: 1", normal(1, 3, 1, 2, 1, 1, 2, 1, 1)),
    row(
        "Convolution group, dilation, stride",
        "num_output: 4 group: 2 kernel_size: 3 dilation: 2 stride: 2 pad: 1",
        normal(2, 6, 9, 7),
    ),
    row(
        "Convolution depthwise",
        "num_output: 10 group: 5 kernel_size: 3 pad: 1",
        normal(2, 5, 7, 6),
    ),
    row("Convolution axis 2", "num_output: 5 axis: 2 kernel_size: 3 pad: 1", normal(2, 3, 4, 7, 6)),
    row("Convolution axis -3", "num_output: 5 axis: -3 kernel_size: 3", normal(2, 3, 7, 6)),
    row(
        "Convolution of two bottoms",
        "num_output: 4 kernel_size: 3",
        normal(2, 3, 7, 5),
        normal(2, 3, 7, 5),
        tops=2,
    ),
    row(
        "Convolution without bias",
        "num_output: 4 bias_term: false kernel_size: 3",
        normal(2, 3, 7, 5),
    ),
    row(
        "Convolution stride over kernel",
        "num_output: 4 kernel_size: 2 stride: 3",
        normal(2, 3, 7, 9),
    ),
    row("Convolution whole image", "num_output: 4 kernel_h: 7 kernel_w: 5", normal(2, 3, 7, 5)),
    row(
        "Convolution wide",
        "num_output: 52 kernel_h: 5 kernel_w: 2 stride: 2 pad_h: 1 pad_w: 0",
        normal(2, 80, 7, 5, scale=0.1),
    ),
    row(
        "Convolution wide and dilated",
        "num_output: 80 kernel_h: 2 kernel_w: 5 dilation: 2 pad: 3 bias_term: false",
        normal(2, 52, 3, 5, scale=0.1),
    ),
)


DECONVOLUTION = (
    row("Deconvolution plain", "num_output: 4 kernel_size: 3 stride: 2", normal(2, 3, 5, 4)),
    row(
        "Deconvolution h and w",
        "num_output: 4 kernel_h: 3 kernel_w: 4 stride_h: 1 stride_w: 3 pad_h: 2 pad_w: 1",
        normal(2, 3, 5, 4),
    ),
    row(
        "Deconvolution group",
        "num_output: 6 group: 2 kernel_size: 3 stride: 2 pad: 1",
        normal(2, 4, 5, 3),
    ),
    row(
        "Deconvolution depthwise",
        "num_output: 5 group: 5 kernel_size: 4 stride: 2 pad: 1 bias_term: false",
        normal(2, 5, 4, 3),
    ),
    row(
        "Deconvolution group and dilation",
        "num_output: 3 group: 3 kernel_h: 2 kernel_w: 3 dilation: 3 stride: 2 pad: 2",
        normal(2, 6, 5, 4),
    ),
    row(
        "Deconvolution dilation",
        "num_output: 4 kernel_size: 3 dilation: 2 stride: 3",
        normal(2, 3, 5, 4),
    ),
    row(
        "Deconvolution stride over kernel",
        "num_output: 4 kernel_size: 2 stride: 3",
        normal(2, 3, 5, 4),
    ),
    row(
        "Deconvolution pad over kernel",
        "num_output: 4 kernel_size: 2 pad: 3 stride: 3",
        normal(2, 3, 5, 4),
    ),
    row("Deconvolution 0-D", "num_output: 4", normal(2, 3)),
    row(
        "Deconvolution dilation 0",
        "num_output: 4 kernel_size: 3 dilation: 0 dilation: 1 stride: 2",
        normal(2, 3, 5, 4),
    ),
    row("Deconvolution 1-D", "num_output: 4 kernel_size: 3 stride: 2 pad: 1", normal(2, 3, 7)),
    row(
        "Deconvolution 3-D",
        "num_output: 4 kernel_size: 2 kernel_size: 3 kernel_size: 1 stride: 2 stride: 1 stride: 3",
        normal(2, 3, 4, 2, 3),
    ),
    row(
        "Deconvolution axis 2",
        "num_output: 5 axis: 2 kernel_size: 3 stride: 2",
        normal(2, 3, 4, 5, 2),
    ),
    row(
        "Deconvolution of two bottoms",
        "num_output: 4 kernel_size: 3",
        normal(2, 3, 5, 4),
        normal(2, 3, 5, 4),
        tops=2,
    ),
)


CROP = (
    row("Crop default", "", normal(2, 3, 7, 5), normal(4, 6, 4, 2)),
    row("Crop one offset", "offset: 2", normal(2, 3, 7, 5), normal(4, 6, 4, 2)),
    row("Crop two offsets", "offset: 3 offset: 1", normal(2, 3, 7, 5), normal(4, 6, 4, 2)),
    row(
        "Crop axis 1",
        "axis: 1 offset: 1 offset: 0 offset: 2",
        normal(2, 5, 7, 6),
        normal(4, 3, 4, 2),
    ),
    row("Crop axis 0", "axis: 0 offset: 1", normal(3, 5, 7, 6), normal(2, 3, 4, 5)),
    row("Crop axis 3", "axis: 3 offset: 2", normal(2, 3, 7, 5), normal(4, 6, 4, 2)),
    row("Crop axis -1", "axis: -1 offset: 1", normal(2, 3, 7, 5), normal(4, 6, 4, 2)),
    row("Crop of rank 2", "axis: 1 offset: 3", normal(2, 7), normal(5, 3)),
    row("Crop of rank 5", "axis: 2 offset: 1", normal(2, 3, 4, 7, 5), normal(3, 2, 3, 6, 2)),
)


IM2COL = (
    row(
        "Im2col h and w",
        "kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 2",
        normal(2, 3, 7, 5),
    ),
    row("Im2col dilation", "kernel_size: 2 dilation: 3 stride: 2 pad: 1", normal(2, 3, 7, 5)),
    row("Im2col dilation 0", "kernel_size: 2 kernel_size: 3 dilation: 0", normal(2, 3, 3, 5)),
    row("Im2col of a lone window", "kernel_size: 4 stride: 2", normal(2, 3, 3, 7)),
    row("Im2col 1-D", "kernel_size: 3 stride: 2 pad: 1", normal(2, 3, 7)),
    row(
        "Im2col 3-D",
        "kernel_size: 2 kernel_size: 3 kernel_size: 1 stride: 1 stride: 2 stride: 1 dilation: 2 "
        "dilation: 1 dilation: 1",
        normal(2, 3, 5, 7, 4),
    ),
    row("Im2col axis 2", "axis: 2 kernel_size: 3", normal(2, 3, 4, 7, 5)),
    row("Im2col axis -3", "axis: -3 kernel_size: 3", normal(2, 3, 7, 5)),
    row("Im2col axis 0", "axis: 0 kernel_size: 2", normal(3, 7, 5)),
)
