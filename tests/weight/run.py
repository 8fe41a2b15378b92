#!/usr/bin/env python3
"""Acceptance tests of weight: large states, slow, hanging and full disks, with real processes.

    tests/weight/run.py --binary target/release/stormkv              # all cases, about 15 minutes
    tests/weight/run.py --binary target/release/stormkv snapshots hang
    tests/weight/run.py --binary target/release/stormkv --short      # small states, about 5 minutes

Each case starts a cluster on this machine, prints its figures, and PASS or FAIL for each limit. The
exit code is 1 if a limit was missed. On a busy machine, `nice -n -10` before it keeps elections out
that others cause. Needs Python 3.11 and a C compiler; disks are modelled by
tests/slow-disk. The full form needs up to 4 GB of memory and 5 GB below --dir; `large` (a state
above 4 GiB, not part of "all") needs 16 GB of each.
"""

import argparse
import asyncio
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import traceback
from dataclasses import replace

from cases import CASES, FULL, SHORT, Report
from fleet import Fleet, TooLarge, compile_disk
from rest import now

# Left out of "all": by hand only.
BY_HAND = {"large"}


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "cases", nargs="*", choices=[*CASES, []], metavar="CASE", help=", ".join(CASES)
    )
    parser.add_argument("--binary", required=True, type=pathlib.Path, help="the program stormkv")
    parser.add_argument("--short", action="store_true", help="small states on slower disks")
    parser.add_argument("--state-mb", type=int, help="another size of the state")
    parser.add_argument("--dir", type=pathlib.Path, help="where the data go [default: $TMPDIR]")
    parser.add_argument(
        "--attempts",
        type=int,
        default=1,
        metavar="N",
        help="run a case that misses a limit up to N times: other load can cause that [default: 1]",
    )
    parser.add_argument("--keep", action="store_true", help="keep data and logs of the nodes")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file, too")
    return parser.parse_args()


async def run_case(name, args, scale, below):
    """Runs one case within its time; returns its report."""
    job, seconds = CASES[name]
    if args.short:
        seconds = 120
    report = Report(name)
    below.mkdir()
    ceiling = 12_000 if name == "large" else 3_000
    library = compile_disk(below)
    fleet = Fleet(below, args.binary.resolve(), library, scale.flags(), ceiling)
    try:
        async with asyncio.timeout(seconds), fleet:
            await job(fleet, scale, report)
            ended = [node.number for node in fleet.nodes if node.has_ended]
            report.check("members that ended unasked", len(ended), 1)
    except TooLarge as error:
        print(f"  FAIL stopped to protect the machine: {error}", flush=True)
        report.failed.append("memory")
    except TimeoutError:
        print(f"  FAIL the case took longer than {seconds} s", flush=True)
        report.failed.append("time")
    except Exception:  # One broken case must not hide the others.
        traceback.print_exc()
        report.failed.append("error")
    return report


def main():
    """Runs the cases and returns the exit code."""
    args = arguments()
    # Ends the nodes in good order on a signal, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scale = SHORT if args.short else FULL
    if not os.access(args.binary, os.X_OK):
        sys.exit(f"{args.binary} is no program: cargo build --release --features tcp makes one")
    names = args.cases or [name for name in CASES if name not in BY_HAND]
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="stormkv-weight-", dir=args.dir))
    reports = []
    try:
        for name in names:
            state_mb = args.state_mb or (4600 if name == "large" and not args.short else None)
            sized = replace(scale, state_mb=state_mb) if state_mb else scale
            began, load = now(), os.getloadavg()[0]
            print(f"{name} ({scale.name}): {CASES[name][0].__doc__}", flush=True)
            for attempt in range(1, args.attempts + 1):
                below = scratch / f"{name}-{attempt}"
                report = asyncio.run(run_case(name, args, sized, below))
                loads = f"load of the machine {load:.1f} to {os.getloadavg()[0]:.1f}"
                print(f"    {now() - began:.0f} s, {loads}\n", flush=True)
                if not args.keep:
                    shutil.rmtree(below)
                if not report.failed:
                    break
            reports.append(report)
    finally:
        if args.keep:
            print(f"data and logs: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    for report in reports:
        verdict = f"FAIL: {', '.join(report.failed)}" if report.failed else "PASS"
        print(f"{report.name:16} {verdict}")
    if args.json:
        figures = {r.name: {"failed": r.failed, "figures": r.figures} for r in reports}
        args.json.write_text(json.dumps(figures, indent=2, default=str) + "\n")
    return 1 if any(report.failed for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
