"""Unified models: every task spoken as text.

An image's vectors are put in front of a prompt, and a language model writes the answer: a caption, a word, the four
location tokens of a box, the codes of a mask. One loss, next-token prediction on the answer, serves all tasks; what
the task is, the prompt says.

Choose this family for captions, questions, reading, detection and segmentation with one model that you can fine-tune
on whatever you can write down as text.
"""
