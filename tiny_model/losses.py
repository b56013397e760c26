"""What `paligemma-tiny` is asked to learn: the answers, and on the way there what helps with them.

The answers alone teach slowly: one word says little about a hundred patches. So two heads, thrown away
after training, ask more. The tower's has each patch say what it shows, where that thing lies, what its
shape is and which letters stand there. The decoder's, half-way up, has the patches marked that the
prompt is about.

Letters in shapes: B pictures, R rows (prompts with answers), N patches (= image tokens), L tokens of
text in a row, A tokens of answers, C width of the tower, D width of the decoder, V vocabulary.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn

from tiny_model.batches import COVER, GROUND, LETTERS, NO_COLOR, NO_LETTER
from tiny_model.quick import QuickModel
from tiny_model.words import COLORS, THINGS

LOC_SPREAD = 3  # a <loc> is also nearly right this many bins to either side
SEG_SPREAD = 0.03  # how near another codeword must be to be nearly right, over their mean distance squared

Losses = dict[str, torch.Tensor]


class Head(nn.Linear):
    """A linear layer that computes in the dtype of what it is given, whatever its own is."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return F.linear(states, self.weight.to(states.dtype), self.bias.to(states.dtype))


class PatchHead(Head):
    """From a patch's feature: what it shows, where that thing lies, its shape, and letters.

    Where: the thing's box, in which thirds of the picture its middle lies (an answer of two words,
    `top left`, turns on a pixel more or less), and in which of the 4 x 4 places of the thing's mask the
    patch lies. Shape: which of the patch's own 8 x 8 cells are the thing's, and the mask's word for
    each quarter of the patch: what the decoder will have to write.
    """

    PARTS: ClassVar = {
        "names": len(THINGS) + 1, "boxes": 4, "thirds": 6, "cells": 16, "cover": COVER**2,
        "shapes": 4 * 128, "letters": 2 * (len(LETTERS) + 1),
    }  # fmt: skip

    def __init__(self, width: int):
        super().__init__(width, sum(self.PARTS.values()))

    def said(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """[B, N, C] -> what each part of the head says, [B, N, ...] in the dtype of the features"""
        parts = self(features).split(list(self.PARTS.values()), dim=-1)
        return dict(zip(self.PARTS, parts, strict=True))

    def losses(self, features: torch.Tensor, batch: dict, near: torch.Tensor) -> tuple[Losses, torch.Tensor]:
        """[B, N, C] and what patch_targets gives -> losses, and the share of thing patches named correctly.

        `near` float [128, 128]: see soft_words.
        """
        said, labels = self.said(features), batch["labels"]
        is_thing = labels != GROUND
        boxes = batch["boxes"][is_thing]  # [patches, 4]
        true_thirds = (3 * (boxes[:, :2] + boxes[:, 2:]) / 2).long()  # [patches, 2]
        names = said["names"].float().flatten(0, 1)
        losses = {
            "names": F.cross_entropy(names, labels.flatten(), label_smoothing=0.05),
            "boxes": F.l1_loss(said["boxes"][is_thing].float(), boxes),
            "thirds": F.cross_entropy(said["thirds"][is_thing].float().view(-1, 3), true_thirds.flatten()),
            "cells": F.cross_entropy(said["cells"][is_thing].float(), batch["cells"][is_thing]),
            "cover": F.binary_cross_entropy_with_logits(
                said["cover"][is_thing].float(), batch["cover"][is_thing].float()
            ),
        }
        words = batch["shapes"][is_thing].flatten()  # [4 patches]
        log_probs = said["shapes"][is_thing].float().view(-1, 128).log_softmax(dim=-1)
        losses["shapes"] = -(near[words] * log_probs).sum(dim=-1).mean()
        letters = batch["letters"].flatten()
        of_letters = F.cross_entropy(
            said["letters"].float().reshape(-1, len(LETTERS) + 1), letters, reduction="none"
        )
        # There are many times as many patches without a letter as with one.
        is_letter = letters != NO_LETTER
        losses["letters"] = (of_letters * is_letter).sum() / is_letter.sum().clamp(min=1)
        losses["no letters"] = (of_letters * ~is_letter).sum() / (~is_letter).sum()
        accuracy = (names.argmax(-1) == labels.flatten())[is_thing.flatten()].float().mean()
        return losses, accuracy


class ColorHead(Head):
    """From a patch's feature: the color of the thing that it shows.

    Nothing else asks a tower for colors, and the answers to one kind of question among many hardly do.
    """

    def __init__(self, width: int):
        super().__init__(width, len(COLORS))

    def loss(self, features: torch.Tensor, colors: torch.Tensor) -> torch.Tensor:
        """features [B, N, C], colors int64 [B, N] -> the mean over patches of things with a clear color."""
        said = self(features).float().flatten(0, 1)
        total = F.cross_entropy(said, colors.flatten(), ignore_index=NO_COLOR, reduction="sum")
        return total / (colors != NO_COLOR).sum().clamp(min=1)


def soft_words(codewords: torch.Tensor) -> torch.Tensor:
    """float [128, 128]: for each word of a mask, how right each word is, as a distribution.

    A codeword close to the right one draws nearly the same.
    """
    distance = torch.cdist(codewords, codewords) ** 2
    return F.softmax(-distance / (SEG_SPREAD * distance.mean()), dim=-1)


def naming_loss(weights: dict, images: torch.Tensor, labels: torch.Tensor, words: list[int]) -> torch.Tensor:
    """Projected patches speak the decoder's language: a cat's are most like the embedding of ▁cat.

    The real tower was pretrained to bring pictures and their texts together (SigLIP). Without it,
    "detect cat" long finds what there is, but not which of several things is the cat.

    images [B, N, D], projected; labels int64 [B, N]; words: the token of each thing.
    """
    is_thing = labels != GROUND
    embeddings = weights["language_model.model.embed_tokens.weight"][words]  # [things, D]
    return F.cross_entropy((images[is_thing] @ embeddings.T).float(), labels[is_thing], label_smoothing=0.05)


class MarkHead(Head):
    """Whether a patch shows what the prompt asks about, told from the decoder's states half-way up.

    To answer "where is the cat?" the decoder must first find the cat's patches, which the answer, one
    word, teaches slowly, and a mark on each patch fast.
    """

    def __init__(self, width: int):
        super().__init__(width, 1)

    def loss(self, states: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
        """states [R, N, D], marks [R, N] -> the sum of the cross entropies."""
        said = self(states)[..., 0].float()
        return F.binary_cross_entropy_with_logits(said, marks.float(), reduction="sum")


class AnswerLoss:
    """The cross entropy of each token of the answers, by kind of token: words, places, shapes."""

    def __init__(self, tokenizer: Tokenizer, near: torch.Tensor):
        """`near`: see soft_words."""
        self.first_loc, self.first_seg = (tokenizer.token_to_id(t) for t in ("<loc0000>", "<seg000>"))
        self.near = near

    def __call__(
        self, quick: QuickModel, weights: dict, images: torch.Tensor, rows: dict
    ) -> tuple[Losses, torch.Tensor]:
        """images [B, N, D], projected, and rows of one length -> sums over tokens, and the decoder's states.

        The reference's own loss would do as well; here a <loc> has soft targets, because a box that is
        off by a bin is not wrong, and so has a <seg>.
        """
        N = images.shape[1]
        states, halfway = quick.decoder(weights, images[rows["picture"]], rows["ids"], rows["prefix"])
        positions = torch.arange(rows["ids"].shape[1]) + N
        is_answer = (positions >= rows["prefix"][:, None]) & (positions < rows["length"][:, None])  # [R, L]
        targets = rows["ids"][is_answer]  # [A]
        # The states at a position are about the token after it.
        states = states[:, :-1][is_answer[:, 1:]]  # [A, D]
        logits = states @ weights["language_model.model.embed_tokens.weight"].T
        log_probs = logits.float().log_softmax(dim=-1)  # [A, V]
        is_loc = (targets >= self.first_loc) & (targets < self.first_loc + 1024)
        is_seg = (targets >= self.first_seg) & (targets < self.first_seg + 128)
        is_word = ~is_loc & ~is_seg

        bins = torch.arange(1024)
        nearness = torch.exp(-(((bins - (targets[is_loc, None] - self.first_loc)) / LOC_SPREAD) ** 2) / 2)
        nearness = nearness / nearness.sum(dim=1, keepdim=True)  # [places, 1024]
        of_loc = log_probs[is_loc, self.first_loc : self.first_loc + 1024]
        of_seg = log_probs[is_seg, self.first_seg : self.first_seg + 128]
        losses = {
            "words": -log_probs[is_word].gather(1, targets[is_word, None]).sum(),
            "places": -(nearness * of_loc).sum(),
            "masks": -(self.near[targets[is_seg] - self.first_seg] * of_seg).sum(),
        }
        return losses, halfway
