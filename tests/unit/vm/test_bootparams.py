from __future__ import annotations

from kdumpy.vm import bootparams

UBUNTU = ("BOOT_IMAGE=/boot/vmlinuz-6.8.0-45-generic root=UUID=0d1f ro quiet splash crashkernel=2G-4G:320M,4G-:512M "
          "slub_debug=P hugepages=4096 vt.handoff=7 dyndbg=\"file drivers/usb/* +p\" init_on_free=1 rd.luks.uuid=x")


def test_the_crashing_kernel_keeps_what_is_not_of_the_machine() -> None:
    text, left = bootparams.crashed(UBUNTU, 256 << 20, "panic_on_oops=1")
    assert text == ("console=ttyS0 no_timer_check crashkernel=262144K panic=1 rdinit=/init slub_debug=P vt.handoff=7 "
                    "dyndbg=\"file drivers/usb/* +p\" init_on_free=1 panic_on_oops=1")
    assert "hugepages=4096" in left
    assert "quiet" in left
    assert text.count("crashkernel=") == 1


def test_the_capture_kernel_is_heard_and_keeps_the_rest() -> None:
    assert bootparams.capture("quiet console=tty0 console=ttyS1,115200 nr_cpus=1 irqpoll loglevel=3") == \
        "console=ttyS0 no_timer_check nr_cpus=1 irqpoll"
