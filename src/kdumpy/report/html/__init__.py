"""A diagnosis as one page that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import time
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from kdumpy import __version__
from kdumpy.diagnosis.details import Details
from kdumpy.diagnosis.model import Diagnosis
from kdumpy.errors import HostError

if TYPE_CHECKING:
    from jinja2 import Template

SCRIPTS = ("start.js", "data.js", "copy.js", "flame.js", "log.js", "tasks.js", "code.js")
"""In the order in which they run."""


def render(diagnosis: Diagnosis, details: Details, *, made: float | None = None) -> str:
    """Return the page. `made`: when, in seconds since 1970; now if not given.

    Raises:
        HostError: Jinja is not installed.
    """
    template = _template()
    from markupsafe import Markup

    from kdumpy.report.html import page
    from kdumpy.report.html.safe import data_block, digest
    from kdumpy.report.words import wait_words

    style, script = _asset("style.css"), "\n".join(map(_asset, SCRIPTS))
    day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time.time() if made is None else made))
    return template.render(
        page.context(diagnosis, details), style=Markup(style), script=Markup(script), made=day, version=__version__,
        policy=_policy(digest(style), digest(script)), data=data_block("data", page.data(diagnosis, details)),
        raw=data_block("diagnosis", page.raw(diagnosis)), task_words=page.task_words, wait_words=wait_words)


def _policy(style: str, script: str) -> str:
    """Return the content security policy: our own style and script, by their sums, and nothing else."""
    return (f"default-src 'none'; script-src {script}; style-src {style}; img-src data:; base-uri 'none'; "
            "form-action 'none'; require-trusted-types-for 'script'")


@cache
def _asset(name: str) -> str:
    return (files("kdumpy.report.html") / "assets" / name).read_text("utf-8").strip()


@cache
def _template() -> Template:
    try:
        import jinja2
    except ImportError:
        raise HostError("the HTML report needs Jinja", why="jinja2 is not installed",
                        mend="pip install 'kdumpy[analyze]'") from None
    from kdumpy.report.html.safe import shown
    from kdumpy.units import human_bytes, human_seconds

    environment = jinja2.Environment(autoescape=True, finalize=shown, undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(bytes=human_bytes, seconds=human_seconds)
    return environment.from_string(_asset("page.html.j2"))
