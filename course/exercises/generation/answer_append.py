"""The exercise Answer.append of generation_0.py."""

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.generation.inputs import tokenizer, tokens_of


def said(answer, tokens):
    """What each token adds, and what is there in the end."""
    return {"new": [answer.append(token) for token in tokens], "text": answer.text, "tokens": answer.tokens}


# Known mistakes that take whole functions.


def when_each_token_is_decoded_alone(self, token):
    self.tokens.append(token)
    new = self.tokenizer.decode([token], skip_special_tokens=False)
    new = "" if new.endswith(REPLACEMENT) else new  # noqa: F821
    self.text += new
    return new


def when_each_token_is_decoded_alone_and_shown(self, token):
    self.tokens.append(token)
    new = self.tokenizer.decode([token], skip_special_tokens=False)
    self.text += new
    return new


def with_the_entry_of_the_vocabulary(self, token):
    self.tokens.append(token)
    new = self.tokenizer.id_to_token(token)
    self.text += new
    return new


def when_the_text_remembers_half_a_letter(self, token):
    self.tokens.append(token)
    text = self.tokenizer.decode(self.tokens, skip_special_tokens=False)
    new = "" if text.endswith(REPLACEMENT) else text[len(self.text) :]  # noqa: F821
    self.text = text
    return new


# Other right ways.


def cut_off_by_its_beginning(self, token):
    self.tokens += [token]
    text = self.tokenizer.decode(self.tokens, skip_special_tokens=False)
    if text[-1:] == "\ufffd":
        return ""
    new = text.removeprefix(self.text)
    self.text = text
    return new


def with_a_new_list(self, token):
    self.tokens = [*self.tokens, token]
    before, after = self.text, self.tokenizer.decode(self.tokens, False)
    if not after.endswith("�"):
        self.text = after
    return self.text[len(before) :]


EXERCISE = Exercise(
    name="Answer.append",
    file="generation",
    minutes=15,
    difficulty="medium",
    why="An answer is read while it is written, and a token may be a third of a letter.",
    steps=[
        "Keep the token.",
        "Decode all tokens so far, special ones included.",
        "If the last letter still lacks bytes, nothing is new.",
        "Otherwise what is new is the text without its beginning, which is known already.",
        "Let the known text grow by it, and return it.",
    ],
    hints=(
        "How does the program notice that a letter is not complete yet? And what does decode do with "
        "`<loc0256>` if it is not told otherwise?",
        "decode(..., skip_special_tokens=False) of all tokens; endswith(REPLACEMENT) says that bytes are "
        "missing; a slice from len(self.text) on is what is new.",
        'text = self.tokenizer.decode(self.tokens, skip_special_tokens=False); new = "" if '
        "text.endswith(REPLACEMENT) else text[len(self.text):]; self.text += new.",
    ),
    make=lambda m: m.Answer(tokenizer()),
    cases=[
        Case(
            "three tokens of two words",
            lambda: {"tokens": tokens_of("▁two", "▁cat", "s")},
            call=said,
        ),
        Case(
            "a letter of two bytes",
            lambda: {"tokens": tokens_of("▁a", "▁caf", "é", "▁and")},
            call=said,
        ),
        Case(
            "a box, a shape's word, and a label",
            lambda: {"tokens": tokens_of("<loc0256>", "<loc0017>", "<loc1023>", "<seg042>", "▁cat", "\n")},
            call=said,
        ),
        Case(
            "four letters of three and four bytes, one after the other",
            lambda: {"tokens": tokens_of("猫", "🐈", "▁", "▁and", "字", "🐈")},
            call=said,
        ),
        Case(
            "a byte that never becomes a letter",
            lambda: {"tokens": [*tokens_of("▁a"), *tokens_of("é")[:1], *tokens_of("▁cat", "▁and", "é")]},
            call=said,
        ),
    ],
    mistakes=[
        Mistake(
            "when each token is decoded alone",
            when_each_token_is_decoded_alone,
            "a byte is no letter by itself, so letters of several bytes never come.",
            also=(when_each_token_is_decoded_alone_and_shown,),
        ),
        Mistake(
            "when half a letter is shown",
            {'"" if text.endswith(REPLACEMENT) else text[len(self.text):]': "text[len(self.text):]"},
            "U+FFFD stands for bytes that are no letter yet: wait for the token that completes it.",
        ),
        Mistake(
            "when half a letter is counted as known",
            when_the_text_remembers_half_a_letter,
            "what has not been returned is still new, so the text must not grow by it.",
        ),
        Mistake(
            "with special tokens skipped",
            {", skip_special_tokens=False": ""},
            "decode leaves them out if it is not told otherwise, and a box is made of them.",
        ),
        Mistake(
            "when all of the text is returned",
            {"return new": "return self.text"},
            "only what the token added is returned: the rest is on the screen already.",
        ),
        Mistake(
            "when the text does not grow",
            {"self.text += new": "pass"},
            "the next call has to know what was returned.",
        ),
        Mistake(
            "when the token is not kept",
            {
                "self.tokens.append(token)": "pass",
                "self.tokenizer.decode(self.tokens,": "self.tokenizer.decode([*self.tokens, token],",
            },
            "the next token is decoded together with this one.",
        ),
        Mistake(
            "with the entry of the vocabulary in place of the text",
            with_the_entry_of_the_vocabulary,
            "the vocabulary has `▁` for a space and `<0xC3>` for a byte: decode makes text of them.",
        ),
        Mistake(
            "with the spaces lost",
            {"self.text += new": "new = new.strip()\n        self.text += new"},
            "a space belongs to the text as well: `two cats`, not `twocats`.",
        ),
        Mistake(
            "with U+FFFD taken out",
            {
                "skip_special_tokens=False)": "skip_special_tokens=False).replace(REPLACEMENT, '')",
            },
            "a byte that never becomes a letter is a part of the answer, and is shown as such.",
        ),
        Mistake(
            "without a return",
            {"return new": "return None"},
            "the program prints what is returned.",
        ),
    ],
    right_ways=[
        RightWay("cut off by its beginning", cut_off_by_its_beginning),
        RightWay("with a new list", with_a_new_list),
    ],
    compare="what it costs: all tokens are decoded at each step. Why would a window of the last few do, and "
    "for which answers would that pay?",
)
