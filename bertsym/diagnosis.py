"""What this machine has of what bertsym needs, and how to get the rest."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from bertsym.address_space import CAN_LIMIT
from bertsym.analysis.known_defects import release_defects
from bertsym.compat.installing import (
    OLDEST_VERSIONS,
    at_least,
    install_command,
    installed_version,
    missing_mxnet,
    missing_system_libraries,
    mxnet_has_wheel,
    system_packages,
    version_numbers,
)
from bertsym.errors import InstallationError
from bertsym.processors import may_saturate, processor_count, processor_flags

OK = "ok"
NOTE = "note"  #: works, and is worth knowing
MISSING = "missing"  #: optional; what needs it is named
BROKEN = "broken"  #: needed, and does not work

_GIB = 1 << 30
_LITTLE_MEMORY = 2 * _GIB  # fine-tuning MiniLM takes 1.9 GB
_LITTLE_DISK = _GIB  # a bundle of BERT base takes 0.4 GB, and is written beside the bundle that it replaces
_PROBE_SECONDS = 120

#: package of an extra -> what needs it, oldest version
_EXTRAS = {
    "matplotlib": ("reports: --report of finetune, evaluate, quantize, compare and diff", (3, 6)),
    "tensorboardX": ("bertsym finetune --tensorboard", (2, 6, 4)),
}

# Program -> what needs it, Debian's package.
_TOOLS = {
    "dot": ("Graphviz: bertsym draw OUT.svg and OUT.png", "graphviz"),
    "gcc": ("C and C++ clients", "gcc g++"),
    "javac": ("JDK: Java and Clojure clients", "openjdk-17-jdk-headless"),
    "mvn": ("Maven: Java and Clojure clients", "maven"),
    "node": ("Node.js client", "nodejs npm"),
    "perl": ("Perl client", "perl libffi-platypus-perl"),
}

# Run in a process of its own: a library that crashes at import ends that process only. Commands import mxnet so too.
_PROBE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
found = {}
try:
    if sys.argv[2] in ("mxnet", "gluonnlp"):
        from bertsym.compat.quick_import import speed_up_mxnet_import
        from bertsym.mxnet_runtime import engine_workers, import_library, openmp_threads
        speed_up_mxnet_import()
        library = import_library(sys.argv[2])
    else:
        library = __import__(sys.argv[2])
    if sys.argv[2] == "mxnet":
        import ctypes
        assert library.nd.ones((2, 3)).sum().asscalar() == 6
        found.update(workers=engine_workers(), threads=openmp_threads())
        name = getattr(library.base._LIB, "openblas_get_corename", None)
        if name is not None:
            name.restype = ctypes.c_char_p
            found["kernel"] = name().decode()
    elif sys.argv[2] == "gluonnlp":
        found["extension"] = library.data.fast_bert_tokenizer.__file__.endswith((".so", ".pyd"))
except Exception as error:
    found["error"] = f"{error}" if type(error).__module__ == "bertsym.errors" else f"{type(error).__name__}: {error}"
print("\\n" + json.dumps(found))
"""


@dataclass(frozen=True)
class Finding:
    """One fact about the machine: its status is one of ok, note, missing and broken."""

    name: str
    status: str
    text: str
    fix: str = ""  #: a command or an instruction; empty where nothing needs to be done


