"""Man pages and the completion scripts of shells, made out of the commands' own parsers."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

from tools.packages.target import ROOT

COMPLETIONS = {"bash": "bash-completion/completions/kdumpy", "zsh": "zsh/site-functions/_kdumpy",
               "fish": "fish/vendor_completions.d/kdumpy.fish"}
"""Shell → where it looks, below /usr/share."""

TOML_HEAD = """\
.TH KDUMPY.TOML "5" "" "kdumpy" "kdumpy manual"
.ad l
.nh
.SH NAME
kdumpy.toml \\- what a host does when its kernel panics
.SH SYNOPSIS
/etc/kdumpy.toml
.SH DESCRIPTION
The one configuration of kdumpy, in TOML. \\fBkdumpy setup\\fR applies it, \\fBkdumpy status\\fR checks it. A key
that is left out has the value below; a key that is not below is an error.
.SH KEYS
.nf
"""


def manual(epoch: int) -> str:
    """Return kdumpy(1)."""
    command = [sys.executable, "-c", "import sys; from argparse_manpage.cli import main; sys.exit(main())",
               "--pyfile", str(ROOT / "tools/manpage.py"), "--function", "parser", "--project-name", "kdumpy",
               "--description", "why did this kernel panic?", "--manual-title", "kdumpy manual",
               "--author", "the kdumpy authors", "--url", "https://pypi.org/project/kdumpy", "--output", "-"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "COLUMNS": "100"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"packages: argparse-manpage: {done.stderr[-1000:]}")
    # The examples are lines: do not stretch or hyphenate them.
    return "".join(f"{line}\n.ad l\n.nh\n" if line.startswith(".TH") else f"{line}\n"
                   for line in done.stdout.splitlines())


def manual_of_settings() -> str:
    """Return kdumpy.toml(5)."""
    from kdumpy.host import settings

    lines = settings.render(settings.Settings()).splitlines()
    quoted = (line.replace("\\", "\\e").replace("-", "\\-") for line in lines)
    body = "".join(f"\\&{line}\n" for line in quoted)
    return f"{TOML_HEAD}{body}.fi\n.SH SEE ALSO\n.BR kdumpy (1)\n"


def completion(shell: str) -> str:
    """Return a shell's script."""
    command = [sys.executable, "-m", "kdumpy", "completion", shell]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        sys.exit(f"packages: completion: {done.stderr[-1000:]}")
    return done.stdout


def write(share: Path, epoch: int) -> None:
    """Write all below /usr/share of a tree."""
    for name, text in (("man/man1/kdumpy.1.gz", manual(epoch)), ("man/man5/kdumpy.toml.5.gz", manual_of_settings())):
        page = share / name
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_bytes(gzip.compress(text.encode(), mtime=0))
    for shell, name in COMPLETIONS.items():
        script = share / name
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(completion(shell))


def main() -> int:
    """Write the man pages, plain, into the directory that is named: `make man`."""
    from tools.packages.target import here

    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    (place / "kdumpy.1").write_text(manual(here().epoch))
    (place / "kdumpy.toml.5").write_text(manual_of_settings())
    return 0


if __name__ == "__main__":
    sys.exit(main())
