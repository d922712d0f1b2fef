#!/usr/bin/env bash
# Creates the virtual environment that `make` uses, and installs this project into it (editable, with the dev extra).
#
#   tools/install.sh                      into .venv in the repository
#   VENV=/tmp/venv tools/install.sh       into another folder
#   TORCH_VERSION=2.12.0 tools/install.sh with another version of torch
#
# Needs only Python 3.10 or newer. A machine without an NVIDIA GPU gets the CPU build of torch, since a plain
# `pip install torch` would download several GB of unused CUDA libraries. The script can be run again at any time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv="${VENV:-.venv}"
torch_version="${TORCH_VERSION:-2.13.0}"
torch_version="${torch_version%%+*}"

say() { printf 'install: %s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

right_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }

find_python() {
    local candidate
    # python3 first, since conda, pyenv and module systems select the user's Python under this name.
    for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
        if command -v "$candidate" >/dev/null && right_python "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python="$(find_python)" || fail "found no Python 3.10 or newer; install one and run this again."
    "$python" -c 'import ensurepip, venv' 2>/dev/null \
        || fail "$("$python" --version) cannot create virtual environments; install its venv package (Debian: apt-get install python3-venv) and run this again."
    say "creating a virtual environment in $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
else
    say "using the virtual environment in $venv with $("$venv/bin/python" --version)"
fi
right_python "$venv/bin/python" || fail "$venv has $("$venv/bin/python" --version), but 3.10 or newer is needed; remove the folder and run this again."

log="$venv/install.log"
: >"$log"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@" >>"$log" 2>&1; }
installed_torch() {
    "$venv/bin/python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || true
}
has_gpu() { [[ "$(nvidia-smi -L 2>/dev/null)" == GPU\ * ]]; }

install_torch() {
    pip install "$1" || fail "torch $torch_version could not be installed; the last line of $log is: $(tail -n 1 "$log")"
}

have="$(installed_torch)"
cpu="torch==$torch_version+cpu"
if has_gpu && [[ "${have%%+*}" != "$torch_version" || "$have" = *+cpu ]]; then
    say "installing torch $torch_version for the NVIDIA GPU of this machine (several GB)"
    # The CPU build is excluded because pip ranks the version "+cpu" above the plain one.
    install_torch "torch==$torch_version,!=$torch_version+cpu"
elif [ "${have%%+*}" = "$torch_version" ]; then
    say "torch $have is installed"
elif [ "$(uname -s)" = Darwin ]; then
    say "installing torch $torch_version"
    install_torch "torch==$torch_version"
else
    say "installing the CPU build of torch $torch_version (no NVIDIA GPU found)"
    if ! pip install "$cpu" \
        && ! pip install --timeout 20 --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu "$cpu"; then
        say "found no CPU build of torch $torch_version; installing the default build (perhaps with several GB of CUDA libraries)"
        install_torch "torch==$torch_version"
    fi
fi

# Pins torch, so that installing the other packages cannot replace the CPU build by a CUDA one.
have="$(installed_torch)"
printf 'torch==%s\n' "$have" >"$venv/torch-constraint.txt"
say "installing prospect-hf and its dependencies (a few minutes the first time)"
pip install --constraint "$venv/torch-constraint.txt" --constraint tools/constraints.txt --editable ".[dev]" \
    || fail "the packages could not be installed; the last line of $log is: $(tail -n 1 "$log")"
[ "$(installed_torch)" = "$have" ] || fail "torch $have was replaced by $(installed_torch); remove $venv and run this again."
say "done: $venv, torch $have"
