"""An answer about an image as a file next to it: plain text, JSON, or XMP, which photo managers read."""

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from rebus.core.strict_json import to_json

SIDECARS = ("txt", "xmp", "json")
_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
{properties}
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""
_DESCRIPTION = '   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt></dc:description>'
_SUBJECT = "   <dc:subject><rdf:Bag>{}</rdf:Bag></dc:subject>"


def sidecar(row: Mapping[str, Any], kind: str) -> bytes:
    """The file of one answer, a row of the JSON document, as `kind` of `SIDECARS`.

    Text and XMP hold a caption, an answer or recognised text (`dc:description`), or the labels (`dc:subject`).
    """
    if kind == "json":
        return (to_json(row, indent=2) + "\n").encode("ascii")
    text, labels = _text(row), _labels(row)
    if kind == "txt":
        return ("\n".join(labels if text is None else [text]) + "\n").encode("utf-8", "replace")
    properties = [] if text is None else [_DESCRIPTION.format(_xml(text))]
    if labels:
        properties.append(_SUBJECT.format("".join(f"<rdf:li>{_xml(label)}</rdf:li>" for label in labels)))
    return _XMP.format(properties="\n".join(properties)).encode("utf-8", "replace")


def _text(row: Mapping[str, Any]) -> str | None:
    if "lines" in row:
        return "\n".join(line["text"] for line in row["lines"])
    found: str | None = row.get("caption", row.get("answer"))
    return found


def _labels(row: Mapping[str, Any]) -> list[str]:
    if "label" in row:
        return [row["label"]]
    return list(dict.fromkeys(one["label"] for one in row.get("boxes", row.get("masks", ()))))


def _xml(text: str) -> str:
    """Escaped, without the characters that XML has not."""
    return escape("".join(c for c in text if c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff")))
