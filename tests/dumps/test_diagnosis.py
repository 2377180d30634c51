"""Every dump of the laboratory gets the right verdict, and its JSON keeps the schema."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

import kdumpy
import lab
from console import Console, kernel_of
from diagnosed import diagnosed
from kdumpy.diagnosis import as_json
from kdumpy.diagnosis.schema import json_schema
from kdumpy.report import text
from kdumpy.vm.faults import FAULTS


@pytest.mark.parametrize(("kernel", "name"), lab.panics())
def test_cause_and_culprit_are_right(kernel: str, name: str) -> None:
    fault, verdict = FAULTS[name], diagnosed(kernel, name).verdict
    assert verdict.cause == fault.cause
    if fault.culprits:
        assert verdict.culprit is not None
        assert verdict.culprit.function in fault.culprits
        assert verdict.culprit.module == fault.module
    else:
        assert verdict.culprit is None or verdict.culprit.module is None
    assert verdict.evidence
    assert verdict.explanation.endswith((".", ")"))
    assert [item for item in verdict.not_judged if "Error" in item.why] == []


@pytest.mark.parametrize(("kernel", "name"), lab.panics())
def test_the_dump_is_read_whole(kernel: str, name: str) -> None:
    diagnosis = diagnosed(kernel, name)
    assert diagnosis.dump.health == "complete"
    assert diagnosis.dump.missing == {}
    assert diagnosis.system.release == lab.dump(kernel, name).release
    assert [taint[0] for taint in diagnosis.system.taints].count("O") == 1
    assert diagnosis.memory.total
    assert diagnosis.memory.free is not None
    assert len(diagnosis.cpus) == 2
    assert [cpu.panicked for cpu in diagnosis.cpus].count(True) == 1
    assert "flaky" in {module.name for module in diagnosis.modules}


@pytest.mark.parametrize(("kernel", "name"), lab.panics())
def test_the_json_keeps_the_schema(kernel: str, name: str) -> None:
    value = json.loads(json.dumps(as_json(diagnosed(kernel, name))))
    jsonschema.Draft202012Validator(json_schema()).validate(value)


@pytest.mark.parametrize(("kernel", "name"), lab.panics())
def test_the_culprit_is_marked_in_the_stack(kernel: str, name: str) -> None:
    diagnosis = diagnosed(kernel, name)
    marked = [frame for frame in diagnosis.trace if frame.culprit]
    if diagnosis.verdict.culprit:
        assert len(marked) == 1
        assert (marked[0].symbol or "").split(".")[0] == diagnosis.verdict.culprit.function
    else:
        assert marked == []


@pytest.mark.parametrize(("kernel", "name"), lab.panics())
def test_the_report_reads_well(kernel: str, name: str) -> None:
    report = text.render(diagnosed(kernel, name))
    for word in ("None", "  .", "..", " ,", "( ", "()()", "0x0x", "Error"):
        assert word not in report.split("Evidence")[0], word


@pytest.mark.parametrize("name", lab.LIVE)
def test_a_running_kernel_did_not_crash(name: str) -> None:
    diagnosis = diagnosed("6.1", name)
    assert diagnosis.verdict.cause == "none"
    assert diagnosis.panic is None
    assert diagnosis.signature.id == ""
    jsonschema.Draft202012Validator(json_schema()).validate(json.loads(json.dumps(as_json(diagnosis))))


def test_the_signature_does_not_depend_on_the_kernel() -> None:
    pairs = lab.panics("null-workqueue")
    assert len(pairs) == len(lab.KERNELS)
    assert len({diagnosed(kernel, name).signature.id for kernel, name in pairs}) == 1


def test_the_signature_tells_the_faults_apart() -> None:
    ids = {name: diagnosed(kernel, name).signature.id for kernel, name in lab.panics() if kernel == "6.1"}
    assert ids.pop("troubled") == ids["sysrq"]      # an operator crashed both, whatever the machine suffered from
    assert ids.pop("rcu-stall") == ids["hard-lockup"]       # one endless loop, noticed by two watchdogs
    assert len(set(ids.values())) == len(ids)


def test_nothing_of_the_host_or_boot_is_in_the_signature() -> None:
    signature = diagnosed("6.1", "null-workqueue").signature
    for part in signature.parts:
        assert "0x" not in part
    assert signature.parts == ("v1", "null-dereference", "read", "flaky", "flaky_poll_channel")


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kdumpy", "report", *map(str, words)], capture_output=True, text=True,
                          check=False)


def test_the_command_prints_the_verdict() -> None:
    done = run(lab.dump("6.1", "null-workqueue").path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "NULL pointer dereference in flaky_poll_channel [flaky]"
    assert done.stderr == ""


def test_the_command_writes_a_private_file(tmp_path: Path) -> None:
    place = tmp_path / "report.json"
    place.write_text("old and long " * 10_000)
    place.chmod(0o644)
    done = run(lab.dump("6.1", "null-workqueue").path, "--json", "-o", place)
    assert (done.returncode, done.stdout) == (0, "")
    assert place.stat().st_mode & 0o777 == 0o600
    assert json.loads(place.read_text())["verdict"]["cause"] == "null-dereference"


@pytest.mark.parametrize(("kernel", "name"), lab.panics())
def test_the_command_beside_a_stack_shows_that_stack(kernel: str, name: str) -> None:
    console = Console(kernel_of(kernel, name))
    for item in diagnosed(kernel, name).verdict.evidence:
        words = shlex.split(item.command or "")
        if " ← " in item.detail and "-e" in words:
            shown = console(words[-1])
            # Of an object's history, who did it stands before the stack, which the kernel remembered: without the
            # functions that had jumped on, which the detail has first.
            first, second = (name.split(": ")[-1].split(" (")[0] for name in item.detail.split(" ← ")[:2])
            kept = words[-1].startswith("py ")
            assert any(re.search(rf"(\] |#0 +){re.escape(function)}(\.[\w.]+)?( at |\+0x)", shown)
                       for function in ((first, second) if kept else (first,))), f"{item}: {shown}"


def test_the_command_says_that_nothing_crashed() -> None:
    done = run(lab.dump("6.1", "live").path)
    assert done.returncode == 1
    assert "did not crash" in done.stdout


def test_a_dump_that_is_cut_short_is_told_by_its_log(tmp_path: Path) -> None:
    """The engine refuses it, the log can still be read, and the report says what it rests on."""
    whole = lab.dump("6.1", "null-workqueue").path.read_bytes()
    told = []
    # Where the log lies in physical memory, and so in the file, is chance (KASLR): mostly near the end.
    for part in (*range(100, 1000, 100), 950, 990, 998):
        place = tmp_path / "vmcore"
        place.write_bytes(whole[: len(whole) * part // 1000])
        done = run(place)
        assert "Traceback" not in done.stderr
        assert done.returncode in (0, 1, 3)
        if done.returncode == 0:
            assert "damaged" in done.stdout or "incomplete" in done.stdout
            told.append("null-dereference" in done.stdout)
    assert any(told)


def test_an_oops_that_was_survived_is_the_cause_and_the_end_is_told() -> None:
    """The log of an oops some time before the operator's crash: the first oops wins, the end stays in the evidence."""
    from kdumpy.diagnosis.crash import Crash
    from kdumpy.diagnosis.verdict import judge

    with kdumpy.open(lab.dump("6.1", "null-workqueue").path) as other:
        oops = [record for record in other.log if record.ts_ns > 0]
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as kernel:
        end = [record for record in kernel.log if "sysrq" in record.text.lower() or "panic" in record.text]
        crash = Crash(kernel.path, kernel, (*oops, *end))
        judgement = judge(crash)
        assert judgement is not None
        assert judgement.cause == "null-dereference"
        assert judgement.finding.culprit is not None
        assert judgement.finding.culprit.function == "flaky_poll_channel"
        assert crash.ended_later
        assert "sysrq" in crash.evidence.ending()[0].detail


