"""The exercise PaliGemmaProcessor.__call__ of text_image_token_processor_0.py."""

import torch

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import picture
from course.exercises.processor.inputs import PIXELS, processor, tokenizer
from text_image_token_processor_1 import IMAGE_TOKEN, add_image_tokens_to_prompt, process_images


def two_pictures() -> list:
    return [picture(17, 9, seed=1), picture(8, 21, mode="RGBA", seed=2)]


# Other right ways.


def filling_in_a_tensor_of_padding(self, text, images):
    if len(text) != len(images):
        raise ValueError("lengths")
    for prompt in text:
        if "<image>" in prompt:
            raise ValueError("image")
    texts = [add_image_tokens_to_prompt(prompt, self.num_image_tokens) for prompt in text]
    rows = [e.ids for e in self.tokenizer.encode_batch(texts, add_special_tokens=False)]
    T = max(map(len, rows))
    input_ids = torch.full((len(rows), T), self.pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for i, row in enumerate(rows):
        input_ids[i, T - len(row) :] = torch.tensor(row)
        attention_mask[i, T - len(row) :] = 1
    pixel_values = process_images(images, self.image_size)
    return dict(attention_mask=attention_mask, input_ids=input_ids, pixel_values=pixel_values)


def reversed_padded_on_the_right_reversed(self, text, images):
    if any(self.tokenizer.token_to_id("<image>") in self.tokenizer.encode(t).ids for t in text):
        raise ValueError("image")
    if len(text) != len(images):
        raise ValueError("lengths")
    text = [add_image_tokens_to_prompt(t, self.num_image_tokens) for t in text]
    rows = [torch.tensor(self.tokenizer.encode(t, add_special_tokens=False).ids[::-1]) for t in text]
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "pixel_values": process_images(images, self.image_size),
        "input_ids": pad(rows, batch_first=True, padding_value=self.pad_token_id).flip(1),
        "attention_mask": pad([torch.ones_like(row) for row in rows], batch_first=True).flip(1),
    }


def the_tokenizers_own_padding(self, text, images):
    if len(text) != len(images) or IMAGE_TOKEN in "".join(text):
        raise ValueError("wrong input")
    self.tokenizer.enable_padding(direction="left", pad_id=self.pad_token_id, pad_token="<pad>")
    encoded = self.tokenizer.encode_batch(
        [add_image_tokens_to_prompt(t, self.num_image_tokens) for t in text], add_special_tokens=False
    )
    self.tokenizer.no_padding()
    return {
        "pixel_values": process_images(images, self.image_size),
        "input_ids": torch.tensor([e.ids for e in encoded]),
        "attention_mask": torch.tensor([e.attention_mask for e in encoded]),
    }


