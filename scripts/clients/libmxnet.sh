# shellcheck shell=bash
# Sourced by the clients' run scripts: where libmxnet.so is, where they build, what is missing.
# A failure is one line on standard error and exit code 3: the client can't run here.

_clients=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# missing TEXT: report what is missing and how to get it.
missing() {
    echo "error: missing: $*" >&2
    exit 3
}

# need COMMAND HOW: exit unless a command exists.
need() {
    command -v "$1" >/dev/null 2>&1 || missing "$1; $2"
}

# build_folder LANGUAGE: make the folder for what is built, and print it.
build_folder() {
    local folder=${BERTSYM_CLIENTS_BUILD:-$_clients/.build}/$1
    mkdir -p "$folder" && (cd "$folder" && pwd)
}

# lock FOLDER: wait until no other process builds there. The lock ends with this shell, or with `unlock`.
# Without flock, as on macOS, nothing is locked.
lock() {
    if command -v flock >/dev/null; then
        exec 9>>"$1/lock" && flock 9
    fi
}

unlock() {
    exec 9>&-
}

# find_libmxnet: print the path of the library that $LIBMXNET names, or of the mxnet that is installed for Python.
find_libmxnet() {
    local python found
    if [ -n "${LIBMXNET:-}" ]; then
        [ -f "$LIBMXNET" ] || missing "LIBMXNET=$LIBMXNET is not a file"
        # Checked here, so that every language has the same message.
        grep -aq MXGetLastError "$LIBMXNET" || missing "LIBMXNET=$LIBMXNET is not a libmxnet.so"
        realpath "$LIBMXNET"
        return
    fi
    for python in "$_clients/../../.venv/bin/python" python3; do
        # Found without import, because an old mxnet can't be imported with a new numpy.
        found=$("$python" 2>/dev/null -c '
import importlib.util, os
print(os.path.join(importlib.util.find_spec("mxnet").submodule_search_locations[0], "libmxnet.so"))') || continue
        [ -f "$found" ] && realpath "$found" && return
    done
    missing "libmxnet.so; pip install mxnet, or set LIBMXNET=/path/to/libmxnet.so"
}

# fetch_libmxnet VERSION: download the wheel of an mxnet, such as 1.5.1, once, unpack its libraries and headers
# into the build folder, and print the path of libmxnet.so.
fetch_libmxnet() {
    local folder python=$_clients/../../.venv/bin/python
    [ -x "$python" ] || python=python3
    folder=$(build_folder "libmxnet-$1") || exit 3
    if [ ! -f "$folder/libmxnet.so" ]; then
        # With .*, because some releases exist only as .postN. The folder is created atomically.
        (
            download=$(mktemp -d "$folder.XXXXXX") && trap 'rm -rf "$download"' EXIT &&
                "$python" -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: \
                    --dest "$download" "mxnet==$1.*" >&2 &&
                "$python" -c '
import sys, zipfile
with zipfile.ZipFile(sys.argv[2]) as wheel:
    names = wheel.namelist()
    libraries = [name for name in names if name.startswith("mxnet/lib") and ".so" in name]
    wheel.extractall(sys.argv[1], libraries + [name for name in names if name.startswith("mxnet/include/")])
' "$download" "$download"/mxnet-*.whl &&
                rm -rf "$folder" && mv "$download/mxnet" "$folder"
        ) || missing "libmxnet.so of mxnet $1; it could not be downloaded from PyPI"
    fi
    echo "$folder/libmxnet.so"
}
