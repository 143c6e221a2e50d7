"""Prefix language models: the image comes before the sentence.

One loss, the next token of a caption given the image and the words so far, teaches both parts at once:

    L = − Σ log p(wᵢ | image, w₁ … wᵢ₋₁)

No classes, no negatives, no boxes: a sentence says more about an image than a label does, so fewer images are needed
(VirTex), and a model that learns to continue any text after any image also answers questions (SimVLM).

Choose this family to learn an image encoder from a modest number of captioned images, or to pretrain a captioner of
your own from scratch.
"""
