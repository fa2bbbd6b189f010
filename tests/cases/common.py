"""Products, embeddings, scales and biases."""

from .case import indices, normal, row

COMMON = (
    row("InnerProduct", "num_output: 4", normal(2, 3, 7, 5)),
    row("InnerProduct without bias", "num_output: 4 bias_term: false", normal(2, 7)),
    row("InnerProduct transpose", "num_output: 4 transpose: true", normal(2, 3, 5)),
    row("InnerProduct axis 2", "num_output: 4 axis: 2", normal(2, 3, 7, 5)),
    row(
        "InnerProduct axis -1, transpose",
        "num_output: 11 axis: -1 transpose: true",
        normal(2, 3, 7),
    ),
    row("InnerProduct axis 0", "num_output: 4 axis: 0", normal(2, 3, 5)),
    row("Embed", "num_output: 5 input_dim: 11", indices(2, 3, 7, below=11)),
    row("Embed without bias", "num_output: 5 input_dim: 7 bias_term: false", indices(3, below=7)),
    row("Embed of an image", "num_output: 4 input_dim: 3", indices(2, 3, 7, 5, below=3)),
    row("Embed of a scalar", "num_output: 5 input_dim: 7", indices(below=7)),
    row("Scale", "", normal(2, 3, 7, 5)),
    row("Scale with bias", "bias_term: true", normal(2, 3, 7, 5)),
    row("Scale two axes", "num_axes: 2 bias_term: true", normal(2, 3, 7, 5)),
    row("Scale all axes", "num_axes: -1 bias_term: true", normal(2, 3, 7, 5)),
    row("Scale no axis", "num_axes: 0 bias_term: true", normal(2, 3, 7, 5)),
    row("Scale axis 0", "axis: 0 num_axes: 2", normal(2, 3, 7, 5)),
    row("Scale axis -1", "axis: -1 bias_term: true", normal(2, 3, 7, 5)),
    row("Scale axis 2 of rank 3", "axis: 2", normal(2, 3, 7)),
    row("Scale by a bottom", "axis: 1", normal(2, 3, 7, 5), normal(3, 7)),
    row(
        "Scale by a bottom, with bias", "axis: -2 bias_term: true", normal(2, 3, 7, 5), normal(7, 5)
    ),
    row("Scale by a whole bottom", "axis: 0", normal(2, 3, 7, 5), normal(2, 3, 7, 5)),
    row("Scale by a scalar bottom", "axis: 3 bias_term: true", normal(2, 3, 7, 5), normal()),
    row("Bias", "", normal(2, 3, 7, 5)),
    row("Bias two axes", "axis: 2 num_axes: 2", normal(2, 3, 7, 5)),
    row("Bias all axes", "num_axes: -1", normal(2, 3, 7, 5)),
    row("Bias no axis", "num_axes: 0", normal(2, 3)),
    row("Bias by a bottom", "axis: 0", normal(2, 3, 7, 5), normal(2, 3)),
    row("Bias by a scalar bottom", "", normal(2, 3, 7, 5), normal()),
)
