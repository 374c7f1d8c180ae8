"""The processes of a distributed run, from the DMLC_* variables that MXNet's parameter server is started with."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from bertsym.errors import UsageError

ROLES = ("scheduler", "server", "worker")
_NEEDED = ("DMLC_ROLE", "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT", "DMLC_NUM_WORKER", "DMLC_NUM_SERVER")
_HELP = "docs/how-to/several-machines.md lists them, scripts/launch_local sets them on one machine"


@dataclass(frozen=True)
class Cluster:
    """What this process is, where the scheduler is, and how many workers and servers there are."""

    role: str  #: one of ROLES
    host: str  #: of the scheduler
    port: int  #: of the scheduler; it is watched at the next one
    workers: int
    servers: int
    worker_id: int | None = None  #: the rank that this worker asks for

    @property
    def watch_port(self) -> int:
        """Where the scheduler is told that the others live."""
        return self.port + 1

    @property
    def bound_host(self) -> str:
        """The address on which the scheduler listens, as MXNet's own does; empty for all."""
        return "" if os.environ.get("DMLC_USE_KUBERNETES", "0") != "0" else self.host

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Cluster:
        """Read and check the variables. Raises UsageError with what is missing or wrong."""
        missing = [name for name in _NEEDED if not environment.get(name)]
        if missing:
            raise UsageError(f"--kvstore dist_sync needs {', '.join(missing)} in the environment: {_HELP}")
        role = environment["DMLC_ROLE"]
        if role not in ROLES:
            raise UsageError(f"DMLC_ROLE is {role!r}, not one of {', '.join(ROLES)}")
        workers = _number(environment, "DMLC_NUM_WORKER", 1, 1 << 16)
        cluster = cls(
            role,
            environment["DMLC_PS_ROOT_URI"],
            _number(environment, "DMLC_PS_ROOT_PORT", 1, 65534),
            workers,
            _number(environment, "DMLC_NUM_SERVER", 1, 1 << 16),
            _number(environment, "DMLC_WORKER_ID", 0, workers - 1) if environment.get("DMLC_WORKER_ID") else None,
        )
        _check_interface(cluster.host, environment)
        if role == "scheduler" and cluster.bound_host:
            # MXNet connects to a name, but listens on an address only.
            os.environ["DMLC_PS_ROOT_URI"] = _address(cluster.host)
        return cluster


def _number(environment: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = environment[name]
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise UsageError(f"{name} is {text!r}, a number from {least} to {most} is needed")
    return int(text)


def _check_interface(host: str, environment: Mapping[str, str]) -> None:
    """Left to itself, MXNet listens on the interface that leads out, whatever the scheduler's address is."""
    there = [name for _, name in socket.if_nameindex()]
    interface = environment.get("DMLC_INTERFACE")
    if interface and interface not in there:
        raise UsageError(f"DMLC_INTERFACE is {interface!r}, this machine has {', '.join(there)}")
    if interface or environment.get("DMLC_NODE_HOST"):
        return
    if not _is_loopback(host):
        raise UsageError(
            f"DMLC_PS_ROOT_URI={host} is another machine's, or this one's for others: set DMLC_INTERFACE to the "
            f"interface of a trusted network ({', '.join(there)}), since whoever reaches it can take part"
        )
    os.environ["DMLC_INTERFACE"] = next(name for name in there if name.startswith("lo"))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(_address(host)).is_loopback
    except UsageError:
        return False


def _address(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise UsageError(f"DMLC_PS_ROOT_URI={host}: {error.strerror or error}") from None
