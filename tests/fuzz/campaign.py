"""Many nets checked, what was found told in a table, and each failure's net written down."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from netspec.errors import NetSpecError
from netspec.layers import REGISTRY
from netspec.proto.layers_pb2 import LayerParameter

from . import checks, fields, known
from .drafts import Draft
from .face import folder
from .generator import draft, types
from .trial import Trial

BUILDS = "builds"


@dataclass(frozen=True)
class Failure:
    """A check that failed at a net."""

    seed: int
    check: str
    what: str
    draft: Draft

    @property
    def sign(self) -> str:
        """What two failures of one fault have in common: numbers and names left out."""
        return f"{self.check}: {re.sub(r'[0-9.e+-]+|of b?in.*? ', '#', self.what)[:40]}"

    def text(self) -> str:
        """The failing prototxt, with what failed above it."""
        lines = (f"seed {self.seed}, {self.draft.phase}", f"{self.check}: {self.what}")
        return "".join(f"# {line}\n" for line in lines) + self.draft.text()


@dataclass
class Report:
    """What a campaign found.

    counts: (check, passed, skipped, failed or known) -> nets. reasons: (check, why) -> nets.
    types, fields: how often each was used. refused: netspec's messages for what it did not take.
    """

    nets: int = 0
    seconds: float = 0.0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    spellings: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def enter(self, failure: Failure, kind: str | None) -> None:
        """Count a failure."""
        if kind is not None:
            self.counts[failure.check, "known"] += 1
            self.reasons[failure.check, f"known: {kind}"] += 1
            return
        self.counts[failure.check, "failed"] += 1
        self.failures.append(failure)

    def table(self) -> str:
        """What was checked, and which types and fields were used how often."""
        lines = [
            f"{self.nets} nets in {self.seconds:.0f} s; spellings: {_told(self.spellings)}",
            "",
        ]
        columns = ("passed", "skipped", "known", "failed")
        lines.append(f"{'check':12}" + "".join(f"{name:>9}" for name in columns))
        for name in dict.fromkeys(check for check, _ in self.counts):
            row = "".join(f"{self.counts[name, column]:9}" for column in columns)
            lines.append(f"{name:12}{row}")
            reasons = Counter({why: n for (check, why), n in self.reasons.items() if check == name})
            lines += [f"{'':12}  {n:6} {why}" for why, n in reasons.most_common()]
        never = ", ".join(name for name in types() if not self.types[name])
        lines += ["", f"layer types: {_told(self.types)}", f"never: {never or 'none'}"]
        unused = sorted(set(all_fields(self.types)) - self.fields.keys())
        lines += ["", f"fields: {_told(self.fields)}", f"never: {', '.join(unused) or 'none'}"]
        return "\n".join(lines)


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))


def all_fields(types: Iterable[str]) -> list[str]:
    """All fields that settings of these types have."""
    found = []
    for name in types:
        home = REGISTRY[name].param_field
        if home is not None:
            message = getattr(LayerParameter(), home)
            found += [f"{message.DESCRIPTOR.name}.{d.name}" for d in message.DESCRIPTOR.fields]
    return found


def run(
    seeds: Iterable[int],
    due: checks.Choice = checks.in_turn,
    seconds: float = float("inf"),
    more: Mapping[str, checks.Check] | None = None,
    tell: Callable[[Failure], Any] = lambda failure: None,
) -> Report:
    """Check the nets of some seeds, as many as ``seconds`` allow.

    An interrupt ends it earlier. due: the checks for a seed. more: checks beside them, for each
    net. tell: is told of failures.
    """
    report, start = Report(), time.monotonic()
    with suppress(KeyboardInterrupt):
        _all(report, seeds, due, start + seconds, more or {}, tell)
    report.seconds = time.monotonic() - start
    return report


def _all(
    report: Report,
    seeds: Iterable[int],
    due: checks.Choice,
    until: float,
    more: Mapping[str, checks.Check],
    tell: Callable[[Failure], Any],
) -> None:
    for seed in seeds:
        if time.monotonic() > until:
            break
        if report.nets % 50 == 49:
            jax.clear_caches()  # programs of nets that have gone
        found = len(report.failures)
        _one(report, seed, {**due(seed), **more})
        report.nets += 1
        for failure in report.failures[found:]:
            tell(failure)


def _one(report: Report, seed: int, wanted: Mapping[str, checks.Check]) -> None:
    grown = draft(seed)
    report.refused.update(grown.refused)
    for broken, error in grown.broken:
        report.enter(Failure(seed, BUILDS, raw(error), broken), None)
    made = grown.draft
    report.types.update(layer.type for layer in made.current().layer)
    report.fields.update(fields.said(made.spelled()))
    report.spellings[made.spelling] += 1
    for name, (state, what, kind) in outcomes(made, wanted).items():
        if state == "failed":
            report.enter(Failure(seed, name, what, made), kind)
            continue
        report.counts[name, state] += 1
        if what:
            report.reasons[name, what] += 1


def outcomes(
    made: Draft, wanted: Mapping[str, checks.Check]
) -> dict[str, tuple[str, str, str | None]]:
    """Check -> passed, skipped or failed; why; and the known fault, if it is of one."""
    with folder() as place:
        try:
            trial = Trial(made, Path(place))
        except NetSpecError as error:
            return {BUILDS: ("skipped", f"refused: {_plain(error.message)}", None)}
        except Exception as error:
            return {BUILDS: ("failed", raw(error), None)}
        found: dict[str, tuple[str, str, str | None]] = {BUILDS: ("passed", "", None)}
        for name, check in wanted.items():
            state, what = checks.outcome(check, trial)
            kind = known.kind(made, trial.face, name, what) if state == "failed" else None
            found[name] = state, what, kind
        return found


def raw(error: Exception) -> str:
    """An error that is no message of netspec's."""
    return f"raw {type(error).__name__}: {str(error)[:300]}"


def _plain(message: str) -> str:
    """A message without its numbers, so that equal ones count together."""
    return re.sub(r"[0-9]+", "#", message)[:70]
