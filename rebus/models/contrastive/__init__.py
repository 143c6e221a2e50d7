"""Contrastive models: two encoders, one space.

An image and a sentence are each turned into a unit vector, x and y, and training pulls the vectors of a pair
together and pushes all other combinations of the batch apart. CLIP asks "which of these texts?" with a softmax over
the batch; ALIGN asks the same of far more and noisier pairs; SigLIP asks "do these two belong together?" of every pair
alone, with a sigmoid. Class names turned into
sentences are then the weights of a classifier that nobody trained.

Choose this family for sorting, searching and zero-shot classification, and as the image encoders of other models. It
cannot write, and it sees an image as one vector: counting, reading and spatial relations are weak.
"""