EXERCISE = Exercise(
    name="PaliGemmaProcessor.__call__",
    file="text_image_token_processor",
    minutes=40,
    difficulty="hard",
    why="Here picture and prompt become what the model takes: after this you can run it on your own photo.",
    builds_on=("add_image_tokens_to_prompt", "process_images", "PaliGemmaProcessor"),
    steps=[
        "Refuse, with a ValueError, lists of different lengths and a prompt that contains `<image>`.",
        "Write each prompt with its image tokens, and turn it into ids; the text already spells out its "
        "special tokens, so the tokenizer must not add any.",
        "Find the length of the longest row, T. Pad the shorter ones to T on the left with the padding id.",
        "Make the attention mask: 0 where you padded, 1 elsewhere.",
        "Prepare the pictures, and return the three tensors in a dict.",
    ],
    hints=(
        "Work on lists of numbers row by row, and make tensors at the end. Where does the answer begin "
        "in a short row and in a long one, if you pad on the right?",
        "tokenizer.encode(...) gives an object with .ids; it has an argument about special tokens. "
        "Lists can be repeated and joined: [x] * 3 + [1, 2].",
        "row = encode(text, add_special_tokens=False).ids; ids = [pad] * (T - len(row)) + row; mask = "
        "[0] * (T - len(row)) + [1] * len(row).",
    ),
    make=processor,
    result={"pixel_values": PIXELS, "input_ids": "B T", "attention_mask": "B T"},
    cases=[
        Case("one prompt", lambda: {"text": ["detect cat"], "images": [picture(17, 9)]}),
        Case(
            "two prompts of different lengths, two pictures",
            lambda: {"text": ["cat", "where is the dog"], "images": two_pictures()},
        ),
        Case(
            "an empty prompt, in a batch of three",
            lambda: {
                "text": ["detect cat ; dog", "", "a"],
                "images": [*two_pictures(), picture(5, 5, seed=4)],
            },
        ),
        Case(
            "a tokenizer in which `<pad>` is not number 0",
            lambda: {"text": ["cat", "a lion"], "images": two_pictures()},
            make=lambda m: processor(m, pad_first=False),
        ),
        Case(
            "a prompt that contains `<loc0001>` and spaces at its end",
            lambda: {"text": ["cat <loc0001>  "], "images": [picture(17, 9)]},
        ),
        Case(
            "capital letters, and a space at the beginning",
            lambda: {"text": [" Where is the Cat"], "images": [picture(17, 9)]},
        ),
        Case(
            "another number of image tokens and size",
            lambda: {"text": ["cat"], "images": [picture(17, 9)]},
            make=lambda m: m.PaliGemmaProcessor(tokenizer(), 4, 10),
        ),
        Case(
            "two prompts for one picture: a ValueError",
            lambda: {"text": ["cat", "dog"], "images": [picture(17, 9)]},
        ),
        Case(
            "one prompt for two pictures: a ValueError",
            lambda: {"text": ["cat"], "images": two_pictures()},
        ),
        Case(
            "`<image>` in a prompt, which would be counted as a patch: a ValueError",
            lambda: {"text": ["an <image>", "cat"], "images": two_pictures()},
        ),
        Case(
            "`<image>` in the second prompt: a ValueError",
            lambda: {"text": ["cat", "an <image> of a dog"], "images": two_pictures()},
        ),
    ],
    mistakes=[
        Mistake(
            "with the padding on the right",
            {
                "[self.pad_token_id] * (T - len(row)) + row": ("row + [self.pad_token_id] * (T - len(row))"),
                "[0] * (T - len(row)) + [1] * len(row)": "[1] * len(row) + [0] * (T - len(row))",
            },
            "the answer begins after the last position, so all rows must end in their newline.",
        ),
        Mistake(
            "with the ids padded on the left and the mask on the right",
            {"[0] * (T - len(row)) + [1] * len(row)": "[1] * len(row) + [0] * (T - len(row))"},
            "the mask's zeros belong where the padding is.",
        ),
        Mistake(
            "with a second `<bos>`, from the tokenizer",
            {", add_special_tokens=False": ""},
            "the text already spells out `<bos>`, and the tokenizer puts another one in front by itself.",
        ),
        Mistake(
            "with the mask inverted",
            {"[0] * (T - len(row)) + [1] * len(row)": "[1] * (T - len(row)) + [0] * len(row)"},
            "1 is a token, 0 is padding.",
        ),
        Mistake(
            "without the image tokens",
            {"prompt = add_image_tokens_to_prompt(prompt, self.num_image_tokens)": "pass"},
            "the prompt needs places for the picture, `<bos>` and the newline.",
        ),
        Mistake(
            "with the prompts in lower case",
            {"add_image_tokens_to_prompt(prompt, self": "add_image_tokens_to_prompt(prompt.lower(), self"},
            "`C` and `c` are different tokens: the prompt is taken as it is.",
        ),
        Mistake(
            "with the prompts' spaces stripped",
            {"add_image_tokens_to_prompt(prompt, self": "add_image_tokens_to_prompt(prompt.strip(), self"},
            "a space is a token, too: the prompt is taken as it is.",
        ),
        Mistake(
            "with a newline too many",
            {
                "add_image_tokens_to_prompt(prompt, self.num_image_tokens)": (
                    'add_image_tokens_to_prompt(prompt, self.num_image_tokens) + "\\n"'
                )
            },
            "add_image_tokens_to_prompt has put it there already.",
            also=(
                {
                    "add_image_tokens_to_prompt(prompt, self": "add_image_tokens_to_prompt(prompt + "
                    '"\\n", self'
                },
            ),
        ),
        Mistake(
            "with `<eos>` at the end",
            {
                "add_special_tokens=False).ids": "add_special_tokens=False).ids + "
                '[self.tokenizer.token_to_id("<eos>")]'
            },
            "`<eos>` ends the answer, and the model has yet to write that.",
        ),
        Mistake(
            "with 0 for the padding, whatever `<pad>`'s id is",
            {"[self.pad_token_id] * ": "[0] * "},
            "self.pad_token_id is the id of `<pad>`.",
        ),
        Mistake(
            "with the mask computed from the ids 0",
            {
                "torch.tensor([[0] * (T - len(row)) + [1] * len(row) for row in rows])": (
                    "(input_ids != 0).long()"
                ),
            },
            "`<pad>` need not be number 0.",
        ),
        Mistake(
            "with a boolean mask",
            {"[1] * len(row) for row in rows])": "[1] * len(row) for row in rows]).bool()"},
            "the docstring promises int64: the model sums it to count positions.",
        ),
        Mistake(
            "with int32 ids",
            {"+ row for row in rows])": "+ row for row in rows], dtype=torch.int32)"},
            "the docstring promises int64.",
        ),
        Mistake(
            "when rows are cut to the shortest",
            {
                "T = max(len(row) for row in rows)": (
                    "T = min(len(row) for row in rows)\n        rows = [row[:T] for row in rows]"
                ),
            },
            "nothing is cut off: shorter rows are padded to the length of the longest.",
        ),
        Mistake(
            "when more prompts than pictures are accepted",
            {"len(text) != len(images)": "len(text) < len(images)"},
            "one prompt for each picture, neither more nor less.",
        ),
        Mistake(
            "when more pictures than prompts are accepted",
            {"len(text) != len(images)": "len(text) > len(images)"},
            "one prompt for each picture, neither more nor less.",
        ),
        Mistake(
            "without comparing the lengths",
            {"len(text) != len(images)": "False"},
            "a wrong number of pictures would be noticed much later, if at all.",
        ),
        Mistake(
            "when only the first prompt is searched for `<image>`",
            {"for prompt in text)": "for prompt in text[:1])"},
            "any prompt of the batch may contain it.",
        ),
        Mistake(
            "without searching the prompts for `<image>`",
            {"any(IMAGE_TOKEN in prompt for prompt in text)": "False"},
            "it would be counted as a patch of the picture.",
        ),
        Mistake(
            "with the wrong number of image tokens",
            {"self.num_image_tokens)": "self.image_size)"},
            "num_image_tokens says how many.",
        ),
    ],
    right_ways=[
        RightWay("filling in a tensor of padding", filling_in_a_tensor_of_padding),
        RightWay("reversed, padded on the right, reversed", reversed_padded_on_the_right_reversed),
        RightWay("the tokenizer's own padding", the_tokenizers_own_padding),
    ],
    compare="padding on the left: every row ends in its newline, so the next token comes at the same "
    "position in all of them.",
)
