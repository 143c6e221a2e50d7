"""Why an image did not come. Every row of a download ends in one of these outcomes, or in "ok"."""

# outcome → what it means; "http_404" and the like stand for themselves
OUTCOMES = {
    "ok": "in a shard",
    "same_url": "an earlier row has the same URL",
    "same_image": "another row brought the same image",
    "bad_url": "not an http or https URL, or one with a password",
    "bad_row": "the row cannot be read from the table",
    "address": "leads to an address that is not public",
    "unresolved": "no such host",
    "unreachable": "no connection, or it broke",
    "tls": "the certificate is not that of the host",
    "timeout": "no answer in time",
    "slow": "the answer took longer than allowed",
    "redirects": "sent on too often, or nowhere",
    "too_large": "more bytes than allowed",
    "cut_short": "fewer bytes than announced",
    "encoded": "compressed, though that was not asked for",
    "broken": "no proper HTTP",
    "opted_out": "the site does not want its images used so (X-Robots-Tag)",
    "no_image": "something else than an image",
    "damaged": "an image that cannot be read to its end",
    "annotations": "its boxes are damaged, or for an image of another aspect",
    "limit": "an image above a limit of size",
    "no_decoder": "a format whose decoder is not installed",
}
# Those that say more about the network here than about the image
OFFLINE = frozenset({"unresolved", "unreachable", "timeout"})


class Failure(Exception):
    """`again`: another try may help, not before `after` seconds."""

    def __init__(self, outcome: str, why: str, *, again: bool = False, after: float = 0):
        super().__init__(why)
        self.outcome, self.why, self.again, self.after = outcome, why, again, after
