"""Layers that combine, pick, reduce or hold arrays."""

from .case import Case, normal, positive, row, whole

UTILITY = (
    row("Eltwise SUM", "", normal(2, 3, 7, 5), normal(2, 3, 7, 5), normal(2, 3, 7, 5)),
    row("Eltwise SUM coeff", "coeff: -1 coeff: 0.5", normal(2, 3, 7, 5), normal(2, 3, 7, 5)),
    row(
        "Eltwise SUM of one twice",
        "coeff: 1 coeff: 3 coeff: -2",
        normal(2, 3),
        normal(2, 3),
        bottoms="aba",
    ),
    row(
        "Eltwise PROD",
        "operation: PROD",
        normal(2, 3, 7, 5),
        normal(2, 3, 7, 5),
        normal(2, 3, 7, 5),
    ),
    row("Eltwise PROD of one twice", "operation: PROD", normal(2, 3), normal(2, 3), bottoms="aab"),
    row(
        "Eltwise PROD by division",
        "operation: PROD stable_prod_grad: false",
        positive(2, 3, 7, 5),
        positive(2, 3, 7, 5),
        bottoms="bab",
    ),
    row(
        "Eltwise MAX", "operation: MAX", normal(2, 3, 7, 5), normal(2, 3, 7, 5), normal(2, 3, 7, 5)
    ),
    row(
        "Eltwise MAX of one twice",
        "operation: MAX",
        normal(2, 3, 7),
        normal(2, 3, 7),
        bottoms="aab",
    ),
    row("Concat", "", normal(2, 3, 7, 5), normal(2, 4, 7, 5), normal(2, 1, 7, 5)),
    row("Concat axis 0", "axis: 0", normal(2, 3, 7, 5), normal(4, 3, 7, 5)),
    row("Concat axis -1", "axis: -1", normal(2, 3, 7, 5), normal(2, 3, 7, 4)),
    row("Concat axis -2", "axis: -2", normal(2, 3, 7, 5), normal(2, 3, 6, 5)),
    row("Concat concat_dim", "concat_dim: 2", normal(2, 3, 7, 5), normal(2, 3, 6, 5)),
    row("Concat one bottom", "", normal(2, 3, 7, 5)),
    row("Concat one bottom twice", "axis: 1", normal(2, 3), bottoms="aa"),
    row("Split", "", normal(2, 3, 7, 5), tops=3),
    row("Silence", "", normal(2, 3, 7, 5), normal(5), tops=0),
    row("Softmax", "", normal(2, 3, 7, 5)),
    row("Softmax axis 2", "axis: 2", normal(2, 3, 7, 5)),
    row("Softmax axis -1", "axis: -1", normal(2, 3, 7, 5)),
    row("Softmax axis 0", "axis: 0", normal(2, 3)),
    row("Softmax of great numbers", "", normal(2, 3, 7, 5, scale=1000)),
    *(
        row(f"Reduction {how}", f"operation: {how}", normal(2, 3, 7, 5))
        for how in (
            "SUM axis: 1 coeff: -2",
            "SUM axis: 2",
            "MEAN axis: -1 coeff: 3",
            "MEAN",
            "ASUM axis: 1",
            "ASUM axis: 3 coeff: 0.5",
            "SUMSQ axis: -2 coeff: -0.5",
        )
    ),
    row("Reduction of rank 1", "operation: SUMSQ axis: -1 coeff: 0.25", normal(7)),
    row("ArgMax", "", normal(2, 3, 7, 5), smooth=False),
    row("ArgMax of rank 1", "out_max_val: true", normal(7), smooth=False),
    row("ArgMax of rank 2, ties", "top_k: 4 out_max_val: true", whole(7, 5), smooth=False),
    row(
        "ArgMax of rank 4, ties",
        "top_k: 11 out_max_val: true",
        whole(2, 3, 7, 5),
        smooth=False,
    ),
    row("ArgMax axis 1", "axis: 1", whole(2, 3, 7, 5), smooth=False),
    row("ArgMax axis 1, values", "axis: 1 out_max_val: true", normal(2, 3, 7, 5), smooth=False),
    row("ArgMax axis -2, ties", "axis: -2 top_k: 5", whole(2, 3, 7, 5), smooth=False),
    row("ArgMax axis 0", "axis: 0 top_k: 2", whole(3, 7), smooth=False),
    row(
        "ArgMax axis -1, values",
        "axis: -1 top_k: 5 out_max_val: true",
        normal(2, 3, 7, 5),
        smooth=False,
    ),
)


# A row's layer has bottoms; this one has none.
PARAMETER = (
    Case(
        "Parameter plus a blob",
        """
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "p" type: "Parameter" top: "p" parameter_param { shape {
            dim: 2 dim: 3 } } }
        layer { name: "y" type: "Eltwise" bottom: "x" bottom: "p" top: "y" eltwise_param {
            operation: PROD } }
        """,
        {"x": normal(2, 3)},
    ),
    Case(
        "Parameter without a shape, a scalar",
        """
        layer { name: "p" type: "Parameter" top: "p" }
        layer { name: "y" type: "Power" bottom: "p" top: "y" power_param { scale: 3 } }
        """,
    ),
    Case(
        "Parameter of rank 4, pooled",
        """
        layer { name: "p" type: "Parameter" top: "p" parameter_param { shape {
            dim: 2 dim: 3 dim: 7 dim: 5 } } }
        layer { name: "y" type: "Pooling" bottom: "p" top: "y" pooling_param { kernel_size: 2 } }
        """,
    ),
)
