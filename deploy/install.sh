#!/usr/bin/env bash
# Makes .venv and installs into it what a lock file pins, then this checkout. A second run does nothing.
#   deploy/install.sh run    what the gateway needs (deploy/requirements.lock)
#   deploy/install.sh dev    that, and what the checks and tests need (requirements.lock)
# As root on Debian it installs missing build tools first. PYTHON names another interpreter than the first good one.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-dev} in
    run) lock=deploy/requirements.lock ;;
    dev) lock=requirements.lock ;;
    *) echo "usage: deploy/install.sh run|dev" >&2 && exit 2 ;;
esac

say() { printf '%s\n' "$*" >&2; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

missing_packages() {
    local tool
    for tool in gcc g++ cmake git; do
        command -v "$tool" >/dev/null || printf '%s ' "$tool"
    done
    command -v ninja >/dev/null || printf 'ninja-build '
    if ! python=$(find_python); then
        printf 'python3 python3-dev python3-venv '
    elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        printf 'python3-venv '
    fi
}

install_packages() {
    local missing
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing Debian packages: $missing"
        apt-get update -qq >&2
        # shellcheck disable=SC2086 # a list of names
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
        return
    fi
    # cmake, ninja and git are conveniences: without them pip brings the first two, and the third is not needed to run.
    case " $missing" in
        *' gcc '* | *' g++ '* | *python3*)
            say "Needed and not found: $missing"
            say "On Debian: sudo apt-get install $missing"
            exit 1
            ;;
    esac
}

# What llama.cpp is compiled from and for: this processor, this compiler, these settings. pip keeps what it compiled and
# asks for none of them, so a wheel from another machine, or from before a change, would be taken and could not run.
compiled_for() {
    {
        grep -h '^llama-cpp-python==' "$lock"
        gcc --version
        gcc -march=native -Q --help=target
        echo "${CMAKE_ARGS:-}"
        cat deploy/llama_cpp/*
    } 2>/dev/null | sha256sum | cut -c1-16
}

# What an installation from a lock file is made of; `dev` has all that `run` has.
stamp() {
    {
        echo "$compiled_for"
        cat "$1" pyproject.toml deploy/install.sh tests/clients/llama_index/requirements.lock \
            tests/clients/node/package-lock.json
    } | sha256sum | cut -d' ' -f1
}

installed() { grep -q -e "$(stamp "$lock")" -e "$(stamp requirements.lock)" .venv/installed 2>/dev/null; }

# Clients that the tests call, and that want other versions than ours, or Node.
install_clients() {
    say "Installing the clients of the tests"
    "$python" -m venv --clear .venv-llama-index
    .venv-llama-index/bin/python -m pip install --quiet --require-hashes -r tests/clients/llama_index/requirements.lock
    if command -v node >/dev/null && command -v npm >/dev/null; then
        (cd tests/clients/node && npm ci --silent)
    fi
}

install_packages
python=$(find_python) || { say "Python 3.11 or newer is needed; PYTHON=… names one."; exit 1; }
compiled_for=$(compiled_for)
# A virtual environment whose interpreter is gone cannot be mended.
[ ! -e .venv ] || .venv/bin/python -c '' 2>/dev/null || rm -rf .venv
! installed || exit 0
[ -e .venv ] || { say "Making .venv with $("$python" --version)"; "$python" -m venv .venv; }
rm -f .venv/installed

# Each way of compiling has a cache of its own, and what was compiled another way is not kept.
export PIP_CACHE_DIR="${XDG_CACHE_HOME:-$HOME/.cache}/firstdraft/pip-$compiled_for"
[ "$(cat .venv/compiled_for 2>/dev/null)" = "$compiled_for" ] \
    || .venv/bin/python -m pip uninstall --quiet --yes llama-cpp-python 2>/dev/null
# Without the parts of llama.cpp that nothing here uses, the build takes half the time.
export CMAKE_ARGS="${CMAKE_ARGS:--DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE='$PWD/deploy/llama_cpp/build.cmake'}"
say "Installing what $lock names. llama-cpp-python is compiled once: two to four minutes on 2 cores."
.venv/bin/python -m pip install -v --require-hashes -r "$lock" 2>&1 \
    | "$python" deploy/install_progress.py .venv/install.log \
    || { say "That failed. The end of .venv/install.log:"; tail -n 25 .venv/install.log >&2; exit 1; }
.venv/bin/python -m pip install -v --no-deps -e . 2>&1 | "$python" deploy/install_progress.py .venv/install.log
echo "$compiled_for" >.venv/compiled_for
[ "$lock" != requirements.lock ] || install_clients
stamp "$lock" >.venv/installed
