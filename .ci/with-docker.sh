#!/bin/sh
# Runs a command in a place where `docker` works: sh .ci/with-docker.sh COMMAND ...
#
# Docker itself, where it is there. Else, for root on Debian, podman under Docker's name, with its
# images in .ck, installed where it is missing; and a base image made from Debian's packages, so that
# no registry of images is needed. The command finds in its environment:
#   BASE_IMAGE         that base; not set where Docker itself can get what the Dockerfiles name
#   DOCKER_RUN_FLAGS   what makes `docker run --user=UID` as it is with Docker
set -eu

say() { printf '%s\n' "$*" >&2; }
work=$PWD/.ck/containers

check_system() {
    . /etc/os-release
    if [ "$(id -u)" != 0 ] || [ "$ID" != debian ]; then
        say "error: Docker does not work here (docker info), and podman takes its place only for root" \
            "on Debian: this is $(id -un) on ${PRETTY_NAME:-an unknown system}"
        exit 2
    fi
}

quietly() { # NAME COMMAND ...: what it prints goes to a log
    log=$work/$1.log; shift
    "$@" >"$log" 2>&1 || { tail -n 20 "$log" >&2; say "error: $1 failed; all of it is in $log"; exit 2; }
}

install_podman() {
    for program in podman runc mmdebstrap; do
        command -v $program >/dev/null && continue
        say "Installing podman, runc and mmdebstrap ..."
        quietly apt-update apt-get -q update
        quietly apt-install env DEBIAN_FRONTEND=noninteractive \
            apt-get -q install -y --no-install-recommends podman runc mmdebstrap
        return
    done
}

configure_podman() {
    # podman takes no longer path than 50 characters for what is of this boot only.
    run=/tmp/ck-mlperf-$(printf %s "$work" | cksum | cut -d' ' -f1)
    mkdir -p "$work/bin" "$work/tmp" "$run"
    limit=$(ulimit -Hn) # podman's own is higher, which a machine may refuse
    cat >"$work/containers.conf" <<END
[containers]
default_ulimits = ["nofile=$limit:$limit", "nproc=32768:32768"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "$run/tmp"
END
    cat >"$work/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$work/storage"
runroot = "$run"
[storage.options.overlay]
skip_mount_home = "true" # else a mount stays, and rm -r of the checkout fails
END
    printf '#!/bin/sh\nexec podman "$@"\n' >"$work/bin/docker"
    chmod +x "$work/bin/docker"
    # TMPDIR: where layers are packed, and where `RUN --mount=type=cache` keeps pip's downloads.
    export TMPDIR="$work/tmp" PATH="$work/bin:$PATH" \
        CONTAINERS_CONF="$work/containers.conf" CONTAINERS_STORAGE_CONF="$work/storage.conf"
}

list_sources() {
    apt-get indextargets --format 'deb $(SITE) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' 'Origin: Debian' | sort -u
}

make_base() {
    export BASE_IMAGE="localhost/debian:$VERSION_CODENAME"
    docker image exists "$BASE_IMAGE" && return 0
    say "Making $BASE_IMAGE from Debian's packages ..."
    list_sources >"$work/sources"
    [ -s "$work/sources" ] || { quietly apt-update apt-get -q update; list_sources >"$work/sources"; }
    # In memory (/dev/shm) it takes half as long. The certificates, for pip, are this machine's.
    quietly mmdebstrap env TMPDIR=/dev/shm mmdebstrap -q --mode=root --variant=minbase \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include=usr-is-merged \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook="upload '${PIP_CERT:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}' /etc/pip.pem" \
        "$VERSION_CODENAME" "$work/base.tar" "$work/sources"
    docker import -q --change 'ENV PIP_CERT=/etc/pip.pem' --change 'CMD ["bash"]' \
        "$work/base.tar" "$BASE_IMAGE" >/dev/null
    rm "$work/base.tar"
}

if ! docker info >/dev/null 2>&1; then
    check_system
    mkdir -p "$work"
    install_podman
    configure_podman
    make_base
    export DOCKER_RUN_FLAGS=--passwd=false
fi
exec "$@"
