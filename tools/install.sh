#!/usr/bin/env bash
# Makes the virtual environment that `make` uses, with this project in it (editable, with the dev extra).
#
#   tools/install.sh                      .venv in the repository
#   VENV=/tmp/venv tools/install.sh       another place
#   TORCH_VERSION=2.12.0 tools/install.sh another torch
#
# Needs Python 3.10 or newer and nothing else. A machine without an NVIDIA GPU gets a CPU build of torch: a plain
# `pip install torch` would fetch several GB of CUDA libraries that it cannot use. Safe to run again.
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
    # python3 first: it is the one the user chose (conda, pyenv, a module system).
    for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
        if command -v "$candidate" >/dev/null && right_python "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python="$(find_python)" || fail "no Python 3.10 or newer was found; install one and run this again."
    "$python" -c 'import ensurepip, venv' 2>/dev/null \
        || fail "$("$python" --version) cannot make virtual environments; install its venv package (Debian: apt-get install python3-venv) and run this again."
    say "virtual environment in $venv, with $("$python" --version)"
    "$python" -m venv --clear "$venv"
else
    say "virtual environment in $venv is there, with $("$venv/bin/python" --version)"
fi
right_python "$venv/bin/python" || fail "$venv holds $("$venv/bin/python" --version); remove the folder and run this again."

log="$venv/install.log"
: >"$log"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@" >>"$log" 2>&1; }
installed_torch() {
    "$venv/bin/python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || true
}
has_gpu() { [[ "$(nvidia-smi -L 2>/dev/null)" == GPU\ * ]]; }

install_torch() {
    pip install "$1" || fail "torch $torch_version could not be installed; the end of $log says: $(tail -n 1 "$log")"
}

have="$(installed_torch)"
cpu="torch==$torch_version+cpu"
if has_gpu && [[ "${have%%+*}" != "$torch_version" || "$have" = *+cpu ]]; then
    say "torch $torch_version for the NVIDIA GPU of this machine (several GB)"
    # pip holds "+cpu" for the newer of the two where it sees both.
    install_torch "torch==$torch_version,!=$torch_version+cpu"
elif [ "${have%%+*}" = "$torch_version" ]; then
    say "torch $have is there"
elif [ "$(uname -s)" = Darwin ]; then
    say "torch $torch_version"
    install_torch "torch==$torch_version"
else
    say "torch $torch_version, CPU build (no NVIDIA GPU here)"
    if ! pip install "$cpu" \
        && ! pip install --timeout 20 --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu "$cpu"; then
        say "no CPU build of torch $torch_version could be had, so the plain one is installed (it may bring several GB of CUDA libraries)"
        install_torch "torch==$torch_version"
    fi
fi

# Pinned to what is there now, or a dependency could swap the CPU build for a CUDA one.
have="$(installed_torch)"
printf 'torch==%s\n' "$have" >"$venv/torch-constraint.txt"
say "prospect-hf and its packages (a few minutes the first time)"
pip install --constraint "$venv/torch-constraint.txt" --constraint tools/constraints.txt --editable ".[dev]" \
    || fail "the packages could not be installed; the end of $log says: $(tail -n 1 "$log")"
[ "$(installed_torch)" = "$have" ] || fail "torch $have was replaced by $(installed_torch); remove $venv and run this again."
say "done: $venv, torch $have"
