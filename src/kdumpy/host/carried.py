"""Files of this host that the capture image carries for its targets: keys, known hosts, certificates.

They are looked at when the image is built, so that a key that asks for a passphrase is not found out by a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from kdumpy.capture.config import CaptureConfig
from kdumpy.errors import HostError
from kdumpy.host.system import System

CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
              "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem")
"""Where distributions keep all the certificates that they trust, in one file: Debian and Arch, Fedora, SUSE, …"""

CA_INSIDE = "/etc/kdumpy-ca.pem"
"""Where the image keeps them."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What goes in."""

    config: CaptureConfig
    """With the files' names in the image."""
    files: Mapping[str, str]
    """Name in the image, without a leading slash → file of this host."""


def carried_for(system: System, config: CaptureConfig) -> Carried:
    """Return the files that a configuration's targets need.

    Raises:
        HostError: one is missing or will not work without somebody at the keyboard.
    """
    wanted = []
    if any(url.startswith("ssh:") for url in config.targets):
        _check_ssh(system, config)
        wanted += [config.ssh_key, config.ssh_known_hosts]
    if any(url.startswith("https:") for url in config.targets):
        config, bundle = _certificates(system, config)
        wanted += [bundle] if bundle == config.http_ca else []
        if config.http_token_file:
            wanted.append(config.http_token_file)
    else:
        bundle = ""
    if config.encrypt.startswith("gpg:"):
        wanted.append(config.encrypt.removeprefix("gpg:"))
    for path in wanted:
        if not system.exists(path):
            raise HostError("a file that the capture needs is missing", where=path,
                            mend="check the keys of [capture] in /etc/kdumpy.toml")
    files = {path.lstrip("/"): path for path in wanted}
    if bundle and bundle not in wanted:
        files[CA_INSIDE.lstrip("/")] = bundle
    return Carried(config, files)


def _certificates(system: System, config: CaptureConfig) -> tuple[CaptureConfig, str]:
    """Return the configuration with a file of certificates, and the host's file."""
    if config.http_ca:
        return config, config.http_ca
    bundle = next((path for path in CA_BUNDLES if system.exists(path)), None)
    if bundle is None:
        raise HostError("this host has no certificates to check an https server against", where=CA_BUNDLES[0],
                        mend="install ca-certificates, or name a file with http_ca")
    return replace(config, http_ca=CA_INSIDE), bundle


def _check_ssh(system: System, config: CaptureConfig) -> None:
    for path in (config.ssh_key, config.ssh_known_hosts):
        if not system.exists(path):
            raise HostError("a file that the capture needs is missing", where=path,
                            mend="check ssh_key and ssh_known_hosts in /etc/kdumpy.toml")
    if not system.live:
        return
    # Without a passphrase: nobody is there to type it.
    done = system.run(["ssh-keygen", "-y", "-P", "", "-f", config.ssh_key], check=False)
    if done.code:
        raise HostError("the ssh key cannot be used by a machine alone", where=config.ssh_key, why=done.told,
                        mend="make one without a passphrase: ssh-keygen -t ed25519 -N '' -f FILE")
    for url in config.targets:
        if not url.startswith("ssh:"):
            continue
        parts = urlsplit(url)
        name = f"[{parts.hostname}]:{parts.port}" if parts.port not in (None, 22) else str(parts.hostname)
        if system.run(["ssh-keygen", "-F", name, "-f", config.ssh_known_hosts], check=False).code:
            raise HostError("the server's key is not known", where=config.ssh_known_hosts, why=f"nothing for {name}",
                            mend=f"ssh-keyscan {name}, compare the key with the server's own, and add it")
