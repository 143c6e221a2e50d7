"""Blocks: tensors in, tensors out. Each file is one idea and reads alone.

attention   queries ask keys, and mix the values        masks      who may look at whom: one rule for every pattern
rope        positions as rotations                      cache      what a decoder has seen, at a fixed size
norms       LayerNorm, RMSNorm, frozen BatchNorm        mlp        the position-wise half of a block
block       attention + MLP                             pooling    many tokens → one vector
positions   learned tables and how they are resized     patches    images as rows of patches
linear      where bfloat16 is slow; joined layers       embedding  a table of words that reads both ways
int8        linear layers in 8-bit integers             blocks     what is sharded, split, recomputed one by one
decoder     blocks that also look at an encoder         batch_norm statistics over ranks and parts of a batch
"""

from rebus.core.machine import avoid_broken_amx

avoid_broken_amx()
