"""Knowledge distillation: a network that learns from another network's answers as well as from labels.

A dual encoder knows millions of words, but sees an image whole; a detector sees things, but knows the words that
somebody drew boxes for. ViLD makes the one teach the other: the detector's embedding r of a region is pulled towards
the dual encoder's embedding of that region cut out, Σ‖r − t‖₁, and named by the nearest text, softmax(r · texts / τ).

Choose this family to find and outline things by any words, without boxes for those words. It needs boxes of some
classes, a trained dual encoder, and patience; `rebus.models.training_free` needs none of these and finds less.
"""
