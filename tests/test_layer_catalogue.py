import pytest
from cases import CASES

from netspec.inspect.layer_catalogue import CatalogueRow, blob_names, entries, table
from netspec.layers import FAMILIES, REGISTRY


def entry(name: str) -> CatalogueRow:
    (found,) = (each for each in entries() if each.type == name)
    return found


def test_a_row_a_type_in_the_order_of_the_families() -> None:
    rows = list(entries())
    assert sorted(row.type for row in rows) == sorted(REGISTRY)
    families = list(dict.fromkeys(row.family for row in rows))
    assert families == [family.__name__.rsplit(".", 1)[-1] for family in FAMILIES]


@pytest.mark.parametrize(
    ("name", "bottoms", "tops", "blobs"),
    [
        ("Input", "0", "1 or more", ""),
        ("Convolution", "1 or more", "as bottoms", "weight, bias"),
        ("InnerProduct", "1", "1", "weight, bias"),
        ("Scale", "1 to 2", "1", "scale, bias"),
        ("Bias", "1 to 2", "1", "bias"),
        ("Silence", "1 or more", "0", ""),
        ("LSTM", "2 to 5", "1 to 3", "W_xc, b_c, W_xc_static, W_hc"),
        ("RNN", "2 to 4", "1 to 2", "W_xh, b_h, W_xh_static, W_hh, W_ho, b_o"),
        ("Parameter", "0", "1", "array"),
    ],
)
def test_what_a_row_says(name: str, bottoms: str, tops: str, blobs: str) -> None:
    layer = REGISTRY[name]
    assert entry(name) == (name, layer.family, bottoms, tops, blobs, layer.formula)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_docstrings_list_the_blobs_that_there_are(name: str) -> None:
    """After ``Blobs:``, in the order of a .caffemodel, all that some case has."""
    found = {
        tuple(each.blobs) for case in CASES for each in case.shapes.nodes if each.node.type == name
    }
    listed = blob_names(REGISTRY[name])
    assert {blob for blobs in found for blob in blobs} == set(listed)
    for blobs in found:
        assert list(blobs) == [blob for blob in listed if blob in blobs]


def test_the_table_is_in_columns() -> None:
    head, rule, *rows = table().splitlines()
    assert head.split() == list(CatalogueRow._fields)
    assert len(rows) == len(REGISTRY)
    starts = [i for i in range(len(rule)) if rule[i] == "-" and rule[i - 1 : i] != "-"]
    assert [head[i] for i in starts] == [name[0] for name in CatalogueRow._fields]
    (row,) = (row for row in rows if row.startswith("LSTM "))
    cells = [row[i:j].strip() for i, j in zip(starts, [*starts[1:], None], strict=True)]
    assert cells == list(entry("LSTM"))
