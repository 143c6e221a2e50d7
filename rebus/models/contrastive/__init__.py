"""Contrastive models: dual encoders with a shared embedding space.

An image and a text are each embedded as a unit vector, and training increases the similarity of matching pairs and
decreases that of all others in the batch. CLIP uses a softmax over the batch; ALIGN the same with far more and noisier
pairs; SigLIP a sigmoid on each pair independently. The text embeddings of class names in a prompt template are then the
weights of a zero-shot classifier.

Choose this family for search and zero-shot classification, and as the image encoder of other models. It cannot generate
text, and it represents an image by one vector: counting, reading and spatial relations are weak.
"""
