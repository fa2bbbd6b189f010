"""What all tests share."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# In the environment, so that commands which tests start are as strict, and so that tests which
# need no JAX do not import it.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# With a cache folder (JAX_COMPILATION_CACHE_DIR), keep even what compiles quickly: tests compile
# hundreds of small programs.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Without one, none: a test does not write to its user's own.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

# Helpers whose assertions tell, as those of tests do, what differs.
pytest.register_assert_rewrite(
    "caffe_command_line",
    "command_line",
    "face_net",
    "layer_runs",
    "open_sources",
    "pages",
    "set_folders",
    "user_layers",
)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of arrays that Caffe wrote, one subfolder a kind."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of nets and pictures that are not the project's own; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs nets and pictures that are not part of the project")
    return SHARED


@pytest.fixture(scope="module", autouse=True)
def _programs_let_go() -> Iterator[None]:
    """Forget what a module compiled: all of it together would fill a small machine."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def hasty() -> Iterator[None]:
    """Compile without most optimizations, for a module that says so."""
    import jax

    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, True)
    yield
    jax.config.update(name, before)
