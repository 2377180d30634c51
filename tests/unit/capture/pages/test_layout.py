"""struct page from VMCOREINFO: what is needed, what is optional, what does not fit."""

from __future__ import annotations

import re

import pytest

from kdumpy.capture.pages.layout import PageLayout, TypeMark
from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo
from kdumpy.errors import NotInDump
from struct_pages import STYLES, Style


@pytest.fixture(params=STYLES, ids=lambda style: style.name)
def style(request: pytest.FixtureRequest) -> Style:
    chosen: Style = request.param
    return chosen


def with_line(style: Style, key: str, value: str | None) -> VmcoreInfo:
    """Return the kernel's VMCOREINFO with one line changed, or without it."""
    pattern = rf"^{re.escape(key)}=.*\n"
    assert re.search(pattern, style.text, re.M)
    return VmcoreInfo(re.sub(pattern, f"{key}={value}\n" if value else "", style.text, flags=re.M).encode())


@pytest.mark.parametrize("key", ["SIZE(page)", "OFFSET(page.flags)", "OFFSET(page.mapping)", "OFFSET(page._mapcount)",
                                 "OFFSET(page.private)", "NUMBER(PG_lru)", "NUMBER(PG_private)", "NUMBER(PG_swapcache)",
                                 "NUMBER(PG_swapbacked)", "NUMBER(PG_head_mask)", "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)"])
def test_what_is_needed_is_missed(style: Style, key: str) -> None:
    with pytest.raises(NotInDump):
        PageLayout.of(with_line(style, key, None))


@pytest.mark.parametrize(("key", "value"), [("SIZE(page)", "60"), ("SIZE(page)", "16"), ("SIZE(page)", "1048576"),
                                            ("OFFSET(page.flags)", "60"), ("OFFSET(page.mapping)", "-8"),
                                            ("OFFSET(page._mapcount)", "62"), ("OFFSET(page.private)", "44"),
                                            ("NUMBER(PG_lru)", "70"), ("NUMBER(PG_head_mask)", "0")])
def test_what_does_not_fit_is_refused(style: Style, key: str, value: str) -> None:
    with pytest.raises(NotInDump):
        PageLayout.of(with_line(style, key, value))


def test_a_kernel_without_memory_failure_or_balloons_is_understood(style: Style) -> None:
    assert PageLayout.of(with_line(style, "NUMBER(PG_hwpoison)", None)).hwpoison == 0
    assert PageLayout.of(with_line(style, "NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)", None)).offline is None


def test_a_type_is_a_byte_only_where_the_other_bits_are_the_owners() -> None:
    old, new = PageLayout.of(STYLES[0].info), PageLayout.of(STYLES[-1].info)
    assert old.buddy == TypeMark(0xffffff7f, 0xffffffff)
    assert new.buddy == TypeMark(0xf0000000, 0xff000000)
