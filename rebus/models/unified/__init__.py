"""Unified models: every task as text generation.

Image features are prepended to a prompt, and a language model generates the answer: a caption, a word, the four
location tokens of a box, the codes of a mask. All tasks share one loss, next-token prediction on the answer; the prompt
selects the task.

Choose this family for captions, questions, OCR, detection and segmentation with one model that you can fine-tune on
anything that can be expressed as text.
"""
