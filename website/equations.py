"""`$$ … $$`, and `$ … $` on the same pages, as MathML: browsers draw it without scripts or fonts from elsewhere."""

import re

from latex2mathml.converter import convert


def with_equations(text: str) -> str:
    """A page with its equations converted. Code keeps its dollars, and so does a page without a `$$`."""
    if "\n$$\n" not in text:
        return text
    parts = re.split(r"(^```.*?^```[^\S\n]*$)", text, flags=re.M | re.S)
    return "".join(part if part.startswith("```") else _drawn(part) for part in parts)


def _drawn(text: str) -> str:
    def block(found: re.Match[str]) -> str:
        return f'\n<div class="equation">{convert(" ".join(found[1].split()), display="block")}</div>\n'

    def inline(found: re.Match[str]) -> str:
        return f'<span class="math">{convert(found[1])}</span>'  # or a paragraph that begins with it would end there

    text = re.sub(r"^\$\$(.+?)\$\$[^\S\n]*$", block, text, flags=re.M | re.S)
    return re.sub(r"(?<![\w$`])\$(?! )([^$\n]+)(?<! )\$(?![\w$])", inline, text)
