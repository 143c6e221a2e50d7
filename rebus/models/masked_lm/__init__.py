"""Masked language models with images: fill in the blank, with an image beside the text.

The words of a text and the regions of an image are one sequence in which every token sees every other. What stands at a
blank is predicted from both sides and from the image: log p(word | text around it, image). Such a network generates
nothing; it reads, and answers by small heads on top: which of the listed answers, does the text fit the image, which
region does a phrase mean.

Choose this family for questions with a known list of answers, for judging image and text together where a dual encoder
confuses who does what, and for grounding phrases, where you have hours rather than weeks to train.
"""
