#!/bin/sh
# `make run`: the program with its defaults, first for accuracy, then for performance. CK's own
# account goes to a log; what the runs found is printed at the end.
set -eu

program=image-classification-tensorrt-loadgen-py
tmp=program/$program/tmp
log=.ck/log
mkdir -p "$log"

run() { # NAME FLAG...
    name=$1; shift
    printf '%s run (log: %s) ...\n' "$name" "$log/$name.txt" >&2
    if ! ck run "program:$program" --skip_print_timers "$@" >"$log/$name.txt" </dev/null; then
        printf 'error: the %s run failed; the end of %s:\n' "$name" "$log/$name.txt" >&2
        tail -n 20 "$log/$name.txt" >&2
        exit 1
    fi
    cp "$tmp/report.txt" "$log/$name-report.txt"
}

run accuracy
run performance --env.CK_LOADGEN_MODE=PerformanceOnly --env.CK_LOADGEN_DURATION=3
cat "$log/accuracy-report.txt" "$log/performance-report.txt"
cat <<'END'

Next, in a shell with this checkout's CK:  eval "$(make -s ck-env)" && ck run program:image-classification-tensorrt-loadgen-py --env.CK_LOADGEN_SCENARIO=Offline --env.CK_LOADGEN_MODE=PerformanceOnly
END
