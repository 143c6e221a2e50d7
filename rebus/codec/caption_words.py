"""Captions as the words that the COCO evaluation counts.

Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server", 2015.
"""

import re

STRAIGHT = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": " -- ", "—": " -- ", "…": " ... "})
# The evaluation drops a bracket spelt -LRB- but lower-cases the words first, so that it drops none: they stay.
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
# Exactly one mark: "!!!" is one word to that evaluation, and stays.
MARK = re.compile(r"""['"`.?!,:;]|-+|\.+""")
SHORTENED = (
    "mr mrs ms dr jr sr st ave blvd rd mt ft co corp inc ltd etc vs ph.d gov gen sen rep col capt lt sgt prof rev "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri"
)
# Earlier rows win. A row that looks ahead leaves the rest of the word to the next match.
PIECE = re.compile(
    rf"""
      https?://\S+ | www\.\S+
    | (?: [a-z]\. )+ (?! \w )                                           # p.m., u.s.
    | (?: {"|".join(re.escape(word) for word in SHORTENED.split())} )\. (?! \w )
    | no\. (?= \s*\d )
    | can (?= not\b ) | (?: gon | wan ) (?= na\b ) | got (?= ta\b ) | (?: gim | lem ) (?= me\b )
    | 't (?= (?: is | was )\b ) | y' (?= all\b )
    | '(?: s | m | d | re | ve | ll )\b | n't\b                         # the second halves of it's, don't
    | '(?: n'? | em | cause | \d0s )(?! \w )
    | [a-z]+? (?= n't\b )                                               # the first half of don't
    | (?: [dlo]'[a-z]{{2,}} | ma'am )\b                                 # o'clock
    | \d+ (?: [.,:]\d+ )+ (?: -[^\W_]+ )* | \.\d+
    | [^\W\d_]+ (?: [.?!][^\W\d_]+ )+                                   # two sentences without a space
    | (?: [@#](?= [^\W\d_] ) )? [^\W_]+ (?: [-/][^\W_]+ )*              # t-shirt, red/white
    | [!?]+ | -+ | \.+ | \S
    """,
    re.VERBOSE,
)


def words(text: str) -> str:
    """Lower-case words of a caption, separated by single spaces and without punctuation.

    Stands in for the Stanford PTB tokenizer, which needs Java: splits "it's" into it 's, "don't" into do n't and
    "cannot" into can not, keeps "t-shirt" and "p.m." whole, and drops the marks that the COCO evaluation drops.
    It can differ for e-mail addresses, smileys, tags, currencies other than the dollar, fractions written as one
    character, rare abbreviations and contractions, and other languages than English. Where a published number is to
    be repeated to the last digit, tokenise with the original.
    """
    pieces = PIECE.findall(text.lower().translate(STRAIGHT))
    return " ".join(BRACKETS.get(piece, piece) for piece in pieces if not MARK.fullmatch(piece))
