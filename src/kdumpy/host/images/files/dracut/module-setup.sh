#!/bin/bash
# The dracut module of kdumpy's capture image; only there while one is made.

check() {
    return 0
}

depends() {
    echo base udev-rules kernel-modules
}

install() {
    inst_hook cmdline 99 "$moddir/no-root.sh"
    inst_hook pre-mount 00 "$moddir/capture.sh"
    inst_hook emergency 00 "$moddir/capture.sh"
    @PYTHON@ -I -m kdumpy.host.images.takein @STAGE@ "$initdir" || {
        dfatal "kdumpy's files cannot be taken in"
        exit 1
    }
}
