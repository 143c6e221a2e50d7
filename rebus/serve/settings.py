"""What a server may do and how much of it: the options of `rebus serve`."""

import hmac
from dataclasses import dataclass
from ipaddress import ip_address

from rebus.core.errors import UsageError

NAMES_OF_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """`allow_host`: names, beside those of loopback and `host`, by which clients may call the server. `allow_url`:
    hosts of which images may be fetched, "*" for every public one. `timeout`: seconds for a body to come, and for an
    answer. Raises `UsageError` for what would leave the server open to everybody."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    allow_host: tuple[str, ...] = ()
    allow_url: tuple[str, ...] = ()
    max_batch: int = 32
    max_queue: int = 256
    max_body: int = 32_000_000
    max_images: int = 64
    timeout: float = 120.0

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.api_key:
            raise UsageError(
                f"{self.host} is reached from other machines: give a key that clients must send, --api-key-file FILE, "
                "or stay with --host 127.0.0.1"
            )
        if self.api_key is not None and len(self.api_key) < 16:
            raise UsageError(f"the key has {len(self.api_key)} characters; 16 at least, so that nobody guesses it")

    def is_key(self, given: str) -> bool:
        """Compared in constant time."""
        return self.api_key is None or hmac.compare_digest(given.encode(), self.api_key.encode())

    def is_host(self, name: str) -> bool:
        """Whether this server may be called by that name. A page of another site cannot reach an address by its own
        name for it (DNS rebinding); beyond loopback an address is never a page's own name, so that any will do."""
        if name in (*NAMES_OF_LOOPBACK, self.host, *self.allow_host):
            return True
        return not is_loopback(self.host) and _is_address(name)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    return _is_address(host) and ip_address(host).is_loopback


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
