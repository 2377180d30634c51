#!/bin/sh
# Sourced at the end of dracut's cmdline hooks: there is no root, and none is wanted.
root=kdumpy
rootok=1
