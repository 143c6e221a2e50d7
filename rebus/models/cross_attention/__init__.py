"""Cross-attention: the language model looks up at each word.

The image never enters the sequence. Every block of a decoder, after it has attended to the words before, attends to
what an encoder made of the image, and a gate decides, for each number of the state, how much is taken from there:

    state = gate · language + (1 − gate) · image

Choose this family to make a captioner of a trained language model with little paired data: the language model keeps
what it knows, and the length of its sequence does not grow with the image.
"""
