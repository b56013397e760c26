"""The exercise PaliGemmaProcessor of text_image_token_processor_0.py."""

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.processor.inputs import processor, tokenizer


def refuses(token: str) -> Case:
    return Case(
        f"a tokenizer without {token!r}",
        lambda: {"num_image_tokens": 6},
        make=lambda m: m.PaliGemmaProcessor,
        call=lambda cls, num_image_tokens: cls(tokenizer(without=token), num_image_tokens, 13) and "accepted",
    )


# Other right ways.


class ThroughTheVocabulary:
    def _token_id(self, token):
        vocabulary = self.tokenizer.get_vocab()
        if token not in vocabulary:
            raise ValueError("no " + token)
        return vocabulary[token]


class InAnotherOrder:
    def __init__(self, tokenizer, num_image_tokens, image_size):
        self.num_image_tokens, self.image_size, self.tokenizer = num_image_tokens, image_size, tokenizer
        for name, token in (("pad", "<pad>"), ("newline", "\n"), ("image", "<image>"), ("bos", "<bos>")):
            setattr(self, name + "_token_id", self._token_id(token))


EXERCISE = Exercise(
    name="PaliGemmaProcessor",
    file="text_image_token_processor",
    minutes=10,
    difficulty="easy",
    why="A tokenizer without `<image>` would give nonsense, silently: it is refused before anything is read.",
    steps={
        "__init__": [
            "Keep the tokenizer, the number of image tokens and the size of the pictures.",
            "Look up the ids of the four special tokens with _token_id, and keep each under its name.",
        ],
        "_token_id": [
            "Ask the tokenizer for the id of the token.",
            "If it has no such token, raise a ValueError that says so; otherwise return the id.",
        ],
    },
    hints=(
        "Seven attributes, whose names are in the docstring. What does the tokenizer return for a token "
        "that it does not know?",
        "token_to_id gives None for an unknown token, and 0 for `<pad>`: the two are not the same.",
        "token_id = self.tokenizer.token_to_id(token); if token_id is None: raise ValueError(...).",
    ),
    make=processor,
    attributes=(
        "tokenizer",
        "num_image_tokens",
        "image_size",
        "image_token_id",
        "bos_token_id",
        "pad_token_id",
        "newline_token_id",
    ),
    cases=[
        Case(
            "Gemma's order of special tokens",
            lambda: {"token": "<pad>"},
            call=lambda made, token: made._token_id(token),
        ),
        Case(
            "another order of special tokens",
            lambda: {"token": "a"},
            make=lambda m: processor(m, pad_first=False),
            call=lambda made, token: (made._token_id(token), made.tokenizer.get_vocab_size()),
        ),
        *map(refuses, ("<image>", "<bos>", "<pad>", "\n")),
        Case(
            "a word that is not a token",
            lambda: {"token": "rhinoceros"},
            call=lambda made, token: made._token_id(token),
        ),
    ],
    mistakes=[
        Mistake(
            "when id 0 counts as missing",
            {"if token_id is None": "if not token_id"},
            "`<pad>` has the id 0, which Python takes for False: ask for None.",
        ),
        Mistake(
            "without the check",
            {"if token_id is None": "if False"},
            "token_to_id gives None for an unknown token, and None would travel on silently.",
        ),
        Mistake(
            "with a KeyError",
            {"raise ValueError": "raise KeyError"},
            "the docstring promises a ValueError.",
        ),
        Mistake(
            "with `<eos>` for `<bos>`",
            {
                "self.bos_token_id = self._token_id(BOS_TOKEN)": (
                    'self.bos_token_id = self._token_id("<eos>")'
                ),
            },
            "`<bos>` begins a text, `<eos>` ends it.",
        ),
        Mistake(
            "with the ids of Gemma written into the code",
            {"self._token_id(BOS_TOKEN)": "2", "self._token_id(PAD_TOKEN)": "0"},
            "another tokenizer has other numbers, and one without the token is not refused.",
        ),
        Mistake(
            "with `<bos>` and `<pad>` swapped",
            {
                "self._token_id(BOS_TOKEN)": "self._token_id(PAD_TOKEN)",
                "self.pad_token_id = self._token_id(PAD_TOKEN)": (
                    "self.pad_token_id = self._token_id(BOS_TOKEN)"
                ),
            },
            "each id under its own name.",
        ),
        Mistake(
            "with the tokens instead of their ids",
            {"self.bos_token_id = self._token_id(BOS_TOKEN)": "self.bos_token_id = BOS_TOKEN"},
            "the model needs numbers.",
        ),
        Mistake(
            "with the unknown token's id for a missing one",
            {
                'raise ValueError(f"the tokenizer has no {token!r} token: it is not PaliGemma\'s")': (
                    'return self.tokenizer.token_to_id("<unk>")'
                ),
            },
            "a missing token is an error: a ValueError.",
        ),
    ],
    right_ways=[
        RightWay("through the vocabulary", ThroughTheVocabulary),
        RightWay("in another order", InAnotherOrder),
    ],
    compare="`is None`, not `not token_id`: the id of `<pad>` is 0.",
)
