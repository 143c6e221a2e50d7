"""Knowledge distillation: a network that learns from another network's answers as well as from labels.

A dual encoder knows millions of words but sees an image whole; a detector sees things but knows the words that somebody
drew boxes for. The simplest way to join them needs no training: cut out the detector's boxes and let the dual encoder
name each (`crops.py`). It costs a run of the image encoder a region.
"""
