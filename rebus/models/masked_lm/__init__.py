"""Masked language models with an image.

Text tokens and image regions form one sequence with full attention. A masked token is predicted from both sides and
from the image: log p(token | surrounding text, image). Such a network generates nothing; small heads on top predict an
answer from a list, whether text and image match, or the region of a phrase.

Choose this family for questions with a fixed answer list, for image-text matching where a dual encoder confuses who
does what, and for phrase grounding, if you have hours rather than weeks to train.
"""
