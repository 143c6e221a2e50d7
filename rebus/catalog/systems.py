"""Every system and every backbone, as the catalogue knows them without importing one."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SystemRow:
    """What the catalogue knows of a system without importing it."""

    module: str  # the file that says everything else about it
    model_types: tuple[str, ...]  # of `config.json`, by which its checkpoints are recognised
    family: str = "backbones"
    tasks: frozenset[str] = frozenset()
    idea: str = ""
    paper: str = ""
    score: str = ""  # what the numbers beside its answers mean
    limits: str = ""  # what it is known to do badly, whoever trained it


_DUAL_ENCODER = frozenset({"embed_images", "embed_texts", "match", "classify"})

SYSTEMS = {
    "clip": SystemRow(
        module="rebus.models.contrastive.clip",
        model_types=("clip",),
        family="contrastive",
        tasks=_DUAL_ENCODER,
        idea="a dual encoder with a softmax loss over the batch",
        paper="Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021",
        score="match: cosine similarity, to be compared within one model alone; probabilities: a softmax over the "
        "labels given, which add to 1 even where none is right",
        limits="English; weak at counting, fine-grained kinds and who does what to whom; the model card of the "
        "original weights puts untested deployment out of scope",
    ),
    "siglip": SystemRow(
        module="rebus.models.contrastive.siglip",
        model_types=("siglip", "siglip2"),
        family="contrastive",
        tasks=_DUAL_ENCODER,
        idea="a dual encoder with a sigmoid loss on each pair",
        paper="Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023",
        score="match: cosine similarity; probabilities: a sigmoid of each pair independently, which may all be low; "
        "classify: a softmax over the labels given",
        limits="texts of at most 64 tokens; weak at counting and at who does what to whom; English but for the "
        "multilingual checkpoints",
    ),
    "align": SystemRow(
        module="rebus.models.contrastive.align",
        model_types=("align",),
        family="contrastive",
        tasks=_DUAL_ENCODER,
        idea="a dual encoder with a softmax loss, on noisy pairs at large scale",
        paper="Jia et al., Scaling Up Visual and Vision-Language Representation Learning With Noisy Text Supervision, "
        "2021",
        score="match: cosine similarity, to be compared within one model alone; probabilities: a softmax over the "
        "labels given, which add to 1 even where none is right",
        limits="English; weak at counting and at who does what to whom",
    ),
    "vild": SystemRow(
        module="rebus.models.distillation.vild",
        model_types=("vild",),
        family="distillation",
        tasks=frozenset({"embed_texts", "embed_regions", "detect", "segment"}),
        idea="an open-vocabulary detector whose region embeddings are distilled from a dual encoder",
        paper="Gu et al., Open-vocabulary Object Detection via Vision and Language Knowledge Distillation, 2022",
        score="detect, segment: a probability over the labels given and the background, which ranks boxes and "
        "changes with the labels",
        limits="labels decide what is found: leave one out and its things go to another; small things are missed "
        "at low resolution",
    ),
    "lit": SystemRow(
        module="rebus.models.contrastive.lit",
        model_types=("lit",),
        family="contrastive",
        tasks=_DUAL_ENCODER,
        idea="a text encoder trained into the embedding space of a frozen image encoder",
        paper="Zhai et al., LiT: Zero-Shot Transfer with Locked-image text Tuning, 2022",
        score="match: cosine similarity, to be compared within one model alone; probabilities: a softmax over the "
        "labels given, which add to 1 even where none is right",
        limits="knows of images what its locked encoder learned, and no more",
    ),
    "paligemma": SystemRow(
        module="rebus.models.unified.paligemma",
        model_types=("paligemma",),
        family="unified",
        tasks=frozenset({"caption", "ask", "classify", "detect", "segment", "stream"}),
        idea="SigLIP's image encoder, one linear layer, and Gemma as decoder; boxes and masks are tokens too",
        paper="Beyer et al., PaliGemma: A versatile 3B VLM for transfer, 2024",
        score="classify: likelihoods of the labels as text, made to add to 1; boxes and masks: the likelihood of "
        "their location tokens, which ranks those of one image",
        limits="mix answers short prompts in English; pt answers nothing until it is fine-tuned; counts of more "
        "than a few are unsure",
    ),
    "pali3": SystemRow(
        module="rebus.models.unified.pali3",
        model_types=("pali3",),
        family="unified",
        tasks=frozenset({"caption", "ask", "classify", "detect", "stream"}),
        idea="a large contrastive image encoder, one linear layer, and a T5 that generates the answer",
        paper="Chen et al., PaLI-3 Vision Language Models: Smaller, Faster, Stronger, 2023",
        score="classify: likelihoods of the labels as text, made to add to 1; boxes and masks: the likelihood of "
        "their location tokens, which ranks those of one image",
        limits="no weights were released but those in this package, which know synthetic shapes only",
    ),
    "florence2": SystemRow(
        module="rebus.models.unified.florence2",
        model_types=("florence2",),
        family="unified",
        tasks=frozenset({"caption", "classify", "detect", "segment", "read", "perform", "stream"}),
        idea="an image encoder and a BART: tasks are prompts, answers are text with location tokens",
        paper="Xiao et al., Florence-2: Advancing a Unified Representation for a Variety of Vision Tasks, 2024",
        score="classify: likelihoods of the labels as text, made to add to 1; boxes and masks: the likelihood of "
        "their location tokens, which ranks those of one image",
        limits="fixed task prompts, no free questions; English; long texts in an image lose lines",
    ),
    "visualbert": SystemRow(
        module="rebus.models.masked_lm.visualbert",
        model_types=("visual_bert",),
        family="masked_lm",
        tasks=frozenset({"match", "ask", "detect"}),
        idea="one BERT over text tokens and image regions, trained with masked language modelling and image-text "
        "matching",
        paper="Li et al., VisualBERT: A Simple and Performant Baseline for Vision and Language, 2019",
        score="match: the probability that text and image belong together; ask: the likeliest answer of its list, "
        "without a score",
        limits="reads regions of the detector that it was trained with, not images; answers come from a list of 3,129",
    ),
    "visualgpt": SystemRow(
        module="rebus.models.cross_attention.visualgpt",
        model_types=("visualgpt",),
        family="cross_attention",
        tasks=frozenset({"caption", "stream"}),
        idea="GPT-2 with cross-attention to image regions in every block; gates balance image and language",
        paper="Chen et al., VisualGPT: Data-efficient Adaptation of Pretrained Language Models for Image Captioning, "
        "2022",
        score="caption: none",
        limits="one kind of caption in English; names things that usually stand together (hallucination)",
    ),
    "flamingo": SystemRow(
        module="rebus.models.frozen_lm.flamingo_layouts",
        model_types=("flamingo", "idefics"),
        family="frozen_lm",
        tasks=frozenset({"caption", "ask", "classify", "complete", "stream"}),
        idea="a frozen language model with gated cross-attention to images, which learns new tasks from examples in "
        "the prompt",
        paper="Alayrac et al., Flamingo: a Visual Language Model for Few-Shot Learning, 2022",
        score="classify: likelihoods of the labels as text, made to add to 1; answers: none",
        limits="answers in the style of the examples in the prompt, their mistakes included; may go on beyond the "
        "answer",
    ),
    "chameleon": SystemRow(
        module="rebus.models.early_fusion.chameleon",
        model_types=("chameleon",),
        family="early_fusion",
        tasks=frozenset({"caption", "ask", "classify", "complete", "imagine", "stream"}),
        idea="image and text tokens in one sequence: one decoder reads and generates both, in any order",
        paper="Chameleon Team, Chameleon: Mixed-Modal Early-Fusion Foundation Models, 2024",
        score="classify: likelihoods of the labels as text, made to add to 1; answers: none",
        limits="images of 512 pixels as 1,024 tokens: small writing is lost; released without image generation",
    ),
    "simvlm": SystemRow(
        module="rebus.models.prefix_lm.simvlm",
        model_types=("simvlm",),
        family="prefix_lm",
        tasks=frozenset({"caption", "ask", "classify", "complete", "stream"}),
        idea="an encoder-decoder with one loss: image and text prefix are encoded, the rest is generated",
        paper="Wang et al., SimVLM: Simple Visual Language Model Pretraining with Weak Supervision, 2021",
        score="classify: likelihoods of the labels as text, made to add to 1; answers: none",
        limits="no weights were released but those in this package, which know synthetic shapes only",
    ),
    "virtex": SystemRow(
        module="rebus.models.prefix_lm.virtex",
        model_types=("virtex",),
        family="prefix_lm",
        tasks=frozenset({"caption", "stream"}),
        idea="an image encoder pretrained by captioning, left to right and right to left",
        paper="Desai & Johnson, VirTex: Learning Visual Representations from Textual Annotations, 2021",
        score="caption: none",
        limits="made to train an image encoder: its captions are short and plain",
    ),
    "magic": SystemRow(
        module="rebus.models.training_free.magic",
        model_types=("magic",),
        family="training_free",
        tasks=frozenset({"caption", "complete", "stream"}),
        idea="no training: a text-only language model proposes tokens, a dual encoder ranks them by their similarity "
        "to the image",
        paper="Su et al., Language Models Can See: Plugging Visual Controls in Text Generation, 2022",
        score="caption: none; the guide's similarity chooses tokens and is not reported",
        limits="fluent before faithful: says what captions usually say, details may be invented",
    ),
    "asif": SystemRow(
        module="rebus.models.training_free.asif",
        model_types=("asif",),
        family="training_free",
        tasks=_DUAL_ENCODER,
        idea="no training: an image is represented by its similarities to captioned images, a text by its similarities "
        "to their captions, and the two representations are compared",
        paper="Norelli et al., ASIF: Coupled Data Turns Unimodal Models to Multimodal Without Training, 2023",
        score="match: similarity of two descriptions by anchors, to be compared within one set of anchors; "
        "probabilities: a softmax over the labels given",
        limits="knows what its anchors show; memory grows with their number",
    ),
    "crops": SystemRow(
        module="rebus.models.distillation.crops",
        model_types=("crops",),
        family="distillation",
        tasks=frozenset({"detect", "embed_texts"}),
        idea="no training: class-agnostic boxes of a detector, and a dual encoder that compares each crop with any "
        "labels",
        paper="Gu et al., Open-vocabulary Object Detection via Vision and Language Knowledge Distillation, 2022",
        score="detect: similarity of a region and a label, made a probability over the labels given; ranks boxes "
        "of one image",
        limits="finds only what the detector of boxes proposes; the parts of a thing may be found instead of it",
    ),
}
BACKBONES = {  # networks of one input with checkpoints of their own: what a training can start from
    "vit": SystemRow(
        module="rebus.backbones.vision.vit_layouts",
        model_types=("clip_vision_model", "siglip_vision_model"),
        tasks=frozenset({"embed_regions"}),
    ),
    "resnet": SystemRow(module="rebus.backbones.vision.resnet", model_types=(), tasks=frozenset({"embed_regions"})),
    "davit": SystemRow(module="rebus.backbones.vision.davit", model_types=("florence_vision",)),
    "efficientnet": SystemRow(module="rebus.backbones.vision.efficientnet", model_types=()),
    "nfnet": SystemRow(module="rebus.backbones.vision.nfnet", model_types=()),
    "bart": SystemRow(module="rebus.backbones.text.bart", model_types=("bart",)),
    "bert": SystemRow(module="rebus.backbones.text.bert", model_types=("bert",)),
    "gemma": SystemRow(module="rebus.backbones.text.gemma_layouts", model_types=("gemma", "gemma2")),
    "gpt2": SystemRow(module="rebus.backbones.text.gpt2", model_types=("gpt2",)),
    "llama": SystemRow(module="rebus.backbones.text.llama_layouts", model_types=("llama",)),
    "t5": SystemRow(module="rebus.backbones.text.t5_layouts", model_types=("t5", "mt5", "umt5")),
    "mpt": SystemRow(module="rebus.backbones.text.mpt", model_types=("mpt", "mosaic_gpt")),
    "gpt_neox": SystemRow(module="rebus.backbones.text.gpt_neox", model_types=("gpt_neox",)),
    "opt": SystemRow(module="rebus.backbones.text.opt", model_types=("opt",)),
    "mask_vqvae": SystemRow(module="rebus.backbones.vision.mask_vqvae", model_types=()),
    "vqgan": SystemRow(module="rebus.backbones.vision.vqgan", model_types=("vqgan",)),
}
