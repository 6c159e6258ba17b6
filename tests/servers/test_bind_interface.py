"""Which way a connection leaves a device with two networks: real interfaces, in network namespaces of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iot.sftp.client import ConfigurationError, IoTSFTPClient, LinkLost
from iot.sftp.client.ssh import dial

SERVER = "10.231.9.9"
PROGRAM = f"""
import socket
with socket.create_server(("{SERVER}", 2222)) as listener:
    print("ready", flush=True)
    while True:
        caller, address = listener.accept()
        print(address[0], flush=True)
        caller.close()
"""
SET_UP = """
ip link add near0 type veth peer name far0 netns {server}
ip link add near1 type veth peer name far1 netns {server}
ip address add 10.231.1.1/24 dev near0
ip address add 10.231.2.1/24 dev near1
ip link set near0 up
ip link set near1 up
nsenter -t {server} -n sh -ec '
    ip link set lo up
    ip address add 10.231.1.2/24 dev far0
    ip address add 10.231.2.2/24 dev far1
    ip address add {address}/32 dev lo
    ip link set far0 up
    ip link set far1 up'
ip route add {address} via 10.231.1.2 metric 1
ip route add {address} via 10.231.2.2 metric 2
"""


@contextlib.contextmanager
def namespace() -> Iterator[subprocess.Popen[bytes]]:
    """A network of its own, for as long as a process is in it."""
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"\n"
            yield holder
        finally:
            holder.kill()


@contextlib.contextmanager
def two_ways() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A device with two interfaces -> a process in its network; and a server that prints who calls."""
    with namespace() as device, namespace() as server:
        commands = SET_UP.format(server=server.pid, address=SERVER)
        subprocess.run(["nsenter", "-t", str(device.pid), "-n", "sh", "-ec", commands], check=True, timeout=30)
        words = ["nsenter", "-t", str(server.pid), "-n", sys.executable, "-c", PROGRAM]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as peer:
            try:
                assert peer.stdout is not None
                assert peer.stdout.readline() == "ready\n"
                yield device.pid, peer
            finally:
                peer.kill()


def called(device: int, peer: subprocess.Popen[str], folder: Path, *words: str) -> str:
    """The address that the server sees when the command line calls from the device."""
    program = [sys.executable, "-m", "iot.sftp.client.cli.main", "exists", f"sftp://me@{SERVER}:2222/f", *words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SFTP_")}
    environment |= {"SFTP_ATTEMPTS": "1", "SFTP_PASSWORD": "x", "SFTP_STATE_DIR": str(folder / "state")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = ["nsenter", "-t", str(device), "-n", *program]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 69, done.stderr  # it is no SSH server
    assert peer.stdout is not None
    return peer.stdout.readline().strip()


@pytest.mark.needs("root", "mounts")
def test_a_connection_leaves_by_the_interface_or_address_that_is_asked_for(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host *\n  BindInterface near1\n")
    with two_ways() as (device, peer):
        assert called(device, peer, tmp_path, "--ssh-config", "none") == "10.231.1.1"
        assert called(device, peer, tmp_path, "--ssh-config", "none", "--bind-interface", "near1") == "10.231.2.1"
        assert called(device, peer, tmp_path, "--ssh-config", "none", "--bind-address", "10.231.2.1") == "10.231.2.1"
        assert called(device, peer, tmp_path, "--ssh-config", str(config)) == "10.231.2.1"
        assert called(device, peer, tmp_path, "--ssh-config", str(config), "--bind-interface", "near0") == "10.231.1.1"


def test_an_interface_that_is_not_there_yet_is_named_and_may_come(tmp_path: Path) -> None:
    options = {"attempts": 1, "host_key": "SHA256:" + "A" * 43, "state_dir": tmp_path}
    client = IoTSFTPClient("127.0.0.1", 1, "me", "x", bind_interface="nowhere0", **options)
    with client, pytest.raises(LinkLost, match="interface 'nowhere0': No such device"):
        client.connect()


@pytest.mark.parametrize("name", ["", "with space", "x" * 16, "a/b"])
def test_what_is_no_name_of_an_interface_is_a_wrong_setting(name: str) -> None:
    with pytest.raises(ConfigurationError, match="bind_interface: must be the name of a network interface"):
        IoTSFTPClient("host", bind_interface=name)


def test_what_is_no_address_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigurationError, match="bind_address: 'eth0' does not appear to be an IPv4 or IPv6 address"):
        IoTSFTPClient("host", bind_address="eth0")


def test_a_kernel_that_leaves_it_to_root_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Forbidding(dial.socket.socket):
        def setsockopt(self, *arguments: object) -> None:
            if arguments[1] == dial.socket.SO_BINDTODEVICE:
                raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(dial.socket, "socket", Forbidding)
    options = {"attempts": 1, "host_key": "SHA256:" + "A" * 43, "state_dir": tmp_path}
    client = IoTSFTPClient("127.0.0.1", 1, "me", "x", bind_interface="lo", **options)
    with client, pytest.raises(ConfigurationError, match=r"before Linux 5\.7 only root"):
        client.connect()
