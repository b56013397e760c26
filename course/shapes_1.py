"""Exercise 0, solved: eight moves with shapes, out of which all others are made.

The lesson is docs/lessons/shapes.md. Each function here is one or two lines, and each is found again in
the model under another name.

Letters in shapes: B batch, N patches, T queries, L keys, C width, H heads, Hd size of a head
(C = H * Hd), G patches along a side (N = G * G), P side of a patch and S side of the picture (S = G * P).
"""

import torch


def first_patch(features: torch.Tensor) -> torch.Tensor:
    """The first patch of every picture: [B, N, C] -> [B, C]."""
    return features[:, 0]


def mean_over_patches(features: torch.Tensor) -> torch.Tensor:
    """The mean over the patches, with their axis kept: [B, N, C] -> [B, 1, C]."""
    return features.mean(dim=1, keepdim=True)


def add_positions(features: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The same positions added to every picture of a batch: [B, N, C] + [N, C] -> [B, N, C]."""
    return features + positions


def scores_where(scores: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
    """Scores, with 0 in the columns of padding, in all heads and rows.

    [B, H, T, L] and bool [B, L] -> [B, H, T, L].
    """
    return scores * is_token[:, None, None]


def map_to_rows(features: torch.Tensor) -> torch.Tensor:
    """A map of features as a list, row by row: [B, C, G, G] -> [B, G * G, C]."""
    return features.flatten(2).transpose(1, 2)


def split_heads(x: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Each vector cut into one piece for each head: [B, N, C] -> [B, H, N, Hd]."""
    B, N, C = x.shape
    return x.view(B, N, num_heads, C // num_heads).transpose(1, 2)


def join_heads(x: torch.Tensor) -> torch.Tensor:
    """The way back, the pieces side by side again: [B, H, N, Hd] -> [B, N, C]."""
    B, H, N, Hd = x.shape
    return x.transpose(1, 2).reshape(B, N, H * Hd)


def cut_into_patches(picture: torch.Tensor, side: int) -> torch.Tensor:
    """Patches row by row, each with its own numbers in the order color, row, column.

    [B, 3, S, S] -> [B, N, 3 * P * P], where side is P.
    """
    B, colors, S, _ = picture.shape
    G = S // side
    patches = picture.view(B, colors, G, side, G, side)               # row = (G, P), column = (G, P)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(B, G * G, colors * side * side)
