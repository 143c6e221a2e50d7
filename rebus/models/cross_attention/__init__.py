"""Cross-attention: a language model that attends to the image.

The image is not part of the token sequence. Every block of a decoder, after its self-attention, cross-attends to image
features, and an elementwise gate mixes the two:

    state = gate · language + (1 − gate) · image

Choose this family to turn a pretrained language model into a captioner with little paired data: the language model
keeps its knowledge, and its sequence does not grow with the image.
"""
