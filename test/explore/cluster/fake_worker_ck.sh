#!/bin/sh
# Stands in for the `ck` of a Dask worker's machine: what $FAKE_CK_PY does, and `find` and `rm`.
# $FAKE_CK is the machine's folder, $FAKE_CHECKOUT is where it has the repository.
set -eu
case "$1 $2" in
"find repo:local") echo "$FAKE_CK/local" ;;
"find repo:ck-mlperf") echo "$FAKE_CHECKOUT" ;;
"rm local:experiment:"*)
    [ "$3" = --force ]
    rm -r "$FAKE_CK/local/experiment/${2#local:experiment:}"
    ;;
"benchmark "*)
    case "$*" in
    *" --tmp_dir=tmp-"*"${CUDA_VISIBLE_DEVICES:-all}") exec "$FAKE_PYTHON" "$FAKE_CK_PY" "$@" ;;
    esac
    echo "error: a benchmark without a folder of its own: $*" >&2
    exit 3
    ;;
*) exec "$FAKE_PYTHON" "$FAKE_CK_PY" "$@" ;;
esac
