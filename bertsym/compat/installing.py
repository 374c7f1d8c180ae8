"""What to type where a library is missing."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.util
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Iterator

from bertsym.errors import InstallationError

# --no-deps: mxnet asks for numpy below 2, which has no wheel for Python 3.13.
_PINS = {"mxnet": "mxnet==1.9.1", "gluonnlp": "gluonnlp==0.10.0"}
# Lets gluonnlp be built without its tokenizer's extension, and so without a compiler and Python's headers.
_WITHOUT_COMPILER = "CC=true LDSHARED=true"
#: package that bertsym always needs -> the oldest version
OLDEST_VERSIONS = {
    **{"click": (8, 1), "numpy": (1, 22), "tokenizers": (0, 19), "huggingface_hub": (0, 23), "tqdm": (4, 60)},
    **({"tomli": (2, 0)} if sys.version_info < (3, 11) else {}),
}
# Shared libraries that mxnet's wheel expects from the system -> their packages on Debian and Ubuntu.
_SYSTEM_PACKAGES = {"libgomp.so.1": "libgomp1", "libquadmath.so.0": "libquadmath0"}


@functools.cache  # it is read from a file
def installed_version(package: str) -> str | None:
    """Return the version of an installed package, without importing it; None where it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the first three numbers of a version: ``(2, 13, 0)`` of ``2.13.0+cu130``."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def at_least(package: str, oldest: tuple[int, ...]) -> str:
    """Return the requirement for a package of a version or newer."""
    return f"{package}>={'.'.join(map(str, oldest))}" if oldest else package


def mxnet_has_wheel() -> bool:
    """Whether mxnet 1.9.1 has a wheel that imports on this machine: Linux on x86-64 only."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def installer() -> list[str]:
    """Return the words of the command that installs packages into the environment of this Python."""
    if importlib.util.find_spec("pip") is None:  # an environment of uv
        return ["uv", "pip", "install", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install"]


def install_command(*packages: str) -> str:
    """Return the shell command that adds packages to the environment of this Python."""
    words = [_WITHOUT_COMPILER] if "gluonnlp" in packages else []
    words.append(shlex.join(installer()))
    if any(package in _PINS for package in packages):
        words.append("--no-deps")
    return " ".join([*words, *(shlex.quote(_PINS.get(package, package)) for package in packages)])


def missing_mxnet() -> str:
    """Say that mxnet is missing, and how it is installed, or that it can't be on this machine."""
    if not mxnet_has_wheel():
        return (
            f"mxnet is not installed, and has no wheel for {platform.system()} on {platform.machine()}: it runs on"
            " Linux x86-64 only"
        )
    packages = ["mxnet"] if installed_version("gluonnlp") else [*_PINS]
    return f"mxnet is not installed; run: {install_command(*packages)}"


@contextlib.contextmanager
def library_errors() -> Iterator[None]:
    """Import mxnet or gluonnlp: where they are missing, or a library of the system is, raise an InstallationError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name == "mxnet":
            raise InstallationError(missing_mxnet()) from None
        package = {"distutils": "setuptools"}.get(str(error.name), str(error.name))
        needed = f"{package} is not installed" if package in _PINS else f"mxnet needs {package}, which is not installed"
        raise InstallationError(f"{needed}; run: {install_command(package)}") from None
    except OSError as error:
        if match := re.match(r"(\S+\.so\S*): cannot open shared object file", str(error)):
            raise InstallationError(missing_library(match[1])) from None
        raise


def missing_library(name: str) -> str:
    """Say which shared library of the system mxnet can't find, and the packages that have it."""
    fix = f"; on Debian or Ubuntu: apt-get install {system_packages(_SYSTEM_PACKAGES)}"
    return f"mxnet can't load {name}, which this system does not have" + (fix if name in _SYSTEM_PACKAGES else "")


def missing_system_libraries() -> list[str]:
    """Return the shared libraries that mxnet's wheel needs from the system and can't be loaded."""
    missing = []
    for name in _SYSTEM_PACKAGES:
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    return missing


def system_packages(libraries: Iterable[str]) -> str:
    """Return Debian's packages of shared libraries, separated by spaces."""
    return " ".join(_SYSTEM_PACKAGES[name] for name in libraries)
