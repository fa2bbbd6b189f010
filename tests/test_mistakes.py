"""Each file in ``mistakes/`` makes one, and its first line is the message that says so."""

from pathlib import Path

import pytest

import netspec

HERE = Path(__file__).parent
MISTAKES = sorted((HERE / "mistakes").glob("*.prototxt"))


def built(path: Path, phase: str) -> str | None:
    """The message of a net that cannot be built in a phase."""
    try:
        netspec.load(path, phase=phase, run_python=True)
    except netspec.NetSpecError as error:
        return str(error)
    return None


@pytest.mark.parametrize("path", MISTAKES, ids=lambda path: path.stem)
def test_the_message_is_exactly_this(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    expected = path.read_text().splitlines()[0].removeprefix("# ")
    named = path.relative_to(HERE)
    assert expected.startswith(f"{named}:")
    messages = {built(named, phase) for phase in ("train", "test")}
    # Some mistakes are in one phase only.
    assert messages - {None} == {expected}


def test_there_are_mistakes() -> None:
    assert len(MISTAKES) > 100
