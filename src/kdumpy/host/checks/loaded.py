"""Whether a capture kernel is loaded, and whether it is the one that would be loaded now."""

from __future__ import annotations

from kdumpy.errors import HostError
from kdumpy.host import history, loading, peers
from kdumpy.host.checks.base import Answer, Facts, bad, ok, warn
from kdumpy.units import human_time

ESSENTIAL = True


def look(facts: Facts) -> Answer:
    """Ask the kernel whether, and our own record what."""
    if not facts.state.loaded:
        return _absent(facts)
    there = facts.loaded
    if there is None:
        others = " and ".join(peer.name for peer in peers.find(facts.system) if peer.active is not False)
        return warn(f"a capture kernel is loaded, and not by kdumpy{f': {others} is active here' if others else ''}",
                    "`kdumpy load` puts ours in its place" if not others else "`kdumpy setup --replace` takes over")
    when = human_time(int(there.at))
    change = loading.changed(facts.system, facts.settings, facts.release, there)
    if change:
        return warn(f"what is loaded since {when} is not what would be loaded now: {change}", "run `kdumpy load`",
                    loaded_at=there.at, release=there.release)
    if there.complaint:
        return warn(f"{there.release} is loaded since {when} by {there.call}, which said: {there.complaint}",
                    "`kdumpy test` shows whether it works; a kernel with CONFIG_KEXEC_FILE needs no kexec-tools",
                    loaded_at=there.at, release=there.release, call=there.call)
    return ok(f"{there.release}, since {when}, by {there.call}", loaded_at=there.at, release=there.release,
              call=there.call)


def _absent(facts: Facts) -> Answer:
    reason = "no capture kernel is loaded"
    if facts.state.disabled:
        return bad(f"{reason}, and kernel.kexec_load_disabled forbids it until a reboot",
                   "take it out of the sysctl files where it is set, or set it after kdumpy.service, and reboot")
    if not facts.state.reserved:
        return bad(f"{reason}: there is no reserved memory for it", "run `kdumpy setup`, then reboot")
    try:
        last = history.last_of_boot(facts.system, history.boot_id(facts.system))
    except HostError:       # for root's eyes only; that nothing is loaded everybody sees
        last = None
    if last is not None and last.event == "failed":
        return bad(f"{reason}: {last.why}", last.mend or "run `kdumpy load` when that is mended")
    if last is not None and last.event == "unloaded":
        return bad(f"{reason}: it was unloaded at {human_time(int(last.at))}", "run `kdumpy load`")
    return bad(reason, "run `kdumpy load`; it says why where it cannot")
