"""Which addresses are public, and that a host is resolved once and asked nowhere else."""

import socket

import pytest

from rebus.data.downloading.addresses import Addresses, is_public
from rebus.data.downloading.failure import Failure


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "198.18.0.1",
        "203.0.113.9",
        "192.88.99.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "100::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_fault_11_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_public(address):
    assert is_public(address)


def resolving(monkeypatch, *addresses):
    asked = []

    def resolve(host, port, **options):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


def test_fault_11_one_private_address_among_public_ones_is_enough(monkeypatch):
    resolving(monkeypatch, "1.1.1.1", "10.0.0.1")
    with pytest.raises(Failure, match=r"a\.example is 10\.0\.0\.1, which is not a public address") as caught:
        Addresses().of("a.example", 80)
    assert caught.value.outcome == "address"
    assert not caught.value.again


def test_what_is_allowed_is_one_address_with_its_port(monkeypatch):
    resolving(monkeypatch, "127.0.0.1")
    allowed = Addresses(allow=("127.0.0.1:8080",))
    assert allowed.of("localhost", 8080) == ["127.0.0.1"]
    with pytest.raises(Failure):
        allowed.of("localhost", 8081)
    assert Addresses(private=True).of("localhost", 22) == ["127.0.0.1"]


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1"])
def test_fault_11_odd_ways_to_write_this_machine(host):
    with pytest.raises(Failure) as caught:
        Addresses().of(host, 80)
    assert caught.value.outcome in ("address", "unresolved")


def test_a_name_that_does_not_exist(monkeypatch):
    def resolve(*args, **options):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(Failure, match="Temporary failure") as caught:
        Addresses().of("a.example", 80)
    assert (caught.value.outcome, caught.value.again) == ("unresolved", True)
