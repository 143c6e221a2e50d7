"""Knowledge distillation: a detector trained on the outputs of a dual encoder as well as on labels.

A dual encoder has an open vocabulary, but embeds whole images; a detector localises objects, but only of classes with
box annotations. ViLD distils the first into the second: the detector's embedding r of a region is trained to match the
dual encoder's embedding t of the cropped region, Σ‖r − t‖₁, and classified by the most similar text, softmax(r · texts
/ τ).

Choose this family for open-vocabulary detection and segmentation. It needs boxes of some classes, a pretrained dual
encoder, and training time; `rebus.models.training_free` needs none of these and is less accurate.
"""
