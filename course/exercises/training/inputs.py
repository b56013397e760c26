"""What stands for the tokenizer and the models in the exercises of training_0.py."""

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from torch import nn

from course.exercises.inputs import randn

SIZES = {"I": 10, "O": 14, "R": 4}
ALPHA = 6.0
PAD = 3  # not 0, so that a 0 that stands for it is seen
VOCABULARY = 23  # V


def tokenizer() -> Tokenizer:
    """A few words; as Gemma's, it has a token for two newlines and puts <bos> in front if it may."""
    words = ["detect", "caption", "▁cat", "▁dog", "▁en", "▁a", "no", "s", "▁", "▁;", "\n", "\n\n"]
    scores = [("<unk>", 0.0), *((word, -1.0 - 0.01 * i) for i, word in enumerate(words))]
    made = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=False))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Replace("▁", " ")
    special = ["<image>", "<bos>", "<eos>", "<loc0017>", "<loc0256>", "<loc0511>", "<loc1023>"]
    made.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", made.token_to_id("<bos>"))]
    )
    return made


def layer(dtype: torch.dtype = torch.float32, bias: bool = True) -> nn.Linear:
    """The linear layer that LoRA is added to."""
    made = nn.Linear(SIZES["I"], SIZES["O"], bias=bias)
    with torch.no_grad():
        made.weight.copy_(randn(SIZES["O"], SIZES["I"], seed=1, scale=0.4))
        if bias:
            made.bias.copy_(randn(SIZES["O"], seed=2))
    return made.to(dtype)


def filled(made):
    """A LoRALinear whose small matrices are trained, as it were: both are random."""
    with torch.no_grad():
        made.lora_A.weight.copy_(randn(*made.lora_A.weight.shape, seed=3, scale=0.5))
        made.lora_B.weight.copy_(randn(*made.lora_B.weight.shape, seed=4, scale=0.5))
        for part in (made.lora_A, made.lora_B):  # a bias is a mistake, which has to be recognized
            if getattr(part, "bias", None) is not None:
                part.bias.copy_(randn(*part.bias.shape, seed=5))
    return made


class SmallModel(nn.Module):
    """Called as PaliGemmaForConditionalGeneration is, and quick: its logits are a sum over what came before.

    They depend on the picture, the types and all tokens that the attention mask shows. In train mode they
    are another model's, as with dropout. calls: of each call, what a cost or a mistake would be seen by.
    """

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 6)
        self.head = nn.Linear(6, VOCABULARY, bias=False)
        self.calls: list[dict] = []
        with torch.no_grad():
            self.embed.weight.copy_(randn(VOCABULARY, 6, seed=5))
            self.head.weight.copy_(randn(VOCABULARY, 6, seed=6))

    def forward(
        self, input_ids, pixel_values=None, attention_mask=None, token_type_ids=None, labels=None,
        kv_cache=None, logits_to_keep=0,
    ):  # fmt: skip
        T = input_ids.shape[1]
        given = {"labels": labels, "attention_mask": attention_mask, "pixel_values": pixel_values}
        given["token_type_ids"] = token_type_ids
        self.calls.append(
            {
                "inputs given": sorted(name for name, value in given.items() if value is not None),
                "positions scored": min(logits_to_keep or T, T),
                "in train mode": self.training,
                "gradients kept": torch.is_grad_enabled(),
            }
        )
        x = self.embed(input_ids)
        if attention_mask is not None:
            x = x * attention_mask[..., None]
        if token_type_ids is not None:
            x = x * (1 + 0.3 * token_type_ids[..., None])
        if pixel_values is not None:
            x = x + pixel_values.flatten(1).mean(dim=1)[:, None, None]
        x = torch.tanh(x.cumsum(dim=1) / 2) * (1.2 if self.training else 1.0)
        return {"logits": self.head(x[:, -logits_to_keep:])}


class PlainDescent:
    """An optimizer that does no more than its two methods say: torch.optim's first step takes two seconds."""

    def __init__(self, parameters: list[nn.Parameter], rate: float):
        self.parameters, self.rate = parameters, rate

    def zero_grad(self, set_to_none: bool = True):
        for parameter in self.parameters:
            parameter.grad = None if set_to_none or parameter.grad is None else torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self):
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter -= self.rate * parameter.grad


def small_batch(*answers: int, prompt: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    """A batch of collate: answers are the numbers of learned tokens, prompts have one token more each."""
    prompts = [prompt + row for row in range(len(answers))]
    T = max(a + p for a, p in zip(answers, prompts, strict=True))
    B = len(answers)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(PAD + 1, VOCABULARY, (B, T), generator=generator)
    places = torch.arange(T).expand(B, T)
    learned = places >= T - torch.tensor(answers)[:, None]
    shown = places >= T - (torch.tensor(answers) + torch.tensor(prompts))[:, None]
    return {
        "input_ids": ids.masked_fill(~shown, PAD),
        "attention_mask": shown.long(),
        "token_type_ids": learned.long(),
        "labels": ids.masked_fill(~learned, -100),
        "pixel_values": randn(B, 3, 2, 2, seed=seed),
    }


def scored(B: int, K: int, answers: tuple[int, ...], seed: int = 0) -> dict[str, torch.Tensor]:
    """Logits [B, K, V] and labels [B, K] for answers of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(1, 11, (B, K), generator=generator)
    return {
        "logits": randn(B, K, 11, seed=seed, scale=2.0),
        "labels": labels.masked_fill(torch.arange(K) < K - torch.tensor(answers)[:, None], -100),
    }
