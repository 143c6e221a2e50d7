"""Images of a request: bytes, data URLs, base64, and web addresses where that is allowed."""

import base64
import binascii
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from PIL import Image

from rebus.codec.decode_image import decode, open_image
from rebus.data.downloading.addresses import Addresses
from rebus.data.downloading.failure import Failure
from rebus.data.downloading.fetching import Caps, fetch, parse
from rebus.serve.failures import Refusal
from rebus.serve.settings import ServeSettings

_DATA = re.compile(r"data:image/[\w.+-]{1,40};base64,", re.ASCII | re.IGNORECASE)
_FETCH_SECONDS = 20.0


@dataclass(frozen=True)
class AllowedHosts(Addresses):
    """Public addresses of hosts with these names alone; "*" is every name. Redirects are looked up here too."""

    names: tuple[str, ...] = ()

    def of(self, host: str, port: int) -> list[str]:
        if "*" not in self.names and host.lower() not in self.names:
            raise Failure("address", "this host is not allowed")
        return super().of(host, port)


def decoded(data: bytes) -> Image.Image:
    """Upright RGB. Raises `BadImage`, `LimitExceeded`, `MissingExtra`."""
    return open_image(data)


def small_copy(source: str | bytes, side: int, form: str) -> bytes:
    """A file of an image, upright, no side of which is longer. `source`: its path or bytes. Raises as `decoded`."""
    with decode(source, enough=lambda width, height: (2 * side, 2 * side)) as found:
        scale = min(1.0, side / max(found.full_size))
        width, height = (max(1, round(scale * whole)) for whole in found.full_size)
        small = found.image.resize((width, height), Image.Resampling.BOX if scale < 1 else None, box=found.box)
        buffer = io.BytesIO()
        found.upright(small).save(buffer, form, **({"quality": 90, "subsampling": 0} if form == "JPEG" else {}))
    return buffer.getvalue()


def bytes_of(source: str, settings: ServeSettings, allowed: AllowedHosts) -> bytes:
    """The file that a text of a request names or holds. Waits where it is fetched. Raises `Refusal`."""
    begins = source[:100].lstrip()
    if header := _DATA.match(begins):
        return _from_base64(source.lstrip()[header.end() :])
    scheme = begins.partition(":")[0].lower()
    if scheme in ("http", "https"):
        return _fetched(source, settings, allowed)
    if ":" in begins:
        raise Refusal(400, "an image is a data URL, data:image/…;base64,…, or base64 alone", "bad_image_url")
    return _from_base64(source)


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, "an image that is not base64", "bad_image_url") from None


def _fetched(url: str, settings: ServeSettings, allowed: AllowedHosts) -> bytes:
    if not allowed.names:
        raise Refusal(
            400, "web addresses are not fetched: send the image as a data URL (--allow-url HOST)", "url_not_allowed"
        )
    try:
        parse(url)
        caps = Caps(max_seconds=min(_FETCH_SECONDS, settings.timeout), max_bytes=settings.max_body)
        return fetch(url, caps, allowed)
    except Failure as failure:
        refused = failure.outcome in ("address", "bad_url", "unresolved")
        message = "this address is not allowed" if refused else "the image could not be fetched from its address"
        raise Refusal(400, message, "url_not_allowed" if refused else "fetch_failed") from None


def allowed_hosts(names: Sequence[str]) -> AllowedHosts:
    for name in names:
        if name != "*" and (urlsplit(f"//{name}").hostname or "") != name.lower():
            raise Refusal(400, "--allow-url expects the name of a host, or *", "invalid_value")
    return AllowedHosts(names=tuple(name.lower() for name in names))
