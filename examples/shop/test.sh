#!/bin/sh
# Tests the whole shop. Needs python3 and node, nothing else.
exec python3 -B "$(dirname "$0")/tests/whole_shop.py" "$@"
