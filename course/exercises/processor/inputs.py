"""Inputs that several exercises of text_image_token_processor_0.py share."""

import functools

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]  # ids 0 to 3, as Gemma's


@functools.cache
def tokenizer(without: str = "", pad_first: bool = True) -> Tokenizer:
    """One token per letter, `▁` for a space; like Gemma's, it puts a `<bos>` in front by itself.

    without: a token that it lacks. pad_first: is `<pad>` number 0, as in Gemma's?
    """
    order = SPECIAL if pad_first else ["<bos>", "<pad>", "<unk>", "<eos>"]
    special = [token for token in order if token != without]
    words = [*special, *"▁abcdefghijklmnopqrstuvwxyz;"]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>"))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    made.add_special_tokens(special)
    others = [token for token in ("\n", "<loc0000>", "<loc0001>") if token != without]
    made.add_tokens([AddedToken(token, normalized=False) for token in others])
    if without != "<image>":
        made.add_special_tokens(["<image>"])
    if without != "<bos>":
        made.post_processor = processors.TemplateProcessing(
            "<bos> $A", special_tokens=[("<bos>", made.token_to_id("<bos>"))]
        )
    return made


def processor(m, **options):
    return m.PaliGemmaProcessor(tokenizer(**options), 6, 13)


PIXELS = "B 3 S S"
