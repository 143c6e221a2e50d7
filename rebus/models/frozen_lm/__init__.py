"""Frozen language models that learn to look.

A language model and an image encoder, both trained alone, stay as they are. Between the blocks of the one come new
blocks that look at what the other saw, each behind a gate that begins closed:

    x ← x + tanh(gate) · attention(x, image)

So training starts from the language model itself, and whatever it can do with text it can do with text and images in
turn: examples in the prompt, documents, dialogues.

Choose this family for tasks that a few examples in the prompt define, and where the language model must not forget.
"""
