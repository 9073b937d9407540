#!/bin/sh
# Installs what it is told (arguments of `uv pip install`) in the versions of requirements.lock, wheels alone whose hash
# is there. For `make environment` and the Dockerfile; it works on the folder with pyproject.toml that it is called in.
#
# torch goes first. PyPI's build is locked; another build (one for CPUs, from UV_FIND_LINKS, UV_TORCH_BACKEND or
# TORCH_INDEX) is another file in every place that has one, so it alone is taken as it is found.
#
# UV              the program; default: uv
# TORCH_INDEX     a further package index for torch
# WITH_TORCH      packages that no lock names, installed with it
# WITHOUT         packages to leave out
set -eu
UV=${UV:-uv}

machine=$("${UV_PYTHON:-python3}" -c 'import platform, sys
print(sys.platform, platform.machine(), "{}.{}".format(*sys.version_info))')
case $machine in
"linux x86_64 3.1"[123] | "linux aarch64 3.1"[123] | "darwin arm64 3.1"[123]) ;;
*)
    echo "install.sh: requirements.lock is for Linux on x86_64 or arm64 and macOS on arm64, with Python 3.11 to 3.13; this" \
        "is $machine. With another Python: rm -rf .venv && make environment PYTHON=python3.12" >&2
    exit 1
    ;;
esac

install_torch() {
    # shellcheck disable=SC2086  # several words each
    "$UV" pip install ${TORCH_INDEX:+--index "$TORCH_INDEX"} torch ${WITH_TORCH:-} "$@"
}

constraints=requirements.lock
if install_torch --constraint requirements.lock --dry-run 2>&1 | grep -q '+ torch==[0-9.]*+'; then
    constraints=$(mktemp)
    trap 'rm -f "$constraints"' EXIT
    # All of it but torch's own lines.
    awk '/^[^ ]/ { own = /^torch==/ } !own' requirements.lock > "$constraints"
fi
install_torch --quiet --constraint "$constraints"
printf '%s\n' torch ${WITHOUT:-} \
    | "$UV" pip install --quiet --require-hashes --constraint requirements.lock --excludes - "$@"
