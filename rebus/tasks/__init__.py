"""The tasks: images and text in, typed answers out. One file per task.

    embed.py     embed_images, embed_texts    unit vectors
    match.py     match                        how alike, every image with every text
    classify.py  classify                     labels with probabilities, by embeddings or by likelihood
    prompts.py   the published sets of sentences into which CLIP puts a label
    caption.py   caption                      a sentence about an image
    ask.py       ask                          an answer to a question about it, generated or picked from a list
    detect.py    detect                       boxes, by location tokens or by a network that finds regions
    segment.py   segment                      masks, likewise
    read.py      read                         lines of writing, with their corners
    perform.py   perform                      a task by the name that its release gives it
    complete.py  complete                     what follows a document of text and images in turn
    imagine.py   imagine                      an image of what a prompt describes
    stream.py    stream                       caption, ask and complete, piece by piece
    abilities.py which of these a system can do

A task takes one item or a list and answers in kind; a row's answer is the same in any batch, but for the rounding of
what is computed in half precision. Tasks know no model: they ask a network for capabilities (`rebus.core.capabilities`)
and a system for what it declares: its prompts, how its text states places and images, its companions, its default
decoding (`rebus.core.system`).
"""
