"""The processes of a distributed run, as the DMLC_* variables of MXNet's parameter server describe them."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from bertsym.errors import UsageError

ROLES = ("scheduler", "server", "worker")
_REQUIRED = ("DMLC_ROLE", "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT", "DMLC_NUM_WORKER", "DMLC_NUM_SERVER")
_HELP = "see docs/how-to/several-machines.md; on one machine scripts/launch_local sets them"


@dataclass(frozen=True)
class Cluster:
    """The role of this process, the address of the scheduler, and the numbers of workers and servers."""

    role: str  #: one of ROLES
    host: str  #: of the scheduler
    port: int  #: of the scheduler; the next port is used for liveness messages
    workers: int
    servers: int
    worker_id: int | None = None  #: the rank that this worker requests

    @property
    def liveness_port(self) -> int:
        """Port on which the scheduler receives liveness messages."""
        return self.port + 1

    @property
    def bound_host(self) -> str:
        """Address on which the scheduler listens, as MXNet's own does; empty for all interfaces."""
        return "" if os.environ.get("DMLC_USE_KUBERNETES", "0") != "0" else self.host

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Cluster:
        """Read and check the variables; raises UsageError that names a missing or wrong one."""
        missing = [name for name in _REQUIRED if not environment.get(name)]
        if missing:
            raise UsageError(f"--kvstore dist_sync requires the environment variables {', '.join(missing)}: {_HELP}")
        role = environment["DMLC_ROLE"]
        if role not in ROLES:
            raise UsageError(f"DMLC_ROLE must be one of {', '.join(ROLES)}, not {role!r}")
        workers = _read_number(environment, "DMLC_NUM_WORKER", 1, 1 << 16)
        cluster = cls(
            role,
            environment["DMLC_PS_ROOT_URI"],
            _read_number(environment, "DMLC_PS_ROOT_PORT", 1, 65534),
            workers,
            _read_number(environment, "DMLC_NUM_SERVER", 1, 1 << 16),
            _read_number(environment, "DMLC_WORKER_ID", 0, workers - 1) if environment.get("DMLC_WORKER_ID") else None,
        )
        _check_interface(cluster.host, environment)
        if role == "scheduler" and cluster.bound_host:
            # MXNet can connect to a host name, but it can only listen on an address.
            os.environ["DMLC_PS_ROOT_URI"] = _address(cluster.host)
        return cluster


def _read_number(environment: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = environment[name]
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise UsageError(f"{name} must be a number from {least} to {most}, not {text!r}")
    return int(text)


def _check_interface(host: str, environment: Mapping[str, str]) -> None:
    """Require an explicit interface unless the scheduler is on the loopback, and set that one.

    By default MXNet listens on the machine's external interface, whatever the address of the scheduler is.
    """
    available = [name for _, name in socket.if_nameindex()]
    interface = environment.get("DMLC_INTERFACE")
    if interface and interface not in available:
        raise UsageError(
            f"DMLC_INTERFACE must be an interface of this machine ({', '.join(available)}), not {interface!r}"
        )
    if interface or environment.get("DMLC_NODE_HOST"):
        return
    if not _is_loopback(host):
        raise UsageError(
            f"DMLC_PS_ROOT_URI={host} is not a loopback address: set DMLC_INTERFACE to the interface of a trusted "
            f"network ({', '.join(available)}), because every host on that network can join the run"
        )
    os.environ["DMLC_INTERFACE"] = next(name for name in available if name.startswith("lo"))


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
