"""The report in a real browser: it finds, sorts and filters, is quick, asks for nothing, and obeys no dump."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install 'kdumpy[dev]'")
from playwright.sync_api import Page, expect

import lab
import report_values
from kdumpy.diagnosis.model import Blocked, BlockedFacts, TaskFacts, Wait
from kdumpy.report import html
from web.conftest import Open

ROOT = Path(__file__).parents[2]
PALE = "rgb(244, 245, 248)"
DARK = "rgb(13, 16, 22)"


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def says(page: Page, place: str, words: str) -> None:
    """Wait until a place of the page says this."""
    expect(page.locator(place)).to_have_text(words)


def test_a_report_of_a_real_dump_is_quiet_and_whole(open_report: Open, tmp_path: Path) -> None:
    file = tmp_path / "real.html"
    done = subprocess.run([sys.executable, "-m", "kdumpy", "report", lab.bundled(), "--html", file], check=False,
                          capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])})
    assert done.returncode == 0, done.stderr
    assert str(file) in done.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_size < 1_000_000
    opened = open_report(text=file.read_text("utf-8"))
    assert opened.complaints == []
    assert opened.requests == []
    assert "flaky_poll_channel" in opened.page.inner_text("h1")
    assert "flaky_poll_channel" in opened.page.inner_text("#trace .culprit")
    assert opened.page.locator("#code .marked").count() >= 1
    assert opened.page.locator("#flame-view .node").count() > 20
    assert opened.page.locator("#log-view .cause").count() > 5
    assert opened.page.locator("#task-table tbody tr").count() > 30


def test_the_log_is_searched_and_filtered(open_report: Open) -> None:
    opened = open_report(report_values.diagnosis(), report_values.details())
    page = opened.page
    assert page.locator("#log-view .line").count() == 300
    assert page.inner_text("#log-status") == "300 lines"
    page.fill("#log-search", "line 12 ")
    says(page, "#log-status", "1 of 1 line")
    assert page.locator("#log-view mark").all_text_contents() == ["line 12 "]
    page.fill("#log-search", "/line 2[0-9] /")
    says(page, "#log-status", "1 of 10 lines")
    page.press("#log-search", "Enter")
    assert page.inner_text("#log-status") == "2 of 10 lines"
    page.fill("#log-search", "/(/")
    says(page, "#log-status", "The expression is not complete.")
    page.fill("#log-search", "nowhere")
    says(page, "#log-status", "Nothing found")
    page.fill("#log-search", "")
    page.select_option("#log-level", "events")
    assert page.inner_text("#log-status") == "50 lines"
    page.click("#log-crash")
    assert "line 260 of a driver" in str(page.text_content("#log-view .current"))
    assert page.locator("#log-view .cause.head").count() == 1
    assert opened.complaints == []


def test_tasks_are_sorted_searched_and_filtered(open_report: Open) -> None:
    opened = open_report(report_values.diagnosis(), report_values.details(tasks=250))
    page = opened.page

    def column(number: int) -> list[str]:
        return [str(text) for text in page.locator(f"#task-table tbody tr td:nth-child({number})").all_inner_texts()]

    assert column(1)[0] == "30", "what panicked stands first"
    assert page.inner_text("#task-status") == "100 of 250 tasks"
    page.click("#task-more")
    assert page.locator("#task-table tbody tr").count() == 250
    page.click("#task-table th:nth-child(1) button")
    assert column(1) == [str(number) for number in range(1, 251)]
    assert page.get_attribute("#task-table th:nth-child(1)", "aria-sort") == "ascending"
    page.click("#task-table th:nth-child(1) button")
    assert column(1)[0] == "250"
    page.click("#task-table th:nth-child(5) button")
    assert column(5)[0] == "996.0 KiB"
    assert column(5)[-1] == "", "what is unknown comes last"
    page.select_option("#task-state", "D")
    assert set(column(3)) == {"D"}
    page.select_option("#task-state", "")
    page.select_option("#task-kind", "cpu")
    assert column(1) == ["30"]
    page.select_option("#task-kind", "")
    page.fill("#task-search", "serve_17")
    says(page, "#task-status", "6 tasks (250 in all)")
    page.locator("#task-table .open").first.click()
    assert "ret_from_fork" in page.inner_text("#task-table .unfolded")
    page.locator("#task-table .open").first.click()
    assert page.locator("#task-table .unfolded").count() == 0
    assert opened.complaints == []


def test_the_flame_graph_is_searched_grouped_and_entered(open_report: Open) -> None:
    opened = open_report(report_values.diagnosis(), report_values.details(tasks=200))
    page = opened.page
    whole = page.locator("#flame-view .node").count()
    assert whole > 40
    assert page.inner_text("#flame-status") == "200 tasks, 40 different stacks."
    page.fill("#flame-search", "serve_17")
    expect(page.locator("#flame-view .hit")).to_have_count(1)
    assert "5 tasks in a call that matches" in page.inner_text("#flame-status")
    page.locator("#flame-view .hit").click()
    assert page.inner_text("#flame-status").startswith("serve_17: 5 tasks of 200 (2.5 %)")
    assert page.locator("#flame-view .node").count() < whole
    page.click("#flame-tasks button")
    assert page.inner_text("#task-status").startswith("In serve_17: 5 tasks")
    page.locator("#flame-view .node[tabindex='0']").press("Escape")
    page.fill("#flame-search", "")
    expect(page.locator("#flame-view .hit")).to_have_count(0)
    page.select_option("#flame-group", "state")
    assert page.locator("#flame-view .f-group").count() >= 4
    page.select_option("#flame-state", "D")
    assert page.inner_text("#flame-status").startswith("4 tasks")
    assert opened.complaints == []


def test_the_flame_graph_is_walked_with_the_keyboard(open_report: Open) -> None:
    page = open_report(report_values.diagnosis(), report_values.details()).page
    page.focus("#flame-view .node[tabindex='0']")

    def label() -> str:
        return str(page.evaluate("document.activeElement.getAttribute('aria-label')"))

    assert label() == "all tasks, 60 tasks"
    page.keyboard.press("ArrowDown")
    assert label() == "ret_from_fork, 60 tasks"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    first = label()
    page.keyboard.press("ArrowRight")
    assert label() != first
    page.keyboard.press("ArrowLeft")
    assert label() == first
    page.keyboard.press("Enter")
    assert label() == first
    assert page.inner_text("#flame-status").startswith(first.split(",")[0])
    page.keyboard.press("Escape")
    assert label() == "all tasks, 60 tasks"


def test_colours_follow_the_system_and_the_switch(open_report: Open) -> None:
    made = report_values.diagnosis(), report_values.details()
    assert background(open_report(*made, color_scheme="light").page) == PALE
    opened = open_report(*made, color_scheme="dark")
    page = opened.page
    assert background(page) == DARK
    page.click("[data-theme-choice=light]")
    assert background(page) == PALE
    assert page.get_attribute("[data-theme-choice=light]", "aria-pressed") == "true"
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-state", "ready")
    assert background(page) == PALE, "the choice is kept"
    page.click("[data-theme-choice=auto]")
    assert background(page) == DARK
    page.emulate_media(media="print")
    assert background(page) == "rgb(255, 255, 255)"
    assert not page.is_visible("nav")
    assert page.is_visible("h1")


def test_text_is_copied(open_report: Open) -> None:
    opened = open_report(report_values.diagnosis(), report_values.details(),
                         permissions=["clipboard-read", "clipboard-write"])
    page = opened.page
    page.click("#copy-report")
    says(page, "#announce", "Copied")
    text = page.evaluate("navigator.clipboard.readText()")
    assert text.startswith("NULL pointer dereference in flaky_poll_channel")
    assert "Signature: v1-3be285949717" in text
    page.click("#copy-json")
    says(page, "#copy-json", "Copied")
    assert json.loads(page.evaluate("navigator.clipboard.readText()"))["schema"] == 1
    page.locator("#evidence .copy").first.click()
    expect(page.locator("#evidence .copy").first).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "kdumpy log $VMCORE"


def test_a_register_lights_up_wherever_it_stands(open_report: Open) -> None:
    page = open_report(report_values.diagnosis(), report_values.details()).page
    page.hover("#code .marked [data-register=rax]")
    assert page.locator("#code .lit").count() >= 3
    assert page.locator("#code li.lit b").inner_text() == "rax"


@pytest.mark.parametrize("words", [
    pytest.param(" ".join(report_values.HOSTILE[:5]), id="markup"),
    pytest.param(" ".join(report_values.HOSTILE[5:10]), id="templates and comments"),
    pytest.param(" ".join(report_values.HOSTILE[10:14]), id="characters"),
    pytest.param(report_values.HOSTILE[14], id="length")])
def test_a_hostile_dump_runs_nothing_and_breaks_nothing(open_report: Open, words: str) -> None:
    opened = open_report(report_values.diagnosis(words), report_values.details(words))
    page = opened.page
    assert page.evaluate("window.owned === undefined")
    assert opened.complaints == []
    assert opened.requests == []
    assert page.title().endswith("– kdumpy")
    assert page.locator("main > section").count() >= 13
    assert page.locator("iframe, img, object, embed, main script").count() == 0
    page.fill("#task-search", "worker")
    page.fill("#log-search", words[:40].replace("\n", " "))
    page.wait_for_timeout(200)
    page.select_option("#flame-group", "comm")
    page.locator("#task-table .open").first.click()
    for details in page.locator("details summary").all():
        details.click()
    assert page.evaluate("window.owned === undefined")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing runs out of the page"
    assert opened.complaints == []
    assert opened.requests == []


def test_the_policy_stops_what_autoescape_would_have_let_through(open_report: Open) -> None:
    """The second wall holds alone: markup put into the page by force neither runs nor loads anything."""
    text = html.render(report_values.diagnosis(), report_values.details())
    text = text.replace("<h1", "<script>window.owned=1</script><img src=x onerror=window.owned=2>"
                               "<img src='https://example.com/leak'><h1", 1)
    opened = open_report(text=text)
    opened.page.wait_for_timeout(200)
    assert opened.page.evaluate("window.owned === undefined")
    assert opened.requests == [] or all("blocked" in words for words in opened.complaints)
    assert sum("Content Security Policy" in words for words in opened.complaints) >= 3


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_runs_out_of_the_page_at_any_width(open_report: Open, width: int) -> None:
    page = open_report(report_values.diagnosis(), report_values.details(), width=width).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def chain(locks: int) -> Blocked:
    """Tasks that wait in a row: each for the lock of the next one."""
    task = [TaskFacts(100 + number, f"waiter_{number}", 0) for number in range(locks + 1)]
    return Blocked(locks, tuple(
        BlockedFacts(task[number], 60.0, Wait(f"lock_{number}", 0x1000 + number, "mutex", task[number + 1]), ())
        for number in range(locks)), ())


@pytest.mark.parametrize("locks", [2, 3])
def test_the_wait_graph_is_whole_on_paper_and_on_a_screen(open_report: Open, locks: int) -> None:
    found = replace(report_values.diagnosis(), blocked=chain(locks))
    page = open_report(found, report_values.details()).page
    inside = """() => {
        const place = document.querySelector(".graph").closest(".scroll").getBoundingClientRect();
        return [...document.querySelectorAll(".graph rect")].map(box => box.getBoundingClientRect())
            .every(box => box.width > 0 && box.left >= place.left && box.right <= place.right + 1);
    }"""
    if locks == 2:      # four boxes in a row and one more
        assert page.evaluate(inside)
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})      # A4 without its margins
    assert page.evaluate(inside)


def test_without_javascript_the_report_can_be_read(open_report: Open) -> None:
    page = open_report(report_values.diagnosis(), report_values.details(), java_script_enabled=False, wait=False).page
    for words in ("NULL pointer dereference", "Update it", "process_one_work", "(%rax), ", "The same as a list",
                  "These are the lines around the crash"):
        assert page.get_by_text(words).first.is_visible(), words
    assert page.locator("button:visible, input:visible, select:visible").count() == 0


def test_the_page_can_be_read_by_those_who_do_not_see_it(open_report: Open) -> None:
    page = open_report(report_values.diagnosis(), report_values.details()).page
    for landmark in ("header", "nav", "main", "footer"):
        assert page.locator(landmark).count() == 1
    assert page.locator("h1").count() == 1
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(item => Number(item.tagName[1]))")
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    nameless = page.evaluate("""[...document.querySelectorAll('button, input, select, svg[role=img], [role=region]')]
        .filter(item => !(item.getAttribute('aria-label') || item.getAttribute('aria-labelledby')
                          || item.textContent.trim() || item.closest('label'))).length""")
    assert nameless == 0
    assert page.evaluate("new Set([...document.querySelectorAll('[id]')].map(item => item.id)).size"
                         " === document.querySelectorAll('[id]').length")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(open_report: Open, scheme: str) -> None:
    """WCAG 2, AA: 4.5 to 1, and 3 to 1 for large text."""
    page = open_report(report_values.diagnosis(), report_values.details(), color_scheme=scheme).page
    pale, looked_at = page.evaluate("""() => {
        let checked = 0;
        const parse = text => { const parts = text.match(/[\\d.]+/g).map(Number);
                                return parts.length > 3 ? parts : [...parts, 1]; };
        const over = (top, below) => [0, 1, 2].map(n => top[n] * top[3] + below[n] * (1 - top[3]));
        const light = rgb => { const [r, g, b] = rgb.map(v => { v /= 255;
            return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const ground = element => element ? over(parse(getComputedStyle(element).backgroundColor),
                                                 ground(element.parentElement)) : [255, 255, 255];
        const found = [];
        for (const element of document.querySelectorAll('main *, header *, nav *')) {
            const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
            const style = getComputedStyle(element);
            if (!own || !element.checkVisibility() || element.closest('svg, option, :disabled')) continue;
            checked += 1;
            const below = ground(element), text = over(parse(style.color), below);
            const [one, other] = [light(text), light(below)].sort((a, b) => b - a);
            const ratio = (one + 0.05) / (other + 0.05), size = parseFloat(style.fontSize);
            const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
            if (ratio < (large ? 3 : 4.5)) found.push(`${element.tagName}.${element.className} ${ratio.toFixed(2)}: `
                                                      + element.textContent.trim().slice(0, 30));
        }
        return [[...new Set(found)], checked];
    }""")
    assert pale == []
    assert looked_at > 500


def test_3000_tasks_load_in_two_seconds(open_report: Open) -> None:
    text = html.render(report_values.diagnosis(cpus=256),
                       report_values.details(tasks=3000, lines=8000, stacks=400))
    assert len(text.encode()) < 1_000_000
    opened = open_report(text=text)
    took = opened.page.evaluate("performance.now()")
    assert took < 2000
    assert opened.complaints == []
    assert opened.page.inner_text("#task-status") == "100 of 3,000 tasks"
    search = opened.page.evaluate("""async () => {
        const begin = performance.now(), input = document.querySelector('#task-search');
        input.value = 'serve_17';
        input.dispatchEvent(new Event('input'));
        const status = document.querySelector('#task-status');
        while (!status.textContent.includes(' in all')) await new Promise(requestAnimationFrame);
        return performance.now() - begin;
    }""")
    assert search < 1000
    print(f"\n3,000 tasks: {len(text.encode()):,} bytes, ready after {took:.0f} ms, searched in {search:.0f} ms")
