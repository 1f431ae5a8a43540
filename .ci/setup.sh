#!/bin/sh
# Makes the virtual environment and registers this repository with CK. Called by the Makefile.
set -eu

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 2; }
# Python compiles what is imported: all of it, by pip, would be half of an installation's time.
pip_install() { .venv/bin/python -m pip --disable-pip-version-check -q install --no-compile "$@"; }
# Versions and hashes from locks/ (tools/lock.py); `ck pull` installs requirements.txt. A lock is
# complete, so pip need not resolve it; images and `make test-all` let it, which checks that.
pip_install_lock() { pip_install --no-deps --require-hashes "$@"; }

install() {
    case $PWD in *[!A-Za-z0-9_./+,@=-]*)
        die "the path of this checkout, '$PWD', has a character that CK's scripts cannot carry (a space, say); move the checkout to a plain path" ;;
    esac
    "$PYTHON" - <<'END' || exit 2
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit("error: %s is Python %s; 3.10 to 3.13 are supported: make PYTHON=python3.12 ..." % (sys.executable, sys.version.split()[0]))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("error: Python's venv module is missing; on Debian or Ubuntu: sudo apt-get install python3-venv")
END
    begin
    [ -e .ck/installed ] || rm -rf .venv # what an interrupted installation left: pip cannot repair it
    wanted=$("$PYTHON" -c 'import sys; print(sys.version.split()[0])')
    if [ "$(.venv/bin/python -c 'import sys; print(sys.version.split()[0])' 2>/dev/null)" != "$wanted" ]; then
        say "Making a virtual environment with Python $wanted in .venv ..."
        # What CK installed was for the Python before; experiments stay.
        rm -rf .ck/installed .venv .ck/repos/local/env .ck/tools
        "$PYTHON" -m venv .venv
    elif is_newer .ck/installed locks/run.txt locks/ck.txt pyproject.toml .ci/setup.sh; then
        return
    fi
    rm -f .ck/installed
    say "Installing CK, LoadGen and ONNX Runtime into .venv ..."
    pip_install_lock -r locks/run.txt
    pip_install_lock --no-build-isolation -r locks/ck.txt
    pip_install --no-build-isolation --no-deps -e .
    touch .ck/installed
}

# .ck/installed is there only while .venv is complete. One process at a time works on both: another
# waits, and finds the work done.
begin() {
    mkdir -p .ck
    exec 9>.ck/setup.lock
    flock -n 9 || { say "Waiting for another make in this checkout ..."; flock 9; }
}

is_newer() { # FILE OTHER ...
    newer=$1; shift
    for file in "$@"; do [ "$newer" -nt "$file" ] || return 1; done
}

install_test() {
    begin
    if is_newer .ck/test-installed .ck/installed locks/test.txt locks/stubs.txt; then return; fi
    mv .ck/installed .ck/installing
    pip_install_lock --no-build-isolation -r locks/test.txt -r locks/stubs.txt
    .venv/bin/python tools/tensorrt_stubs.py
    mv .ck/installing .ck/installed
    touch .ck/test-installed
}

register() {
    begin
    mkdir -p "$CK_REPOS" "$CK_TOOLS"
    ln -sfn "$PWD" "$CK_REPOS/ck-mlperf"
    quietly ck set kernel --var.check_missing_modules=no --var.skip_repo_requirements=yes
    ck find repo:ck-mlperf >/dev/null 2>&1 || quietly ck import repo --path="$CK_REPOS/ck-mlperf" --quiet
    touch .ck/registered
}

quietly() { # CK says what went wrong on stdout, among much else
    out=$("$@" 2>&1 </dev/null) || { say "$out"; die "'$*' failed"; }
}

case ${1:-run} in
    run) # what `make run` does, for who has no make
        CK_REPOS=$PWD/.ck/repos CK_TOOLS=$PWD/.ck/tools PATH=$PWD/.venv/bin:$PATH
        PYTHON=${PYTHON:-python3}
        export CK_REPOS CK_TOOLS PATH PYTHON
        install; register; sh .ci/first-run.sh ;;
    install) install ;;
    install-test) install_test ;;
    install-browser) # as root: what the tests marked `browser` need, which are skipped without
        if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then exit 0; fi
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium chromium-driver ;;
    register) register ;;
esac
