"""Prefix language models: the image as a prefix of the text.

One loss, next-token prediction on captions given the image, trains both parts:

    L = − Σ log p(wᵢ | image, w₁ … wᵢ₋₁)

No classes, no negatives, no boxes: a caption carries more information than a label, so fewer images are needed
(VirTex), and a model that learns to continue any text after any image also answers questions (SimVLM).

Choose this family to pretrain an image encoder on a modest number of captioned images, or your own captioner from
scratch.
"""
