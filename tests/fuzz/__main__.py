"""``python -m tests.fuzz``: check random nets, and write down those that fail."""

import argparse
import os
import sys
import warnings
from pathlib import Path


def arguments() -> argparse.Namespace:
    """What the command is given."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="nets (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first net (%(default)s)")
    parser.add_argument("--time", type=float, default=float("inf"), help="seconds at most")
    parser.add_argument("--thorough", action="store_true", help="do all checks for each net")
    parser.add_argument("--only", action="append", help="do this check only; may be repeated")
    parser.add_argument("--caffe-python", help="a Python that imports Caffe, to compare with")
    parser.add_argument("--out", type=Path, default=Path("fuzz_failures"), help="(%(default)s)")
    parser.add_argument("--no-shrink", action="store_true", help="write failing nets as they are")
    return parser.parse_args()


def main() -> int:
    """Run; the exit status says whether all passed."""
    os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
    warnings.simplefilter("ignore")
    given = arguments()
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    from . import campaign, checks, real_caffe
    from .shrink import shrink

    more = real_caffe.checks_with(given.caffe_python) if given.caffe_python else {}
    signs: set[str] = set()

    def tell(failure: campaign.Failure) -> None:
        new = failure.sign not in signs
        signs.add(failure.sign)
        small = failure if given.no_shrink or not new else shrink(failure, more=more)
        given.out.mkdir(parents=True, exist_ok=True)
        path = given.out / f"{failure.seed}_{failure.check}.prototxt"
        path.write_text(small.text())
        print(f"{path}: {small.what}\n{small.text() if new else ''}", flush=True)

    seeds = range(given.seed, given.seed + given.count)
    due = checks.chosen(given.thorough, given.only)
    report = campaign.run(seeds, due, given.time, more, tell)
    print(report.table())
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
