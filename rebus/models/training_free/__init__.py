"""Training-free models: combine two pretrained networks.

Two independently trained encoders can be aligned by a set of paired examples, the anchors. ASIF keeps a table of
captioned images; the relative representation of a vector v is r = unit(topk(A v)ᵖ) over the anchor embeddings A of its
modality, and the similarity of an image and a text is ⟨r_image, r_text⟩.

Choose this family when there is no time, hardware or permission to train: a model is ready once its pairs are encoded,
pairs can be removed without a trace, and each score can be attributed to pairs. Quality depends on the number of pairs
(roughly on its logarithm) and on the two encoders; a dual encoder trained on the same data is better.

MAGIC guides a text-only language model by a dual encoder: of its k most probable tokens it takes the one with the
highest (1 - α)·p - α·similarity + β·f, where f is the image-text similarity of the text with that token. Choose it for
captions without training, or for the domain of your own dual encoder.
"""
