"""Telling of a crash after the reboot: the message of the day, and whoever the settings name."""

from __future__ import annotations

import importlib
import json
import urllib.request
from collections.abc import Mapping

from kdumpy.errors import HostError
from kdumpy.host.system import System
from kdumpy.units import printable

MOTD = "/run/motd.d/kdumpy"
"""pam_motd shows it at each log-in until the next boot. Source: pam_motd(8), motd_dir=."""

_SECONDS = 20


def write_motd(system: System, lines: list[str]) -> None:
    """Show lines at each log-in until the next boot.

    Raises:
        HostError: the file cannot be written.
    """
    path = system.path(MOTD)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_text("".join(f"{printable(line)}\n" for line in lines))
        path.chmod(0o644)
    except OSError as error:
        raise HostError("cannot write the message of the day", where=MOTD, why=error.strerror or str(error)) from error


def notify(system: System, address: str, title: str, text: str, values: Mapping[str, object]) -> None:
    """Tell somebody of a crash.

    Args:
        system: the host, whose `sendmail` takes mail.
        address: `mailto:NAME`, `https://…` (gets `values` as JSON by POST), or one of apprise's.
        title: one line.
        text: the report.
        values: what programs get.

    Raises:
        HostError: it could not be told.
    """
    scheme = address.partition(":")[0]
    if scheme == "mailto":
        _mail(system, address.removeprefix("mailto:"), title, text)
    elif scheme in ("http", "https"):
        _post(address, values)
    else:
        _apprise(address, title, text)


def _mail(system: System, to: str, title: str, text: str) -> None:
    if not to or to.startswith("-") or any(letter.isspace() for letter in to):
        raise HostError("not an address for mail", where=f"mailto:{to}")
    subject = printable(title).encode("ascii", "replace").decode()
    letter = (f"To: {to}\nSubject: {subject}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
              f"Content-Transfer-Encoding: 8bit\nAuto-Submitted: auto-generated\n\n{text}\n")
    system.run(("sendmail", "-i", "--", to), stdin=letter, seconds=_SECONDS)


def _post(address: str, values: Mapping[str, object]) -> None:
    request = urllib.request.Request(address, json.dumps(values).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            answer.read(1)
    except (OSError, ValueError) as error:
        raise HostError("the server did not take it", where=address.partition("?")[0], why=str(error)) from error


def _apprise(address: str, title: str, text: str) -> None:
    try:
        library = importlib.import_module("apprise")
    except ImportError as error:
        raise HostError("this kind of address needs apprise", where=address.partition(":")[0],
                        mend="install it (pip install kdumpy[notify]), or name mailto: or https://") from error
    told = library.Apprise()
    if not told.add(address) or not told.notify(title=title, body=text):
        raise HostError("apprise could not tell", where=address.partition(":")[0])
