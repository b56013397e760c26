"""What stands for the model and the tokenizer in the exercises of generation_0.py."""

import functools

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models

from course.exercises.inputs import randn

EOS = 7
VOCABULARY = 29  # V


class SmallCache:
    """What the model below has read so far. Whoever generates only hands it on."""

    def __init__(self, pictures: torch.Tensor | None):
        self.pictures = pictures
        self.tokens = None  # [B, T]
        self.prompt = 0  # the number of tokens in the first call


class SmallModel:
    """Called as PaliGemmaForConditionalGeneration is, and quick: its logits are a hash.

    They depend on the picture and on every token that the attention mask shows, but not on padding or
    on other rows. So a token, a mask or a cache that is wrong changes what comes next.

    ends: the number of tokens in the answer of each row, `<eos>` included; None: it never ends.
    calls: of each call, what a cost would be seen by. broken_at: the call of whose logits some are not
    finite; broken: what these are.
    """

    def __init__(self, ends: tuple[int | None, ...], broken_at: int = -1, broken: tuple[float, ...] = ()):
        self.ends, self.broken_at, self.broken = ends, broken_at, broken
        self.calls: list[dict] = []

    def __call__(
        self, input_ids, pixel_values=None, attention_mask=None, token_type_ids=None, labels=None,
        kv_cache=None, logits_to_keep=0,
    ):  # fmt: skip
        cache = SmallCache(pixel_values)
        cache.tokens, cache.prompt = input_ids, input_ids.shape[1]
        if kv_cache is not None:
            cache.pictures, cache.prompt = kv_cache.pictures, kv_cache.prompt
            cache.tokens = torch.cat([kv_cache.tokens, input_ids], dim=1)
        tokens = cache.tokens
        mask = torch.ones_like(tokens) if attention_mask is None else attention_mask
        if mask.shape != tokens.shape:
            raise ValueError(
                f"attention_mask is {list(mask.shape)}, but there are {list(tokens.shape)} tokens, those "
                "in the cache included"
            )
        T = input_ids.shape[1]
        scored = min(logits_to_keep or T, T)
        self.calls.append(
            {
                "tokens read": list(input_ids.shape),
                "pictures read": pixel_values is not None,
                "positions scored": scored,
            }
        )
        ends_at = range(tokens.shape[1] - scored + 1, tokens.shape[1] + 1)
        rows = [[self._logits(row, length, mask, cache) for length in ends_at] for row in range(len(tokens))]
        return {"logits": torch.tensor(rows, device=tokens.device), "kv_cache": cache}

    def _logits(self, row: int, length: int, mask: torch.Tensor, cache: SmallCache) -> list[float]:
        """The scores behind the first `length` tokens of a row."""
        state = 0 if cache.pictures is None else int(cache.pictures[row].abs().sum() * 100)
        for token in cache.tokens[row, :length][mask[row, :length].bool()].tolist():
            state = (31 * state + token + 1) % 1009
        scores = [(state * (7 * v * v + 3 * v + 5) + 11 * v) % 1009 / 250 for v in range(VOCABULARY)]
        written = length - cache.prompt + 1
        scores[EOS] = 60.0 if written == self.ends[row] else -60.0
        if len(self.calls) - 1 == self.broken_at:
            scores[-len(self.broken) :] = self.broken
        return scores


def batch(*prompts: list[int]) -> dict:
    """What the processor returns: shorter prompts are padded at the left with 0."""
    T = max(map(len, prompts))
    return {
        "pixel_values": randn(len(prompts), 3, 2, 2),
        "input_ids": torch.tensor([[0] * (T - len(prompt)) + prompt for prompt in prompts]),
        "attention_mask": torch.tensor([[0] * (T - len(p)) + [1] * len(p) for p in prompts]),
    }


@functools.cache
def tokenizer() -> Tokenizer:
    """Some words and all bytes; decodes as Gemma's does. Locations and `<eos>` are special tokens."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["▁a", "▁two", "▁cat", "s", "▁caf", "▁and", "\n", "▁"]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>"))
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<eos>", "<loc0017>", "<loc0256>", "<loc0511>", "<loc1023>", "<seg042>"]
    made.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return made


def tokens_of(*words: str) -> list[int]:
    """The ids of tokens; a letter that is no token stands for its bytes."""
    ids = []
    for word in words:
        token = tokenizer().token_to_id(word)
        of_bytes = [tokenizer().token_to_id(f"<0x{byte:02X}>") for byte in word.encode()]
        ids += of_bytes if token is None else [token]
    return ids
