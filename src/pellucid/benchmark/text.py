"""What was found, as text for a terminal of 80 columns."""

from __future__ import annotations

import textwrap

from pellucid.benchmark.contestants import OWN, TITLES
from pellucid.benchmark.measure import Result

_COLUMNS = 80


def report(result: Result) -> str:
    """Return a run's result as tables.

    Args:
        result: Of measure.run.
    """
    remarks = [*_losses(result), *_memory(result), *_startup(result), *_machine(result)]
    wrapped = [line for remark in remarks for line in textwrap.wrap(remark, _COLUMNS, subsequent_indent="  ")]
    return "\n".join([*_times(result), "", *wrapped])


def peers(result: Result) -> list[str]:
    """Return the peers that took part in some workload, in the order of TITLES."""
    return [name for name in TITLES if any(name in work["ratios"] for work in result["workloads"].values())]


def thread_counts(result: Result) -> list[str]:
    """Return the numbers of threads, as keys."""
    return list(next(iter(result["workloads"].values()))["times"][OWN])


def number(value: float) -> str:
    """Return a time with three significant digits or more."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _times(result: Result) -> list[str]:
    counts, others = thread_counts(result), peers(result)
    lines = ["microseconds per image, best of the rounds"]
    if others:
        lines.append("(peers with the number of threads that suits them, and how many times as long)")
    labels = [f"{c} thread" if c == "1" else f"{c} threads" if len(c) == 1 else f"{c} thr." for c in counts]
    lines.append(f"{'':8}" + "".join(f"{x:>10}" for x in labels) + "".join(f"{TITLES[peer]:>13}" for peer in others))
    for name, work in result["workloads"].items():
        line = f"{name:8}" + "".join(f"{number(work['times'][OWN][c]['best']):>10}" for c in counts)
        for peer in others:
            cell = ""
            if peer in work["ratios"]:
                best = min(row["best"] for row in work["times"][peer].values())
                cell = f"{number(best)} {work['ratios'][peer]['best']:.1f}x"
            line += f"{cell:>13}"
        lines.append(line.rstrip())
    return lines + [f"{name:8}{work['title']}" for name, work in result["workloads"].items()]


def _losses(result: Result) -> list[str]:
    lines = []
    for name, work in result["workloads"].items():
        if work["trains"]:
            first = ", ".join(f"{TITLES[who]} {values[-1]:.4f}" for who, values in work["losses"].items())
            lines.append(f"{name}: loss of step {len(work['losses'][OWN])}: {first}")
    return lines


def _memory(result: Result) -> list[str]:
    lines = []
    for name, work in result["workloads"].items():
        if work["memory"]:
            cells = (f"{TITLES[who]} {row['growth']:.0f} MB" for who, row in work["memory"].items())
            lines.append(f"{name}: training adds {', '.join(cells)}")
    return lines


def _startup(result: Result) -> list[str]:
    return [
        f"{row['command'].replace(chr(96), '')}: {row['first']:.1f} s the first time, then {row['later']:.1f} s"
        for row in result["startup"]
    ]


def _machine(result: Result) -> list[str]:
    found, control = result["machine"], result["control_gflops"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"control (NumPy's matrix product, 1 thread): {control['best']:.0f} GFLOP/s, worst {control['worst']:.0f}",
        f"{found['cpu']}, {found['cores']} cores, Python {found['python']}, NumPy {found['numpy']}",
        versions,
    ]
    for name, dropped in result["dropped"].items():
        lines += [f"{name}: without {TITLES[peer]}: {reason}" for peer, reason in dropped.items()]
    broken = {peer: reason for peer, reason in result["absent"].items() if reason != "not installed"}
    lines += [f"without {TITLES[peer]}: {reason}" for peer, reason in broken.items()]
    missing = [TITLES[peer] for peer in result["absent"] if peer not in broken]
    if missing:
        lines.append(f"not here: {', '.join(missing)}; --help says how to add them")
    return lines
