"""Fuzz the readers: python -m tests.fuzz [--seconds 60] [TARGET …].

With atheris (coverage-guided; pip install 'kdumpy[fuzz]') where it is installed, else with hypothesis. Each target
runs in a process of its own, which may take MEMORY bytes more than it starts with and SLOW seconds an input. What
kills it is written to build/fuzz/; make a test of it, with the mend.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT)]

MEMORY = 192 << 20
"""Bytes; the inputs are smaller than 5 MB, and a claim of more must not be believed."""
SLOW = 10
"""Seconds; a hang."""
RESULTS = ROOT / "build" / "fuzz"


def limit_memory() -> None:
    """Make an allocation on a header's word fail."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def with_atheris(name: str, seconds: int) -> None:
    """Run one target under libFuzzer; does not return."""
    atheris = importlib.import_module("atheris")  # not everywhere, and without types
    with atheris.instrument_imports(include=["kdumpy.dumpfile"]):
        from fuzz.targets import TARGETS
    target, corpus = TARGETS[name], RESULTS / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        target.run(seed)  # and what is imported late is imported
        (corpus / f"seed-{number}").write_bytes(seed)
    limit_memory()
    atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={seconds}", f"-timeout={SLOW}", "-max_len=20000",
                   "-rss_limit_mb=0", f"-artifact_prefix={RESULTS}/{name}-", "-print_final_stats=1", "-verbosity=1"],
                  target.run)
    atheris.Fuzz()


def with_hypothesis(name: str, seconds: int) -> int:
    """Run one target on what hypothesis makes up, for so long; return the executions."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    from fuzz.targets import TARGETS
    target = TARGETS[name]
    seeds = target.seeds()
    for seed in seeds:
        target.run(seed)
    limit_memory()
    done, until = 0, time.monotonic() + seconds

    def cut(seed: bytes, at: int, new: bytes, keep: int) -> bytes:
        at %= len(seed) + 1
        return seed[:at] + new + seed[at + keep:]

    made = st.one_of(st.binary(max_size=400), st.builds(bytes.__add__, st.sampled_from(seeds), st.binary(max_size=80)),
                     st.builds(cut, st.sampled_from(seeds), st.integers(0, 1 << 20), st.binary(max_size=40),
                               st.integers(0, 40)))

    @settings(max_examples=2000, deadline=SLOW * 1000, database=None, suppress_health_check=list(HealthCheck))
    @given(made)
    def one(data: bytes) -> None:
        nonlocal done
        done += 1
        target.run(data)

    while time.monotonic() < until:
        one()
    return done


def main() -> int:
    """Run the targets one after the other; exit 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="what to fuzz (default: everything)")
    parser.add_argument("--seconds", type=int, default=60, help="for each (default: %(default)s)")
    parser.add_argument("--hypothesis", action="store_true", help="without atheris")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    guided = not arguments.hypothesis and importlib.util.find_spec("atheris") is not None
    if arguments.in_this_process:
        if guided:
            with_atheris(arguments.targets[0], arguments.seconds)
        print(f"number_of_executed_units: {with_hypothesis(arguments.targets[0], arguments.seconds)}")
        return 0
    from fuzz.targets import TARGETS
    RESULTS.mkdir(parents=True, exist_ok=True)
    print(f"with {'atheris' if guided else 'hypothesis'}, {arguments.seconds} s each", flush=True)
    failed = False
    for name in arguments.targets or TARGETS:
        command = [sys.executable, "-m", "tests.fuzz", "--in-this-process", f"--seconds={arguments.seconds}", name]
        process = subprocess.run(command + ["--hypothesis"] * (not guided), cwd=ROOT, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True, errors="replace",
                                 env={**os.environ, "PYTHONPATH": str(ROOT)})
        (RESULTS / f"{name}.log").write_text(process.stdout)
        count = re.search(r"number_of_executed_units: (\d+)", process.stdout)
        print(f"{name:14}{count[1] if count else '?':>10} executions  "
              f"{f'FAILED, see build/fuzz/{name}.log' if process.returncode else 'nothing found'}", flush=True)
        failed |= process.returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
