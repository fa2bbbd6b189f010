"""The ``param_str`` of a segmentation set's layer: a Python dict of plain values, checked."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from netspec.errors import SourceError, fail, nearest, require


class Setting(NamedTuple):
    """A key of ``param_str``: what it needs, whether a value is that, and one that is."""

    needs: str
    fits: Callable[[Any], bool]
    example: object


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_number(value: Any) -> bool:
    # A Python integer may be larger than any float.
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max


def _is_mean(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return len(value) in (1, 3) and all(map(_is_number, value))
    return _is_number(value)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


_SHOWN = 200

MEAN_SETTING = {
    "mean": Setting("one number or three (blue, green, red)", _is_mean, (104, 117, 123))
}


def read_settings(
    param_str: str, *folders: str, own: Mapping[str, Setting] = MEAN_SETTING
) -> dict[str, Any]:
    """The settings of a segmentation layer, checked; ``param_str`` is read, never run.

    folders: the keys that name folders. own: what the set needs besides. Raises SourceError where
    it is no dict of plain values, or where keys are missing, unknown or hold what they cannot.
    """
    folder = Setting("the path of a folder", _is_text, "data")
    needed = {
        **dict.fromkeys(folders, folder),
        "split": Setting("a name", _is_text, "train"),
        **own,
    }
    try:
        settings = ast.literal_eval(param_str.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        example = {key: setting.example for key, setting in needed.items()}
        fail(f"param_str must be a Python dict of plain values, e.g. {example}", SourceError)
    known = {
        **needed,
        "randomize": Setting("True or False", lambda value: value in (True, False), True),
        "seed": Setting("an integer or None", lambda v: v is None or type(v) is int, 1337),
    }
    for key in settings:
        if key not in known:
            fail(f'param_str: unknown key "{key}"{nearest(str(key), known)}', SourceError)
    missing = [f'"{key}"' for key in needed if key not in settings]
    require(not missing, f"param_str lacks {', '.join(missing)}", SourceError)
    for key, value in settings.items():
        require(
            known[key].fits(value),
            f'param_str: "{key}" is {_shown(value)}; needs {known[key].needs}',
            SourceError,
        )
    return settings
