"""Nets of several layers, where what one hands on concerns the next."""

from .case import Case, labels, normal

# An array of 5 axes comes channels-last from a convolution only.
CHAINS = (
    Case(
        "Softmax, Scale, Concat and Crop of rank 5",
        """
        layer { name: "in" type: "Input" top: "x" top: "z" input_param {
            shape { dim: 2 dim: 3 dim: 4 dim: 5 dim: 6 }
            shape { dim: 2 dim: 1 dim: 3 dim: 2 dim: 4 } } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {
            num_output: 4 kernel_size: 2 } }
        layer { name: "s" type: "Softmax" bottom: "c" top: "s" softmax_param { axis: 3 } }
        layer { name: "m" type: "Scale" bottom: "s" top: "m" scale_param { num_axes: 3 } }
        layer { name: "j" type: "Concat" bottom: "m" bottom: "c" top: "j" concat_param {
            axis: -2 } }
        layer { name: "y" type: "Crop" bottom: "j" bottom: "z" top: "y" crop_param { offset: 0
            offset: 3 offset: 1 } }
        """,
        {"x": normal(2, 3, 4, 5, 6), "z": normal(2, 1, 3, 2, 4)},
    ),
    Case(
        "Reduction, ArgMax, Slice and Tile of rank 5",
        """
        layer { name: "in" type: "Input" top: "x" input_param {
            shape { dim: 2 dim: 3 dim: 4 dim: 5 dim: 7 } } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {
            num_output: 4 kernel_size: 2 } }
        layer { name: "s" type: "Slice" bottom: "c" top: "s" top: "t" slice_param {
            axis: -2 slice_point: 1 } }
        layer { name: "l" type: "Tile" bottom: "t" top: "l" tile_param { axis: 3 tiles: 2 } }
        layer { name: "m" type: "ArgMax" bottom: "s" top: "m" argmax_param {
            axis: 1 out_max_val: true } }
        layer { name: "r" type: "Reduction" bottom: "l" top: "r" reduction_param {
            axis: -1 operation: SUMSQ } }
        layer { name: "q" type: "Reduction" bottom: "c" top: "q" reduction_param { axis: 3 } }
        """,
        {"x": normal(2, 3, 4, 5, 7)},
        smooth=False,
    ),
    Case(
        "SoftmaxWithLoss and Accuracy of rank 5",
        """
        layer { name: "in" type: "Input" top: "x" top: "l" input_param {
            shape { dim: 2 dim: 3 dim: 4 dim: 5 dim: 6 } shape { dim: 2 dim: 3 dim: 4 dim: 5 } } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {
            num_output: 4 kernel_size: 2 } }
        layer { name: "e" type: "SoftmaxWithLoss" bottom: "c" bottom: "l" top: "e" top: "p"
            loss_weight: 1 loss_weight: 0 }
        layer { name: "a" type: "Accuracy" bottom: "c" bottom: "l" top: "a" top: "k" }
        """,
        {"x": normal(2, 3, 4, 5, 6), "l": labels(2, 3, 4, 5, classes=4)},
    ),
    Case(
        "ReLU and Dropout in place",
        """
        layer { name: "in" type: "Input" top: "x" input_param {
            shape { dim: 2 dim: 3 dim: 7 dim: 5 } } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {
            num_output: 4 kernel_size: 3 } }
        layer { name: "r" type: "ReLU" bottom: "c" top: "c" relu_param { negative_slope: 0.5 } }
        layer { name: "d" type: "Dropout" bottom: "c" top: "c" }
        layer { name: "y" type: "InnerProduct" bottom: "c" top: "y" inner_product_param {
            num_output: 2 } }
        """,
        {"x": normal(2, 3, 7, 5)},
    ),
)
