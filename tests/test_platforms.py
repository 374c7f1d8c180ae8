"""macOS, Windows: bertsym works where the functions of Linux are absent, and each fall-back does what it says."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tools import needs

from bertsym import using_engine
from bertsym.cli.group import run

# What Windows does not have, and its rule that an open file is neither moved nor removed. os.access and the audit hook
# hide /proc and /sys. shutil uses some of the flags of os.open where it has found them at its import.
REMOVE = """
import mmap, os, shutil, signal, sys
shutil._use_fd_functions = False
ABSENT = {
    os: "fork forkpty register_at_fork sched_getaffinity process_cpu_count posix_fallocate killpg getuid geteuid fchmod"
        " O_NONBLOCK O_NOFOLLOW O_DIRECTORY O_CLOEXEC",
    signal: "SIGALRM SIGHUP alarm setitimer ITIMER_REAL pthread_kill",
    mmap: "MADV_DONTNEED",
}
for module, names in ABSENT.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
for name in ("fcntl", "resource"):
    sys.modules[name] = None  # the import of it fails
access = os.access
os.access = lambda path, *mode, **more: not str(path).startswith("/proc") and access(path, *mode, **more)

def hide(event, arguments):
    if event == "open" and str(arguments[0]).startswith(("/proc/", "/sys/")):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])

sys.addaudithook(hide)

def is_open(path):
    path = os.path.realpath(path)
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # listdir's own
            continue
        if target == path or target.startswith(path + "/"):
            return True
    return False

def refuse_open(name):
    function = getattr(os, name)

    def refusing(*paths, **more):
        for path in paths:
            if is_open(path):
                raise PermissionError(13, "open, so Windows refuses to " + name, str(path))
        return function(*paths, **more)

    setattr(os, name, refusing)

for name in ("rename", "replace", "unlink", "remove", "rmdir"):
    refuse_open(name)

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mxnet", "gluonnlp"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
# The sandbox is a process of its own.
SANDBOX = f"from bertsym.execution import sandbox\nsandbox._START = {REMOVE!r} + sandbox._START\n"


def elsewhere(program: str, *arguments: object) -> list[str]:
    """A command that runs a program on a system without the functions of Linux."""
    return [sys.executable, "-W", "ignore", "-c", REMOVE + program, *map(str, arguments)]


