"""Images, words and boxes ⇄ tensors and tokens, exact to the released checkpoints."""