@dataclass(frozen=True)
class DoctorResult:
    """All findings, in the order in which they are printed."""

    findings: tuple[Finding, ...]

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The findings that keep bertsym from working."""
        return tuple(finding for finding in self.findings if finding.status == BROKEN)

    def to_json(self) -> dict[str, Any]:
        """Return `{"ok": bool, "findings": [{"name", "status", "text", "fix"}, ...]}`."""
        return {"ok": not self.broken, "findings": [asdict(finding) for finding in self.findings]}


def doctor() -> DoctorResult:
    """Check Python, libraries, engines, processor, memory, disk and optional tools; libraries are really imported."""
    extras = (_library(name, needed_for, oldest) for name, (needed_for, oldest) in _EXTRAS.items())
    return DoctorResult((*_python(), *_packages(), *_libraries(), *extras, *_processor(), *_space(), *_tools()))


def _python() -> Iterator[Finding]:
    implementation = platform.python_implementation()
    text = f"{implementation} {platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    yield Finding("bertsym", OK, installed_version("bertsym") or "not installed, imported from its folder")
    good = implementation == "CPython" and sys.version_info >= (3, 9)
    yield Finding("python", OK if good else BROKEN, text, "" if good else "use CPython 3.9 or newer")


def _packages() -> Iterator[Finding]:
    for package, oldest in OLDEST_VERSIONS.items():
        wanted = at_least(package, oldest)
        version = installed_version(package)
        if version is None:
            yield Finding(package, BROKEN, "not installed", install_command(wanted))
        elif version_numbers(version) < oldest:
            yield Finding(package, BROKEN, f"{version} is too old", install_command(wanted))
        else:
            yield Finding(package, OK, version)


def _libraries() -> Iterator[Finding]:
    try:
        from bertsym.execution.engines import ENGINES
    except InstallationError as error:  # numpy is too old
        text, _, command = str(error).partition("; run: ")
        yield Finding("engines", BROKEN, f"not checked: {text}", command)
        return
    mxnet = _mxnet()
    others = dict.fromkeys(package for engine in ENGINES.values() for package in engine.packages if package != "mxnet")
    needed_for = "bertsym onnx and the engine onnxruntime"
    findings = [*mxnet, _gluonnlp(mxnet[0].status), *(_library(name, needed_for) for name in others)]
    yield from findings
    working = {finding.name for finding in findings if finding.status == OK}
    engines = [name for name, engine in ENGINES.items() if working.issuperset(engine.packages)]
    if engines:
        yield Finding("engines", OK, ", ".join(engines))
    else:
        fix = next((finding.fix for finding in findings if finding.fix), "")
        yield Finding("engines", BROKEN, "no engine works: nothing can be run", fix)


def _mxnet() -> list[Finding]:
    version = installed_version("mxnet")
    if version is None:
        text, _, command = missing_mxnet().partition("; run: ")
        return [Finding("mxnet", MISSING, text, command)]
    found = _probe("mxnet")
    lacking = missing_system_libraries()
    if "error" in found:
        fix = f"apt-get install {system_packages(lacking)}" if lacking else ""
        return [Finding("mxnet", BROKEN, f"{version} is installed and can't be imported: {found['error']}", fix)]
    findings = [Finding("mxnet", OK, version)]
    if mxnet_has_wheel() and not lacking:
        findings.append(Finding("system libraries", OK, "libgomp, libquadmath"))
    kernel = found.get("kernel")
    if kernel is not None:
        slow = kernel in ("Prescott", "Core2", "Nehalem") and "avx2" in processor_flags()
        text = f"OpenBLAS kernel {kernel}" + (", slower than this processor allows" if slow else "")
        findings.append(Finding("blas", NOTE if slow else OK, text, "set OPENBLAS_CORETYPE=Haswell" if slow else ""))
    text = f"{found['workers']} workers of MXNet's engine, {found['threads']} OpenMP threads, "
    text += f"{processor_count()} processors"
    findings.append(Finding("threads", OK, text))
    findings += [Finding("mxnet fault", NOTE, defect, fix) for defect, fix in release_defects(version)]
    return findings


def _gluonnlp(mxnet: str) -> Finding:
    version = installed_version("gluonnlp")
    if version is None:
        fix = install_command("gluonnlp") if mxnet_has_wheel() else ""
        return Finding("gluonnlp", MISSING, "needed for gluonnlp: sources, and to compare with its BERTModel", fix)
    if mxnet != OK:
        return Finding("gluonnlp", NOTE, f"{version}, not checked: it needs mxnet")
    found = _probe("gluonnlp")
    if "error" in found:
        return Finding("gluonnlp", BROKEN, f"{version} is installed and can't be imported: {found['error']}")
    return Finding("gluonnlp", OK, version + ("" if found["extension"] else ", with bertsym's tokenizer in Python"))


def _library(name: str, needed_for: str, oldest: tuple[int, ...] = ()) -> Finding:
    version = installed_version(name)
    if version is None or version_numbers(version) < oldest:
        text = f"needed for {needed_for}" if version is None else f"{version} is too old for {needed_for}"
        return Finding(name, MISSING, text, install_command(at_least(name, oldest)))
    found = _probe(name)
    if "error" in found:
        text = f"{version} is installed and can't be imported: {found['error']}"
        return Finding(name, BROKEN, text, f"{install_command(name)} --force-reinstall")
    return Finding(name, OK, version)


def _processor() -> Iterator[Finding]:
    flags = processor_flags()
    if not flags:
        yield Finding("processor", NOTE, f"{platform.machine()}; its vector instructions are unknown")
        return
    shown = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "AVX-512 VNNI"}
    have = [name for flag, name in shown.items() if flag in flags]
    if not may_saturate():
        int8 = "int8 products in one instruction (VNNI)"
    elif have:
        int8 = (
            f"int8 products by {have[-1]} without VNNI: they gain less over float32, and MXNet refuses models of "
            "quantize --for vnni, whose products would saturate; --engine onnxruntime computes them exactly"
        )
    else:
        int8 = "int8 gains little"
    yield Finding("processor", OK if have else NOTE, f"{', '.join(have) or 'no AVX2'}; {int8}")


def _space() -> Iterator[Finding]:
    memory = _available_memory()
    if memory is not None:
        little = memory < _LITTLE_MEMORY
        text = f"{memory / _GIB:.1f} GiB available"
        fix = "if that is not enough, use smaller batches (finetune --accumulate)"
        yield Finding("memory", NOTE if little else OK, text, fix if little else "")
    if not CAN_LIMIT:
        yield Finding("sandbox", NOTE, "this system can't limit its memory", "open untrusted files on Linux")
    for name, folder in (("disk", Path.cwd()), ("temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        little = free < _LITTLE_DISK
        text = f"{free / _GIB:.1f} GiB free in {folder}"
        yield Finding(name, NOTE if little else OK, text, "free some space, or set TMPDIR" if little else "")


def _tools() -> Iterator[Finding]:
    for program, (purpose, packages) in _TOOLS.items():
        path = shutil.which(program)
        if path:
            yield Finding(program, OK, path)
        else:
            yield Finding(program, MISSING, purpose, f"apt-get install {packages}")


def _probe(library: str) -> dict[str, Any]:
    """Import a library in a process of its own; `error` says why that failed."""
    path = [entry or os.getcwd() for entry in sys.path]
    command = [sys.executable, "-W", "ignore", "-c", _PROBE, json.dumps(path), library]
    if PathFinder.find_spec(library) is None:
        return {"error": "its files are missing"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return {"error": f"its import took more than {_PROBE_SECONDS} seconds"}
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return {"error": f"the process ended with exit code {done.returncode}: {last[0]}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def _available_memory() -> int | None:
    """Bytes that can be had without swapping, within the container's limit; None where it is unknown."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    match = re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)
    if match is None:
        return None
    available = int(match[1]) << 10
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # not a container, or no limit: "max"
        return available
    return min(available, max(0, limit - used))
