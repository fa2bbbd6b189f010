import csv
import io
import json

from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import infer
from netspec.inspect.summary import Summary, summarise
from netspec.inspect.summary_text import as_json, comma_separated, table

TEXT = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [2, 3, 50, 70] } } }
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { name: "w" lr_mult: 0 } convolution_param { num_output: 11 kernel_size: 3 }
}
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer {
  name: "up" type: "Deconvolution" bottom: "conv" top: "up" param { lr_mult: 0 }
  convolution_param { num_output: 1 kernel_size: 30 bias_term: false }
}
layer {
  name: "same" type: "Convolution" bottom: "data" top: "same" param { name: "w" }
  convolution_param { num_output: 11 kernel_size: 3 bias_term: false }
}
"""


def summary(text: str = TEXT) -> Summary:
    return summarise(infer(connect(parse_net(text, "net.prototxt"))))


def test_table() -> None:
    assert table(summary()) == (
        "layer  type           top         params  MMAC  MiB\n"
        "-----  -------------  ----------  ------  ----  ---  ---------\n"
        "data   Input          2x3x50x70                 0.1\n"
        "conv   Convolution    2x11x48x68     308   1.9  0.3  learns 11\n"
        "relu   ReLU           2x11x48x68\n"
        "up     Deconvolution  2x1x77x97    9,900  64.6  0.1  frozen\n"
        "same   Convolution    2x11x48x68           1.9  0.3  frozen\n"
        "\n"
        "type           layers  params  MMAC  MiB\n"
        "-------------  ------  ------  ----  ---\n"
        "Input               1                0.1\n"
        "Convolution         2     308   3.9  0.5\n"
        "ReLU                1\n"
        "Deconvolution       1   9,900  64.6  0.1\n"
        "\n"
        "10,208 parameters, 11 of them learned; 0.1 GMAC a run\n"
        "parameters       0.0 MiB\n"
        "momentum         0.0 MiB\n"
        "activations      0.7 MiB\n"
        "training, about  0.7 MiB"
    )


UNKNOWN = """
layer { name: "data" type: "Data" top: "data" data_param { source: "nowhere" } }
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 11 kernel_size: 3 }
}
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 } }
"""
MORE = """
layer { name: "in" type: "Input" top: "in" input_param { shape { dim: [2, 3, 50, 70] } } }
layer {
  name: "known" type: "Convolution" bottom: "in" top: "known"
  convolution_param { num_output: 11 kernel_size: 3 }
}
"""


def partial(text: str) -> str:
    return table(summarise(infer(connect(parse_net(text, "net.prototxt")), {}, "known")))


def test_what_is_not_known_is_no_nothing() -> None:
    assert partial(UNKNOWN) == (
        "layer  type         top  params  MMAC  MiB\n"
        "-----  -----------  ---  ------  ----  ---\n"
        "data   Data         ?                    ?\n"
        "conv   Convolution  ?         ?     ?    ?\n"
        "pool   Pooling      ?                    ?\n"
        "\n"
        "type         layers  params  MMAC  MiB\n"
        "-----------  ------  ------  ----  ---\n"
        "Data              1                  ?\n"
        "Convolution       1       ?     ?    ?\n"
        "Pooling           1                  ?\n"
        "\n"
        "? parameters, as no shapes are known; ? GMAC a run\n"
        "parameters       ?\n"
        "momentum         ?\n"
        "activations      ?\n"
        "training, about  ?"
    )
    lines = partial(UNKNOWN + MORE).splitlines()
    assert "Convolution       2    308+  1.9+  0.3+" in lines
    words = "308 parameters, 308 of them learned, as far as shapes are known; 0.0 GMAC a run"
    assert words in lines
    found = summarise(infer(connect(parse_net(UNKNOWN, "net.prototxt")), {}, "known"))
    assert "layer,conv,Convolution,?,,,,,0" in comma_separated(found).splitlines()
    assert json.loads(as_json(found))["total"]["known"] is False


def test_table_of_shared_arrays() -> None:
    lines = table(summary(TEXT.replace('name: "w" lr_mult: 0', 'name: "w"'))).splitlines()
    assert lines[6].endswith("shares conv")


def test_csv_adds_up() -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(summary()))))
    assert [row["layer"] for row in rows if row["frozen"] == "1"] == ["up", "same"]
    assert rows[1]["tops"] == "2x11x48x68"
    for column in ("params", "learned", "multiply_adds", "activation_bytes"):
        sums = dict.fromkeys(("layer", "type", "net"), 0)
        for row in rows:
            sums[row["row"]] += int(row[column])
        assert len(set(sums.values())) == 1, column
    assert rows[-1]["multiply_adds"] == str(2 * (2 * 297 * 48 * 68 + 9900 * 48 * 68))


def test_json_says_what_csv_says() -> None:
    found = json.loads(as_json(summary()))
    rows = list(csv.DictReader(io.StringIO(comma_separated(summary()))))
    assert found["known"] is True
    for layer, row in zip(found["layers"], rows, strict=False):
        assert {key: str(layer[key]) for key in list(row)[4:8]} == {
            key: row[key] for key in list(row)[4:8]
        }
    assert found["layers"][4]["shares"] == ["conv"]
    assert found["layers"][1]["tops"] == [[2, 11, 48, 68]]
    assert found["types"]["Deconvolution"]["params"] == 9900
    assert found["total"]["params"] == int(rows[-1]["params"])