@pytest.mark.parametrize(("kernel", "name"), lab.panics())
def test_a_silent_log_leaves_the_dump_to_speak(kernel: str, name: str) -> None:
    """The log may be overwritten or lost; registers, code and stacks still tell the cause."""
    from kdumpy.diagnosis.crash import Crash
    from kdumpy.diagnosis.model import Confidence
    from kdumpy.diagnosis.verdict import judge

    fault = FAULTS[name]
    with kdumpy.open(lab.dump(kernel, name).path) as opened:
        crash = Crash(opened.path, opened, ())
        judgement = judge(crash)
    assert judgement is not None
    assert judgement.cause == fault.cause
    assert [item for item in judgement.not_judged if "Error" in item.why or "Iteration" in item.why] == []
    assert "None" not in judgement.finding.explanation
    assert "kernel's own words" not in {item.what for item in judgement.finding.evidence}
    if crash.event and crash.event.inferred == "fault":
        assert judgement.finding.confidence != Confidence.CERTAIN


def test_the_command_explains_its_decisions() -> None:
    done = run(lab.dump("6.1", "null-workqueue").path, "--explain")
    assert done.returncode == 0
    assert "chosen: null-dereference, certain" in done.stdout
    assert "the nearest frame of a module" in done.stdout


def test_a_report_loads_none_of_drgns_commands() -> None:
    code = ("import sys\nfrom kdumpy.cli.main import main\nmain(['report', sys.argv[1]])\n"
            "print([name for name in sys.modules if name.startswith('drgn.commands._')], file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code, str(lab.bundled())], capture_output=True, text=True, check=False)
    assert "null-dereference" in done.stdout
    assert done.stderr == "[]\n"
