"""Which machines may be asked: public ones, by the address that is then really used.

A web address from a stranger's table may lead to this machine, to its neighbours or to a cloud's secrets. So a name is
resolved once, every address that it has must be public, and the connection is made to such an address, not to the name.
"""

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from rebus.data.downloading.failure import Failure

_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_GLOBAL = ip_network("2000::/3")  # RFC 4291: all of IPv6 that was given out
# Not in every version of Python's own lists
_NOT_PUBLIC = (
    ip_network("192.0.0.0/24"),  # RFC 6890: protocols
    ip_network("192.88.99.0/24"),  # RFC 7526: relays of 6to4
    ip_network("2001::/23"),  # RFC 2928: protocols, Teredo among them
    ip_network("3fff::/20"),  # RFC 9637: examples
)


@dataclass(frozen=True)
class Addresses:
    """What may be connected to: public addresses, and those of `allow` ("10.0.0.7:8080", "[fd00::7]:443").

    `private`: any address may; for private networks.
    """

    allow: tuple[str, ...] = ()
    private: bool = False

    def of(self, host: str, port: int) -> list[str]:
        """The addresses of a host, in the system's order of preference.

        Raises `Failure`: "address" when one of them is not allowed, "unresolved" when there are none.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            again = error.errno == socket.EAI_AGAIN
            raise Failure("unresolved", f"{host}: {error.strerror}", again=again) from None
        except (UnicodeError, ValueError):
            raise Failure("bad_url", f"{host!r} is not the name of a host") from None
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        for address in addresses:
            if not self._allowed(address, port):
                raise Failure("address", f"{host} is {address}, which is not a public address")
        return addresses

    def _allowed(self, address: str, port: int) -> bool:
        written = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        return self.private or written in self.allow or is_public(address)


def is_public(address: str) -> bool:
    """Whether an address can only be a machine of the open internet, whatever is wrapped in it."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        inner = _wrapped(ip)
        if ip.scope_id is not None or (inner is not None and not is_public(str(inner))):
            return False
        if ip.ipv4_mapped is not None or ip in _NAT64:
            return True  # what is wrapped is public
        if ip not in _GLOBAL:
            return False
    named = (
        ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_reserved or ip.is_multicast or ip.is_unspecified
    )
    listed = any(ip in network for network in _NOT_PUBLIC if network.version == ip.version)
    return ip.is_global and not named and not listed


def _wrapped(ip: IPv6Address) -> IPv4Address | None:
    """The IPv4 address inside: mapped, 6to4, NAT64."""
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour
