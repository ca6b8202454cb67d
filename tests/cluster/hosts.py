"""Hosts for Ray nodes: network namespaces with addresses of their own where this is allowed, else this machine."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.ray_nodes import THIS_HOST, Host

_LOOK_S = 10


@dataclass(frozen=True)
class Network:
    """Some hosts, and this machine beside them.

    Attributes:
        address: of this machine, as the hosts see it.
        hosts: they reach each other and this machine, nothing else.
        separate: whether they are network namespaces.
    """

    address: str
    hosts: tuple[Host, ...]
    separate: bool

    @property
    def environment(self) -> dict[str, str]:
        """Variables for nodes: gloo would take the address that the name of the machine stands for, here 127.0.0.1."""
        return {"GLOO_SOCKET_IFNAME": "eth0"} if self.separate else {}


@contextmanager
def network(num_hosts: int) -> Iterator[Network]:
    """A network of so many hosts; nothing of it is left afterwards."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        yield Network(THIS_HOST.address, (THIS_HOST,) * num_hosts, separate=False)
        return
    mark = f"{random.getrandbits(20):05x}"
    subnet = f"10.{random.randrange(64, 128)}.{random.randrange(256)}"
    bridge, names = f"ecg{mark}", [f"ecg{mark}-{number}" for number in range(num_hosts)]
    made = Network(
        f"{subnet}.1",
        tuple(
            Host(f"{subnet}.{10 + number}", ("ip", "netns", "exec", name))
            for number, name in enumerate(names)
        ),
        separate=True,
    )
    try:
        try:
            _make(bridge, names, made)
        except subprocess.CalledProcessError:  # a container whose root may not
            made = Network(THIS_HOST.address, (THIS_HOST,) * num_hosts, separate=False)
        yield made
    finally:
        for number, name in enumerate(names):
            _ip("link", "del", f"{bridge}v{number}", check=False)
            _ip("netns", "del", name, check=False)
        _ip("link", "del", bridge, check=False)


def _make(bridge: str, names: list[str], made: Network) -> None:
    _ip("link", "add", bridge, "type", "bridge")
    _ip("addr", "add", f"{made.address}/24", "dev", bridge)
    _ip("link", "set", bridge, "up")
    for number, (name, host) in enumerate(zip(names, made.hosts, strict=True)):
        _ip("netns", "add", name)
        _ip("link", "add", f"{bridge}v{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", f"{bridge}v{number}", "master", bridge, "up")
        _ip("-n", name, "addr", "add", f"{host.address}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "link", "set", "lo", "up")
    _check_reach(made)


def _check_reach(made: Network) -> None:
    """Packets may be dropped on the way by the rules of this machine."""
    first, last = made.hosts[0], made.hosts[-1]
    listen = "import socket; s = socket.create_server(('0.0.0.0', 9999)); print(flush=True); s.accept()"
    ask = f"import socket; socket.create_connection(('{last.address}', 9999), {_LOOK_S})"
    listener = subprocess.Popen([*last.prefix, sys.executable, "-c", listen], stdout=subprocess.PIPE)
    try:
        assert listener.stdout is not None
        listener.stdout.readline()
        subprocess.run([*first.prefix, sys.executable, "-c", ask], check=True, capture_output=True)
    finally:
        listener.kill()
        listener.wait()


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)
