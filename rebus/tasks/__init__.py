"""What a model can be asked to do: images and text in, typed answers out. One file for each verb.

    embed.py     embed_images, embed_texts    unit vectors
    match.py     match                        how alike, every image with every text
    classify.py  classify                     labels with probabilities, by two towers or by a writer's likelihood
    prompts.py   the published sets of sentences into which CLIP puts a label
    caption.py   caption                      a sentence about an image
    ask.py       ask                          an answer to a question about it
    detect.py    detect                       boxes
    segment.py   segment                      masks
    stream.py    stream                       caption and ask, piece by piece

A task takes one item or a list and answers in kind; a row's answer is the same in any batch. Tasks know no model:
they ask a network for capabilities (`rebus.core.capabilities`) and a system for its words (`Prompts`).
"""
