import pytest

from netspec.errors import LayerError
from netspec.layers.host_errors import host_errors, report


def test_a_run_hears_what_is_reported_while_it_is_open() -> None:
    layer, early, first, late = object(), LayerError("a"), LayerError("b"), LayerError("c")
    report(layer, early)
    with host_errors() as outer:
        with host_errors() as inner:
            report(layer, first)
        report(layer, late)
    assert inner == [(layer, first)]
    assert outer == [(layer, first), (layer, late)]


def test_a_run_that_fails_hears_no_more() -> None:
    with pytest.raises(LayerError), host_errors() as reports:
        raise LayerError("a")
    report(object(), LayerError("b"))
    assert reports == []
