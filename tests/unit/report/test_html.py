"""The page without a browser: whole, small, harmless; its picture of who waits for whom."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import report_values
from kdumpy.diagnosis.details import Details
from kdumpy.diagnosis.details.code import whole_register
from kdumpy.diagnosis.details.model import Log
from kdumpy.diagnosis.model import Blocked, BlockedFacts, Diagnosis, MemoryFacts, TaskFacts, Wait
from kdumpy.report import bugreport, html
from kdumpy.report.html import page, safe, timeline, waits
from kdumpy.units import human_seconds

TAGS = {"html", "head", "meta", "title", "link", "style", "body", "a", "header", "p", "svg", "path", "div", "button",
        "nav", "ul", "li", "main", "section", "span", "h1", "h2", "h3", "small", "dl", "dt", "dd", "ol", "b", "i",
        "code", "table", "caption", "thead", "tbody", "tr", "th", "td", "strong", "figure", "figcaption", "desc",
        "defs", "marker", "g", "rect", "text", "circle", "details", "summary", "form", "label", "input", "select",
        "option", "pre", "footer", "script"}


class Reader(HTMLParser):
    """Collects what a browser would see of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._open.append(tag)
            self.inside.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inside[self._open[-1]][-1] += data


def rendered(diagnosis: Diagnosis | None = None, details: Details | None = None) -> str:
    return html.render(diagnosis or report_values.diagnosis(), details or report_values.details(), made=0)


def test_the_page_has_every_section_and_the_same_bytes_each_time() -> None:
    text = rendered()
    assert text == rendered()
    for name in ("verdict", "evidence", "trace", "code", "findings", "waits", "cpus", "stacks", "memory", "log",
                 "tasks", "modules", "facts", "report"):
        assert f'<section id="{name}"' in text, name
        assert f'href="#{name}"' in text, name


def test_what_is_not_known_has_no_section() -> None:
    made = replace(report_values.diagnosis(), blocked=Blocked(0, (), ()), cpus=(), trace=(), modules=(), log_tail=(),
                   memory=MemoryFacts(None, None, None, None, None, None), panic=None, findings=(), unchecked=())
    text = rendered(made, Details(missing={"tasks": "not in the dump"}))
    for name in ("trace", "code", "findings", "waits", "cpus", "stacks", "memory", "log", "tasks", "modules"):
        assert f'id="{name}"' not in text, name
        assert f'href="#{name}"' not in text, name


def test_the_policy_allows_our_style_and_script_by_their_sums_and_nothing_else() -> None:
    read = Reader(rendered())
    policy = next(str(found["content"]) for tag, found in read.tags
                  if tag == "meta" and found.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind, contents in (("script", read.inside["script"][-1]), ("style", read.inside["style"][0])):
        digest = base64.b64encode(hashlib.sha256(contents.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("words", report_values.HOSTILE)
def test_a_hostile_dump_adds_no_element_and_no_attribute(words: str) -> None:
    harmless = Reader(rendered())
    hostile = rendered(report_values.diagnosis(words), report_values.details(words))
    hostile.encode("utf-8")
    read = Reader(hostile)
    assert {tag for tag, _ in read.tags} <= TAGS
    assert sum(tag == "script" for tag, _ in read.tags) == sum(tag == "script" for tag, _ in harmless.tags) == 3
    for _, attributes in read.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert [found.get("href") for tag, found in read.tags if tag == "a"] == \
        [found.get("href") for tag, found in harmless.tags if tag == "a"]
    assert read.inside["script"][-1] == harmless.inside["script"][-1]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]", hostile)


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=60))
def test_any_text_makes_a_page_whose_data_can_be_read(words: str) -> None:
    read = Reader(rendered(report_values.diagnosis(words), report_values.details(words)))
    data, raw, _ = read.inside["script"]
    assert json.loads(data)["columns"][0] == "pid"
    assert json.loads(raw)["verdict"]["cause"] == "null-dereference"


def test_much_data_is_packed_and_little_is_readable() -> None:
    begin, end = '<script type="application/json" id="data">', "</script>"
    assert safe.data_block("data", {"a": "</script><b>&"}) == \
        begin + r'{"a":"\u003c/script\u003e\u003cb\u003e\u0026"}' + end
    much = safe.data_block("data", ["x" * safe.PLAIN_LIMIT])
    packed = re.fullmatch(r'<script type="application/gzip" id="data">([A-Za-z0-9+/=]+)</script>', much)
    assert packed is not None
    assert json.loads(gzip.decompress(base64.b64decode(packed[1]))) == ["x" * safe.PLAIN_LIMIT]


def test_characters_that_a_browser_obeys_are_shown() -> None:
    assert safe.visible("a\x1b\x00\u202eb\ud800\U000e0041") == "a\\x1b\\x00\\u202eb\\ud800\\U000e0041"
    assert safe.visible("Grüße, 日本語, tab\tline\n") == "Grüße, 日本語, tab\tline\n"
    assert safe.visible("e" + "\u0301" * 40) == "e\u0301\u0301"


