"""Training-free models: join two trained networks, learn nothing.

Two networks that never met can be made to understand each other through examples that both have seen. ASIF keeps a
table of images with captions; for a vector v, its description is r = unit(topk(A v)ᵖ) over the rows A of its own
side, and an image and a text go together as far as ⟨r_image, r_text⟩ says.

Choose this family when there is no time, no hardware or no permission to train: a model is ready when its pairs are
encoded, pairs can be taken out again without a trace, and each answer names the pairs it came from. Quality follows
the number of pairs (roughly with its logarithm) and the two encoders; trained dual-encoder models are better where
their data is available.

MAGIC joins a language model that never saw an image with a dual encoder that cannot write: of the k tokens that the
one finds most probable it takes the one with the best (1 - α)·p - α·similarity + β·f, where f says which of them makes
the text go best with the image. Choose it for captions where nothing may be trained, or of whatever a dual encoder of
your own knows.
"""
