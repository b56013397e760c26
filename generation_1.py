"""From logits to an answer: the model scores each possible next token, and something has to choose.

What to notice:
  - choosing is not part of the model: it gives one score for each token of the vocabulary, and
    the same weights write dull or wild answers depending on who picks;
  - the prompt and the picture are read once, all at the same time; after that each step reads
    only the tokens chosen last, because the cache holds what came before;
  - the rows of a batch end at different times: a row that has written `<eos>` goes on being
    computed until all have ended, but nobody reads it;
  - a token is not always a piece of text: one letter may take several of them, and a space shows
    only beside its neighbors;
  - a box is four tokens, `<loc0000>` to `<loc1023>`: PaliGemma has no other way to point.

    logits [V] --temperature--> softmax --top-p--> one token -+-> text -> boxes
      ^                                                       |
      `-------------- model, with its cache <-----------------'

Letters in shapes: B batch, T tokens of the prompt, V vocabulary.

Sources: "PaliGemma" (Beyer et al. 2024); "The Curious Case of Neural Text Degeneration" (Holtzman
et al. 2020) for how to choose.
"""

import re
from collections.abc import Iterator

import torch
from tokenizers import Tokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"                             # stands for bytes that are no letter


def keep_top_p(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Cuts off the long tail of unlikely tokens, which together are drawn too often.

    The likeliest tokens stay, as many as are needed to reach top_p together; the others become 0.

    The likeliest one always stays. What stays need not be scaled up to a sum of one:
    torch.multinomial, which draws from it, takes weights of any sum.

    Input: probabilities [V], float, which sum to one; top_p, above 0 and at most 1.
    Output: [V], in the same dtype and order; a new tensor, the input is left as it was.
    Example: ([0.1, 0.5, 0.05, 0.3, 0.05], 0.7) -> [0, 0.5, 0, 0.3, 0]
    Source: Holtzman et al., section 3.1 (nucleus sampling).
    Exercise keep_top_p. Lesson: docs/lessons/words.md.
    """
    in_order, tokens = probabilities.sort(descending=True)
    reached_before = in_order.cumsum(dim=-1) - in_order               # by the likelier ones alone
    kept = probabilities.clone()
    kept[tokens[reached_before >= top_p]] = 0
    return kept


def sample_next_token(
    logits: torch.Tensor, temperature: float, top_p: float, generator: torch.Generator
) -> int:
    """Chooses the next token: the likeliest one, or one that is drawn.

    temperature 0: argmax(logits), greedy; else drawn from keep_top_p(softmax(logits / temperature))

    A temperature below 1 makes likely tokens likelier still, one above 1 evens them out.

    Input: logits [V], of any float dtype and on any device; temperature, 0 or more; top_p, above
    0 and at most 1; generator, of the CPU, whose numbers are the same on every machine.
    Output: int, the token's id. It depends on the logits and on the generator's state alone.
    Computed in float64: dividing by a very small temperature must give neither NaN nor infinity,
    so the largest logit is taken off first (softmax stays the same).
    Source: Holtzman et al., section 3.3, for the temperature.
    Exercise sample_next_token. Lesson: docs/lessons/words.md. Builds on: keep_top_p.
    """
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.cpu().double()
    probabilities = ((logits - logits.max()) / temperature).softmax(dim=-1)
    # Drawn by the tokens' ids, not by their ranks, which two tokens that are nearly alike may exchange.
    return int(torch.multinomial(keep_top_p(probabilities, top_p), 1, generator=generator))


@torch.inference_mode()
def generate(
    model,
    batch: dict[str, torch.Tensor],
    eos_token_id: int,
    max_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[list[int | None]]:
    """Writes the answers of a batch, one token of each row at a time.

    read picture and prompt; then: choose from the last logits, yield, read what was chosen

    The first call of the model is given the whole batch, each further one only the B new tokens,
    the cache and the attention mask, which grows by a column of ones at each step. Only the last
    position is scored: the others' next tokens are known.

    Input: batch, what PaliGemmaProcessor returns, on the model's device: `input_ids` and
    `attention_mask` int64 [B, T], `pixel_values` float32 [B, 3, S, S]; max_tokens, 1 or more.
    Yields, at each step, a list of B: the token of each row, `<eos>` included, and None for a row
    that has ended before. Stops when all rows have ended, or after max_tokens steps, and runs
    the model no more often than that takes. The answer of a row is the same in any batch: rows
    do not see each other, and each draws from a generator of its own, all with the same seed.
    Raises FloatingPointError if a logit is not finite: whatever was chosen would mean nothing.
    Source: "Fast Transformer Decoding" (Shazeer 2019), section 2 (incremental attention).
    Exercise generate. Lesson: docs/lessons/words.md. Builds on: sample_next_token.
    """
    B = len(batch["input_ids"])
    generators = [torch.Generator().manual_seed(seed) for _ in range(B)]
    attention_mask = batch["attention_mask"]                          # [B, T], one longer at each step
    finished = [False] * B
    output = model(**batch, logits_to_keep=1)
    for step in range(1, max_tokens + 1):
        logits = output["logits"][:, -1]                              # [B, V]
        if not logits.isfinite().all():
            raise FloatingPointError("the model's logits are not finite")
        tokens = [sample_next_token(logits[row], temperature, top_p, generators[row]) for row in range(B)]
        yield [None if finished[row] else tokens[row] for row in range(B)]
        finished = [finished[row] or tokens[row] == eos_token_id for row in range(B)]
        if all(finished) or step == max_tokens:
            return
        # A row that has ended goes on with whatever was chosen: nobody reads it.
        input_ids = torch.tensor(tokens, device=logits.device)[:, None]              # [B, 1]
        attention_mask = torch.cat([attention_mask, torch.ones_like(input_ids)], dim=1)
        output = model(
            input_ids, attention_mask=attention_mask, kv_cache=output["kv_cache"], logits_to_keep=1
        )


class Answer:
    """The tokens of one row, without `<eos>`, and their text, which grows as they come.

    Attributes: `tokenizer`; `tokens`, a list of ids; `text`, what can be shown so far.
    Source: as append.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.tokens: list[int] = []
        self.text = ""

    def append(self, token: int) -> str:
        """Adds a token and returns the text that is new, so that an answer can be read as it comes.

        new text = decode(all tokens) without the text so far

        All tokens are decoded again, because a token's text depends on its neighbors. While the
        last letter still lacks bytes, decoding ends in U+FFFD: then nothing is new, and the
        letter comes with the token that completes it.

        (tokenizers' own DecodeStream does the same where all bytes become letters in the end, but
        raises an error where some do not, and a model may write any bytes.)

        Input: the id of a token. Output: str, which may be empty; `tokens` and `text` have grown.
        Special tokens are kept: `<loc>` and `<seg>` are part of the answer.
        Example: "é" may be two tokens, of one byte each: "" and then "é".
        Source: the byte fallback of SentencePiece, which Gemma's tokenizer uses.
        Exercise Answer.append. Lesson: docs/lessons/words.md.
        """
        self.tokens.append(token)
        text = self.tokenizer.decode(self.tokens, skip_special_tokens=False)
        new = "" if text.endswith(REPLACEMENT) else text[len(self.text):]
        self.text += new
        return new


def parse_boxes(answer: str, width: int, height: int) -> list[dict]:
    """Finds the boxes in an answer to `detect` or `segment`.

    "<loc0256><loc0128><loc0768><loc0640> big cat ; <loc..." -> for a picture of 200 x 100:
    [{"label": "big cat", "box": [25.0, 25.0, 125.0, 75.0]}, ...]

    In the answer: y_min, x_min, y_max, x_max, perhaps 16 `<seg>` tokens, and a label, which may be
    missing; ` ; ` between two things. In the result: x_min, y_min, x_max, y_max in pixels, rounded
    to tenths, the smaller of two opposite edges first. What is not four <loc> in a row is skipped.

    A location n is read as n / 1024 of the side, as in the hub's demos; the tiny model was
    trained with floor(1024 c) for a coordinate c. The makers' own code writes round(1023 c) and
    reads n / 1023: at most a thousandth of the side away.

    Input: the text of an answer; width and height of the picture as it was given, in pixels.
    Output: a list of dicts with `label` (str) and `box` (four floats), in the answer's order.
    Source: PaliGemma, sections 3.2.5 and 5.3; big_vision, for the rounding.
    Exercise parse_boxes. Lesson: docs/lessons/words.md.
    """
    boxes = []
    for *locations, label in re.findall(r"<loc(\d{4})>" * 4 + r"(?:<seg\d{3}>)*([^;<]*)", answer):
        y1, x1, y2, x2 = (int(location) / 1024 for location in locations)
        corners = (min(x1, x2) * width, min(y1, y2) * height, max(x1, x2) * width, max(y1, y2) * height)
        boxes.append({"label": label.strip(), "box": [round(corner, 1) for corner in corners]})
    return boxes
