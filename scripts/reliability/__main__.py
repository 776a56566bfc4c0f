"""Write docs/reliability.md: how near to its definition the compiled engine is, that bits repeat, that runs survive.

Takes about half an hour. Ends with an error where a promise of the page does not hold.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import bits  # noqa: E402
import kills  # noqa: E402
import page  # noqa: E402
import parity  # noqa: E402
import refusals  # noqa: E402


def main() -> None:
    """Measure and write the page."""
    tables, failures = {"machine": page.machine()}, []
    for measure in (refusals.measure, kills.at_each_call, bits.measure, kills.at_random, parity.measure):
        found, failed = measure()
        tables.update(found)
        failures += failed
    path = ROOT / "docs" / "reliability.md"
    path.write_text(page.TEXT.format(**tables), encoding="utf-8")
    if failures:
        sys.exit(f"what {path.name} promises does not hold: {', '.join(failures)}")


if __name__ == "__main__":
    main()