def run_elsewhere(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(elsewhere(program, *arguments), env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


# Everything together


COMMANDS = f"""
import contextlib, io, json, warnings
if hasattr(__builtins__, "EncodingWarning"):  # since Python 3.10
    warnings.filterwarnings("error", category=EncodingWarning, module="bertsym")
{SANDBOX}
from bertsym.cli.group import run
results = []
for command in json.loads(sys.argv[1]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = run(command)
    results.append([code, out.getvalue()])
print(json.dumps(results))
"""


@needs("onnx", "onnxruntime", "dot")
def test_the_main_commands_write_and_print_the_same(
    tiny_hf: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def commands(folder: Path) -> list[list[str]]:
        base, layer = f"{folder}/base", f"{folder}/layer"
        return [
            ["export", f"hf:{tiny_hf}", base],
            ["inspect", base, "--shapes"],
            ["extract", base, layer, "--output", "layer 0"],
            ["edit", layer, f"{folder}/edited", "--dropout", "0.2"],  # in the sandbox
            ["lower", base, f"{folder}/lowered", "--target-mxnet", "1.5"],
            ["lower", base, f"{folder}/lowered", "--target-mxnet", "1.7", "--force"],  # replaces it
            ["predict", str(classifier), "--text", "the happy cat sat"],
            ["draw", base, f"{folder}/base.svg"],
            ["onnx", base, f"{folder}/base.onnx"],
        ]

    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    done = run_elsewhere(COMMANDS.replace("sys.argv[1]", repr(json.dumps(commands(there)))))
    printed = []
    with using_engine("onnxruntime"):
        for command in commands(here):
            assert run(command) == 0
            printed.append([0, capsys.readouterr().out.replace(str(here), str(there))])
    assert json.loads(done.stdout) == printed
    assert done.stderr.count("note: this system can't limit the memory of the sandbox") == 1
    names = sorted(path.name for path in here.iterdir())
    assert sorted(path.name for path in there.iterdir()) == names
    different = [name for name in names if (here / name).read_bytes() != (there / name).read_bytes()]
    assert [name for name in different if "manifest" not in name] == []


def test_every_module_imports() -> None:
    program = """
import importlib, pkgutil, bertsym
names = [module.name for module in pkgutil.walk_packages(bertsym.__path__, "bertsym.")]
for name in names:
    if name != "bertsym.__main__":
        importlib.import_module(name)
print(len(names))
"""
    assert int(run_elsewhere(program).stdout) > 150


# Threads, memory, time


def test_threads_are_as_many_as_the_system_has_processors() -> None:
    """And not as many as it may use, here one, which only sched_getaffinity can find out."""
    program = """
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {int(sys.argv[1])})
from bertsym.processors import processor_count
from bertsym.mxnet_runtime import openmp_threads, prepare_environment
prepare_environment()
print(processor_count(), openmp_threads(), os.environ["OMP_NUM_THREADS"])
"""
    (processor, *_) = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
    assert run_elsewhere(program, processor).stdout.split() == [str(os.cpu_count())] * 3


def test_no_limit_of_address_space_is_checked_and_doctor_reports_it() -> None:
    program = """
from bertsym.address_space import check_address_space, engine_bytes, limit_growth
check_address_space(1 << 60, 64)
limit_growth(engine_bytes(2, 2))
from bertsym.diagnosis import _space
print(*[finding for finding in _space() if finding.name in ("memory", "sandbox")])
"""
    assert "status='note', text=\"this system can't limit its memory\"" in run_elsewhere(program).stdout


@needs("onnx", "onnxruntime")
def test_the_sandbox_limits_the_time_of_a_call_and_continues() -> None:
    """400 products of matrices, at 16 GFLOP each; then a small one."""
    program = f"""
import numpy as np
{SANDBOX}
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import VARIABLE, Node, Output
from bertsym.errors import ModelError
sandbox.MAX_SECONDS, sandbox.SECONDS_PER_BYTE = 1, 0

def compute(count, size):
    nodes = [Node(VARIABLE, "x")]
    for i in range(count):
        nodes.append(Node("batch_dot", f"d{{i}}", inputs=(Output(nodes[-1]), Output(nodes[-1]))))
    text = SymbolGraph(nodes, [Output(nodes[-1])]).to_json()
    inputs = {{"x": np.ones((1, size, size), np.float32)}}
    return sandbox.call("compute", text, "it", False, fused=True, params={{}}, inputs=inputs)

try:
    compute(400, 2000)
except ModelError as error:
    print(error)
print(compute(1, 2))
"""
    lines = run_elsewhere(program).stdout.splitlines()
    assert lines[0] == "it: onnxruntime did not finish within 1 seconds; --trust removes the limit"
    assert re.sub(r"\s", "", "".join(lines[1:])).startswith("[array([[[2.,2.],[2.,2.]]]")


# Locks and files


WRITER = """
import time
from pathlib import Path
from bertsym import BertsymError
from bertsym.atomic_writing import recover, work_folder

target, how = Path(sys.argv[1]), sys.argv[2]
try:
    with work_folder(target) as folder:
        (folder.new / target.name).write_text(how, encoding="utf-8")
        if how == "wait":
            print("locked", flush=True)
            time.sleep(600)
        if how == "die":
            os.rename = lambda *_: os._exit(0)  # after the old file was moved away
        folder.replace()
except BertsymError as error:
    print(error)
"""


def test_the_lock_excludes_another_writer_and_ends_with_its_process(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with subprocess.Popen(elsewhere(WRITER, target, "wait"), stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "locked\n"
        assert (
            run_elsewhere(WRITER, target, "second").stdout
            == f"{target}: locked by another process, which is writing it: wait until it ends\n"
        )
        assert not target.exists()
        first.kill()
    assert run_elsewhere(WRITER, target, "third").stdout == ""
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "third")]


def test_a_writer_that_died_while_it_replaced_is_undone(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    run_elsewhere(WRITER, target, "die")
    assert not target.exists()
    program = (
        "from pathlib import Path\nfrom bertsym.atomic_writing import recover\nrecover(Path(sys.argv[1]), ['file'])"
    )
    run_elsewhere(program, target)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_two_threads_exclude_each_other_too(tmp_path: Path) -> None:
    program = """
from pathlib import Path
from bertsym.locking import lock_file
path = Path(sys.argv[1], "a % b#?")
try:
    lock_file(path, create=False)
except FileNotFoundError:
    print("absent")
release = lock_file(path, create=True)
try:
    lock_file(path, create=True)
except BlockingIOError:
    print("locked")
release()
lock_file(path, create=False)()
print(path.stat().st_size, len(list(path.parent.iterdir())))
"""
    assert run_elsewhere(program, tmp_path).stdout.split() == ["absent", "locked", "0", "1"]


def test_other_readers_get_a_copy_of_an_open_parameter_file(bundles: dict[str, Path], tmp_path: Path) -> None:
    program = """
import tempfile
from pathlib import Path
from bertsym.symbol.params import ParamsFile
tempfile.tempdir = sys.argv[2]
source = Path(sys.argv[1])
params = ParamsFile(source)
digest = params.digest()
assert not is_open(source)  # so that it can be replaced
with params.at_path() as path:
    print(str(path).startswith(sys.argv[2]), path.read_bytes() == source.read_bytes())
    print(ParamsFile(path).digest() == digest)
print(len(params), sum(array.size > 0 for array in params.values()), list(Path(sys.argv[2]).iterdir()))
"""
    found = run_elsewhere(program, f"{bundles['cls']}-0000.params", tmp_path).stdout.split()
    assert found[:3] == ["True"] * 3
    assert found[3] == found[4] != "0"
    assert found[5] == "[]"


def test_space_for_encodings_is_really_reserved(tmp_path: Path) -> None:
    """A full disk is an error at once, and not a crash when a page of the file is written."""
    program = (
        """
import resource, sys
sys.argv[2:] and resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
"""
        + REMOVE
        + """
from bertsym.training.encodings import _allocate
with open(sys.argv[1], "wb") as file:
    try:
        _allocate(file.fileno(), 5_000_000)
    except OSError as error:
        print(error.errno)
"""
    )
    command = [sys.executable, "-c", program, f"{tmp_path}/space"]
    subprocess.run(command, check=True, timeout=60)
    state = (tmp_path / "space").stat()
    assert (state.st_size, state.st_blocks * 512 >= 5_000_000) == (5_000_000, True)
    limited = subprocess.run([*command, "limited"], capture_output=True, text=True, check=True, timeout=60)
    assert limited.stdout.strip() == str(errno.EFBIG)


# Signals


def test_training_stops_on_the_signals_that_exist() -> None:
    program = """
from bertsym.training.stopping import deferred_signals
with deferred_signals() as request:
    signal.raise_signal(signal.SIGTERM)
print(request.signal.name)
"""
    assert run_elsewhere(program).stdout == "SIGTERM\n"


def test_a_signal_in_a_destructor_stops_the_command_soon_after() -> None:
    """Python drops an exception that is raised in a destructor."""
    program = """
import time
from bertsym.cli.failures import Stopped
from bertsym.cli.group import _stoppable

class Signalling:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
        self.dropped = False  # the handler has run

with _stoppable():
    Signalling()
    try:
        for _ in range(600):
            time.sleep(0.1)
    except Stopped as stopped:
        print(stopped.exit_code)
"""
    assert run_elsewhere(program).stdout == f"{128 + signal.SIGTERM}\n"
