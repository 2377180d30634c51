#!/bin/sh
# Sourced before dracut would mount a root, or where it gives up earlier: the crash is captured, nothing comes after.
exec /usr/lib/kdumpy/begin