def test_a_page_of_3000_tasks_is_small() -> None:
    text = rendered(report_values.diagnosis(cpus=256), report_values.details(tasks=3000, lines=8000, stacks=400))
    assert len(text.encode()) < 700_000


def test_both_dark_palettes_are_the_same() -> None:
    style = html._asset("style.css")
    dark = style.split("/* dark begins")[1].split("/* dark ends")[0]
    blocks = re.findall(r"\{\n((?:  --?[^{}]*\n|  color-scheme[^\n]*\n)+)\}", dark)
    assert len(blocks) == 2
    assert blocks[0] == blocks[1]


def _luminance(colour: str) -> float:
    parts = [int(colour[place:place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_as_wcag_wants(dark: bool) -> None:
    light, rest = html._asset("style.css").split("/* dark begins")
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light if not dark else rest.split("}")[0]))
    pairs = [(ink, ground) for ink in ("ink", "soft", "bad", "accent") for ground in ("card", "bg", "sunk")]
    pairs += [("bad", "bad-bg"), ("ink", "bad-bg"), ("soft", "bad-bg"), ("warn", "warn-bg"), ("ink", "warn-bg"),
              ("good", "sunk"), ("warn", "sunk"), ("warn", "card"),
              ("module", "module-bg"), ("mark-ink", "mark"), ("accent-ink", "accent")]
    pairs += [("f-ink", name) for name in colours if re.fullmatch(r"f\d|f-(module|culprit|group)", name)]
    for ink, ground in pairs:
        bright, dim = sorted((_luminance(colours[ink]), _luminance(colours[ground])), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, (ink, ground)


def _waits(*pairs: tuple[int, int, int | None]) -> tuple[BlockedFacts, ...]:
    return tuple(BlockedFacts(TaskFacts(pid, f"t{pid}", pid), 1.0, Wait(
        f"lock {lock:#x}", lock, "mutex", TaskFacts(owner, f"t{owner}", owner) if owner else None), ())
        for pid, lock, owner in pairs)


def test_a_circle_is_drawn_as_a_ring_and_nothing_overlaps() -> None:
    tasks = _waits((1, 0x10, 2), (2, 0x20, 3), (3, 0x30, 1), (4, 0x10, 2), (5, 0x40, 4), (6, 0x50, 9), (7, 0x60, None))
    graph = waits.draw(Blocked(7, tasks, ((1, 2, 3),)))
    assert graph is not None
    assert {box.key for box in graph.boxes if box.circle} == {"task 1", "task 2", "task 3", "lock 16", "lock 32",
                                                            "lock 48"}
    assert sum(arrow.circle for arrow in graph.arrows) == 6
    assert {box.key: box.kind for box in graph.boxes}["task 9"] == "holder"
    for number, one in enumerate(graph.boxes):
        assert 0 <= one.x <= graph.width - one.width
        assert 0 <= one.y <= graph.height - one.height
        for other in graph.boxes[:number]:
            assert abs(one.x - other.x) >= one.width or abs(one.y - other.y) >= one.height, (one, other)
    assert "t1 (pid 1) waits for the mutex lock 0x10, held by t2 (pid 2)" in graph.words


def test_many_waiters_are_cut_and_counted() -> None:
    tasks = _waits(*((pid, 0x10, 99) for pid in range(1, 60)))
    graph = waits.draw(Blocked(59, tasks, ()))
    assert graph is not None
    assert graph.left_out == 59 - waits.MOST_TASKS
    assert len(graph.boxes) == waits.MOST_TASKS + 2
    assert waits.draw(Blocked(0, (), ())) is None


def test_the_timeline_covers_every_line_and_marks_the_crash() -> None:
    log = report_values.details(lines=1000).log
    made = timeline.draw(log)
    assert made is not None
    assert made.columns[0].line == 0
    assert made.columns[-1].x + made.columns[-1].width <= timeline.WIDTH + 1
    marked = [column.line for column in made.columns if column.kind == "cause"]
    assert marked == [column.line for column in made.columns][-len(marked):]
    assert marked[0] <= 960 < marked[1]
    assert human_seconds(log.lines[960].seconds or 0) in [words for _, words in made.labels], "when it crashed"
    assert all(later - earlier >= 80 for (earlier, _), (later, _) in pairwise(made.labels))
    assert timeline.draw(Log()) is None


def test_cpus_are_said_as_ranges() -> None:
    assert page.ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
    assert page.ranges([]) == ""


def test_parts_of_registers_belong_to_the_whole() -> None:
    assert [whole_register(name) for name in ("eax", "al", "r8d", "r11", "rdi", "sil", "x3", "w3")] == \
        ["rax", "rax", "r8", "r11", "rdi", "rsi", "x3", "x3"]


def test_a_bug_report_tells_nothing_of_the_host() -> None:
    made = report_values.diagnosis()
    made = replace(made, system=replace(made.system, hostname="secret-host", cmdline="secret-cmdline"),
                   dump=replace(made.dump, path="/secret-path/vmcore"))
    text = bugreport.render(made)
    assert "flaky_poll_channel() in module flaky" in text
    assert "v1-3be285949717" in text
    assert "> flaky_poll_channel+0xf [flaky]" in text
    assert "secret" not in text
