"""The exercises of text_image_token_processor_0.py. What each field means is told in exercises.py."""

import functools

import numpy as np
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from course.exercise_inputs import picture
from course.exercise_types import Case, Exercise, Mistake, RightWay

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


def bytes_image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)


def transparent_colour(image: Image.Image) -> Image.Image:
    """An indexed picture as GIFs are: its first color is transparent."""
    image.info["transparency"] = 0
    return image


def all_bytes() -> np.ndarray:
    return np.arange(256, dtype=np.uint8).reshape(32, 8)


def floats_image() -> np.ndarray:
    return np.random.default_rng(1).random((5, 4, 3), dtype=np.float32)


def processor(m, **options):
    return m.PaliGemmaProcessor(tokenizer(**options), 6, 13)


def refuses(token: str) -> Case:
    return Case(
        f"a tokenizer without {token!r}",
        lambda: {"num_image_tokens": 6},
        make=lambda m: m.PaliGemmaProcessor,
        call=lambda cls, num_image_tokens: cls(tokenizer(without=token), num_image_tokens, 13) and "accepted",
    )


def two_pictures() -> list:
    return [picture(17, 9, seed=1), picture(8, 21, mode="RGBA", seed=2)]


PIXELS = "B 3 S S"

EXERCISES = [
    Exercise(
        name="add_image_tokens_to_prompt",
        file="text_image_token_processor",
        minutes=5,
        difficulty="easy",
        solved=True,
        why="The decoder reads only tokens: the picture needs placeholders, and the prompt its marks.",
        steps=[
            "Write as many image tokens as there are patches.",
            "After them write the token that begins a text, then the prompt, then a newline, with nothing "
            "in between.",
        ],
        hints=(
            "Four pieces, one after another; the names of the special ones are at the top of the file.",
            "A text times a number repeats it.",
            'f"{IMAGE_TOKEN * num_image_tokens}{BOS_TOKEN}{prompt}{NEWLINE}".',
        ),
        cases=[
            Case("a prompt, and 3 image tokens", lambda: {"prompt": "detect cat", "num_image_tokens": 3}),
            Case("an empty prompt", lambda: {"prompt": "", "num_image_tokens": 2}),
            Case(
                "spaces around the prompt, which belong to it",
                lambda: {"prompt": "  a cat ; a dog ", "num_image_tokens": 1},
            ),
            Case("capital letters", lambda: {"prompt": "What is on the Sign?", "num_image_tokens": 2}),
        ],
        mistakes=[
            Mistake(
                "with `<bos>` at the very start",
                {
                    "{IMAGE_TOKEN * num_image_tokens}{BOS_TOKEN}": "{BOS_TOKEN}{IMAGE_TOKEN * "
                    "num_image_tokens}"
                },
                "PaliGemma was trained with `<bos>` between picture and prompt.",
            ),
            Mistake(
                "without the newline",
                {"{NEWLINE}": ""},
                "the newline is part of the prompt: it marks where the answer begins.",
            ),
            Mistake("without `<bos>`", {"{BOS_TOKEN}": ""}, "`<bos>` comes before the prompt."),
            Mistake(
                "with a space before the prompt",
                {"{BOS_TOKEN}{prompt}": "{BOS_TOKEN} {prompt}"},
                "there is nothing in between; a space is a token too.",
            ),
            Mistake(
                "with a single image token",
                {"{IMAGE_TOKEN * num_image_tokens}": "{IMAGE_TOKEN}"},
                "every patch needs its own place.",
            ),
            Mistake(
                "with the image tokens after the prompt",
                {
                    "{IMAGE_TOKEN * num_image_tokens}{BOS": "{BOS",
                    "{NEWLINE}": "{NEWLINE}{IMAGE_TOKEN * num_image_tokens}",
                },
                "the picture comes first.",
            ),
            Mistake(
                "with the spaces stripped", {"{prompt}": "{prompt.strip()}"}, "the prompt is taken as it is."
            ),
            Mistake("in lower case", {"{prompt}": "{prompt.lower()}"}, "`C` and `c` are different tokens."),
        ],
        right_ways=[
            RightWay(
                "adding the pieces",
                """
def add_image_tokens_to_prompt(prompt, num_image_tokens):
    return num_image_tokens * "<image>" + "<bos>" + prompt + "\\n"
""",
            ),
            RightWay(
                "joining a list",
                """
def add_image_tokens_to_prompt(prompt, num_image_tokens):
    return "".join([IMAGE_TOKEN for _ in range(num_image_tokens)] + [BOS_TOKEN, prompt, NEWLINE])
""",
            ),
        ],
        compare="this exercise was solved for you, to show how it works: change something in it and run "
        "its test.",
    ),
    Exercise(
        name="resize",
        file="text_image_token_processor",
        minutes=10,
        difficulty="easy",
        why="The tower has one position vector per patch: it can only read pictures of one size.",
        steps=[
            "Squeeze the picture to image_size in both directions, with bicubic interpolation, and without "
            "cutting anything off.",
            "Turn the result into an array of bytes, one row of the picture after another.",
            "Return the array; the picture that came in stays as it was.",
        ],
        hints=(
            "The picture has a method of that name. Which size does it want, and which filter?",
            "Image.Resampling lists the filters; numpy can read a picture directly.",
            "np.array(image.resize((image_size, image_size), resample=Image.Resampling.BICUBIC)).",
        ),
        result="S S 3",
        cases=[
            Case("a wide picture, made smaller", lambda: {"image": picture(31, 17), "image_size": 12}),
            Case("a tall picture, made larger", lambda: {"image": picture(9, 13), "image_size": 22}),
            Case("a picture that already has the size", lambda: {"image": picture(14, 14), "image_size": 14}),
        ],
        mistakes=[
            Mistake(
                "with bilinear interpolation",
                {"BICUBIC": "BILINEAR"},
                "the hub's processor resizes with bicubic.",
            ),
            Mistake(
                "with the nearest pixel",
                {"BICUBIC": "NEAREST"},
                "that leaves out most pixels; bicubic weighs them all.",
            ),
            Mistake("with Lanczos", {"BICUBIC": "LANCZOS"}, "the hub's processor resizes with bicubic."),
            Mistake(
                "with the picture cropped to a square",
                {
                    "image.resize(": "__import__('PIL.ImageOps').ImageOps.fit(image, ",
                    "resample=": "method=",
                },
                "nothing is cut off: the whole picture is squeezed.",
            ),
            Mistake(
                "with the proportions kept",
                {
                    "np.array(image.resize((image_size, image_size), "
                    "resample=Image.Resampling.BICUBIC))": "np.array(image.resize((image_size, "
                    "image_size * image.height // image.width), Image.Resampling.BICUBIC))"
                },
                "both sides become image_size, whatever they were.",
            ),
            Mistake(
                "with rows and columns swapped",
                {
                    "np.array(image.resize((image_size, image_size), "
                    "resample=Image.Resampling.BICUBIC))": "np.array(image.resize((image_size, "
                    "image_size), resample=Image.Resampling.BICUBIC)).transpose(1, 0, 2)"
                },
                "rows come first, from top to bottom.",
            ),
            Mistake(
                "with a picture returned",
                {
                    "np.array(image.resize((image_size, image_size), "
                    "resample=Image.Resampling.BICUBIC))": "image.resize((image_size, image_size), "
                    "resample=Image.Resampling.BICUBIC)"
                },
                "the next steps compute with it, so it has to be an array.",
            ),
            Mistake(
                "with floats",
                {
                    "resample=Image.Resampling.BICUBIC))": "resample=Image.Resampling.BICUBIC), "
                    "dtype=np.float32)"
                },
                "the result has to be bytes; rescale turns them into floats.",
            ),
        ],
        right_ways=[
            RightWay(
                "np.asarray, another constant",
                {
                    "np.array(image.resize((image_size, image_size), "
                    "resample=Image.Resampling.BICUBIC))": "np.asarray(image.resize([image_size] * 2, "
                    "Image.BICUBIC))"
                },
            ),
            RightWay(
                "from the bytes",
                """
def resize(image, image_size):
    small = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.frombuffer(small.tobytes(), dtype=np.uint8).reshape(image_size, image_size, 3)
""",
            ),
        ],
        compare="the picture's own order is (width, height), the array's is [rows, columns]: a square hides "
        "the difference.",
    ),
    Exercise(
        name="rescale",
        file="text_image_token_processor",
        minutes=5,
        difficulty="easy",
        why="Bytes overflow at 255 and cannot be halved; the tower computes with floats.",
        steps=[
            "Turn the bytes into float32 first.",
            "Multiply by scale, in float32 too.",
            "Return a new array of the same shape.",
        ],
        hints=(
            "Two things, in this order: another type, then a product.",
            "An array has a method that changes its type. A product with a Python number keeps float32; "
            "one with np.float64 does not.",
            "image.astype(np.float32) * np.float32(scale).",
        ),
        cases=[
            Case("a picture", lambda: {"image": bytes_image()}),
            Case("all bytes, scale 1/200", lambda: {"image": all_bytes(), "scale": 1 / 200}),
            Case(
                "a scale that is a numpy float64", lambda: {"image": all_bytes(), "scale": np.float64(0.25)}
            ),
        ],
        mistakes=[
            Mistake(
                "with 1 / 255 whatever scale says",
                {"np.float32(scale)": "np.float32(1 / 255)"},
                "the argument says how much to scale.",
            ),
            Mistake(
                "when divided by scale",
                {"* np.float32(scale)": "/ np.float32(scale)"},
                "scale is the factor, 1/255, not 255.",
            ),
            Mistake(
                "with 1 / 256",
                {"np.float32(scale)": "np.float32(scale * 255 / 256)"},
                "the largest byte, 255, becomes 1.",
            ),
            Mistake(
                "in float64",
                {"image.astype(np.float32) * np.float32(scale)": "image * scale"},
                "numpy computes bytes times a number in float64; the model wants float32.",
            ),
            Mistake(
                "when it is cast back to bytes after scaling",
                {"image.astype(np.float32) * np.float32(scale)": "(image * scale).astype(np.uint8)"},
                "a byte cannot hold 0.5: float32 first, then scale.",
            ),
            Mistake(
                "with whole numbers left",
                {
                    "image.astype(np.float32) * "
                    "np.float32(scale)": "(image * scale).astype(np.uint8).astype(np.float32)"
                },
                "scaled bytes are nearly all 0: float32 first, then scale.",
            ),
            Mistake(
                "without scaling", {" * np.float32(scale)": ""}, "the values have to lie between 0 and 1."
            ),
            Mistake(
                "already from -1 to 1",
                {
                    "image.astype(np.float32) * "
                    "np.float32(scale)": "image.astype(np.float32) * np.float32(scale) * np.float32(2) - "
                    "np.float32(1)"
                },
                "normalize does that, in the next exercise.",
            ),
        ],
        right_ways=[
            RightWay(
                "in place on the new array",
                """
def rescale(image, scale=1 / 255):
    result = image.astype("float32")
    result *= scale
    return result
""",
            ),
            RightWay(
                "in float64, then cast",
                {"image.astype(np.float32) * np.float32(scale)": "(image * scale).astype(np.float32)"},
            ),
            RightWay(
                "np.multiply",
                {
                    "image.astype(np.float32) * "
                    "np.float32(scale)": "np.multiply(image, scale, dtype=np.float32)"
                },
            ),
        ],
        compare="np.float32(scale): a numpy float64 scale would turn the whole picture into float64.",
    ),
    Exercise(
        name="normalize",
        file="text_image_token_processor",
        minutes=5,
        difficulty="easy",
        why="The tower was trained on values from -1 to 1; from 0 to 1, every picture would look pale to it.",
        builds_on=("rescale",),
        steps=[
            "Subtract mean from every value.",
            "Divide by std.",
            "Stay in float32, and return a new array.",
        ],
        hints=(
            "The docstring's formula is the code; mind the type and the parentheses.",
            "mean and std are given, not measured. Python numbers keep float32, numpy float64 ones do not.",
            "(image - np.float32(mean)) / np.float32(std).",
        ),
        cases=[
            Case("mean and std as they are", lambda: {"image": floats_image()}),
            Case("mean 0.3, std 0.2", lambda: {"image": floats_image(), "mean": 0.3, "std": 0.2}),
            Case(
                "mean and std that are numpy float64",
                lambda: {"image": floats_image(), "mean": np.float64(0.1), "std": np.float64(0.7)},
            ),
        ],
        mistakes=[
            Mistake("when multiplied by std", {"/ np.float32(std)": "* np.float32(std)"}, "std divides."),
            Mistake(
                "when mean is added",
                {"image - np.float32(mean)": "image + np.float32(mean)"},
                "mean is subtracted, so that the values lie around zero.",
            ),
            Mistake("without dividing", {" / np.float32(std)": ""}, "dividing by std gives -1 to 1."),
            Mistake(
                "without the mean",
                {"(image - np.float32(mean))": "image"},
                "subtracting mean brings the middle to zero.",
            ),
            Mistake(
                "when divided before the mean is subtracted",
                {
                    "(image - np.float32(mean)) / np.float32(std)": "image / np.float32(std) - "
                    "np.float32(mean)"
                },
                "the subtraction comes first.",
            ),
            Mistake(
                "with mean and std swapped",
                {"np.float32(mean)": "np.float32(std)", "/ np.float32(std)": "/ np.float32(mean)"},
                "mean is subtracted, std divides.",
            ),
            Mistake(
                "with 0.5 whatever mean and std say",
                {"np.float32(mean)": "np.float32(0.5)", "np.float32(std)": "np.float32(0.5)"},
                "the arguments say which to use.",
            ),
            Mistake(
                "with the picture's own mean and std",
                {"np.float32(mean)": "image.mean()", "np.float32(std)": "image.std()"},
                "they are the same for all pictures, or a dark one would look like a bright one.",
            ),
            Mistake("in float64", {"np.float32(mean)": "np.float64(mean)"}, "the model wants float32."),
            Mistake(
                "with the input changed in place",
                """
def normalize(image, mean=0.5, std=0.5):
    image -= np.float32(mean)
    image /= np.float32(std)
    return image
""",
                "`-=` writes into the caller's array.",
            ),
        ],
        right_ways=[
            RightWay(
                "a factor and a shift",
                {
                    "(image - np.float32(mean)) / "
                    "np.float32(std)": "image * np.float32(1 / std) - np.float32(mean / std)"
                },
            ),
            RightWay(
                "in place on a copy",
                """
def normalize(image, mean=0.5, std=0.5):
    result = image.copy()
    result -= mean
    result /= std
    return result
""",
            ),
            RightWay(
                "computed in float64, then cast",
                {
                    "(image - np.float32(mean)) / np.float32(std)": "((image.astype(np.float64) - mean) / "
                    "std).astype(np.float32)"
                },
            ),
        ],
        compare="one mean and one std for all three colors; CLIP's towers have one for each.",
    ),
    Exercise(
        name="process_images",
        file="text_image_token_processor",
        minutes=15,
        difficulty="medium",
        why="Photos come in every size, and some are gray, transparent or indexed: the tower reads one form "
        "only.",
        builds_on=("resize", "rescale", "normalize"),
        steps=[
            "If a picture has transparent parts, lay it on a white background of its size.",
            "Convert each picture to one with three color channels, whatever its mode.",
            "Bring it to image_size, to values from 0 to 1, and from there to -1 to 1.",
            "Move the channels to the front: [3, S, S].",
            "Stack the pictures into one batch, and make it a tensor.",
        ],
        hints=(
            "Follow one picture through the three functions above, and note its shape. Which color does a "
            "PNG have where it is transparent?",
            "has_transparency_data says whether that matters, and Image.alpha_composite lays one RGBA "
            "picture on another; convert gives any picture another mode; transpose of an array takes all "
            "axes in their new order; np.stack makes a batch.",
            'Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")); then '
            'normalize(rescale(resize(image.convert("RGB"), image_size))).transpose(2, 0, 1), for each; '
            "torch.from_numpy(np.stack(...)).",
        ),
        result=PIXELS,
        cases=[
            Case("one RGB picture", lambda: {"images": [picture(17, 9)], "image_size": 13}),
            Case(
                "two pictures of different sizes",
                lambda: {"images": [picture(17, 9), picture(8, 21, seed=3)], "image_size": 13},
            ),
            *(
                Case(
                    f"a picture of mode {mode}",
                    lambda mode=mode: {"images": [picture(17, 9, mode=mode)], "image_size": 13},
                )
                for mode in ("L", "P", "CMYK", "1", "RGBA", "LA")
            ),
            Case(
                "an indexed picture, one of whose colors is transparent",
                lambda: {"images": [transparent_colour(picture(17, 9, mode="P"))], "image_size": 13},
            ),
        ],
        mistakes=[
            Mistake(
                "without the conversion to RGB",
                {'image.convert("RGB")': "image"},
                "a gray picture has one channel and a transparent one has four; the tower wants three.",
            ),
            Mistake(
                "without the white background",
                {"image.has_transparency_data": "False"},
                'a transparent part may hold any color, often black, and `convert("RGB")` alone shows it.',
            ),
            Mistake(
                "with a black background",
                {'"white"': '"black"'},
                "dark lines would vanish on black: transparent parts become white, as on a page.",
            ),
            Mistake(
                "with indexed pictures left out",
                {"image.has_transparency_data": 'image.mode in ("RGBA", "LA")'},
                "a color of the palette can be transparent too, without a channel for it.",
            ),
            Mistake(
                "with the channels left at the end",
                {".transpose(2, 0, 1)": ""},
                "torch's convolution wants the channels first.",
            ),
            Mistake(
                "with rows and columns swapped",
                {".transpose(2, 0, 1)": ".transpose(2, 1, 0)"},
                "only the channels move; rows stay before columns.",
            ),
            Mistake(
                "when the axes are reshaped instead of moved",
                {"pixels.transpose(2, 0, 1)": "pixels.reshape(3, image_size, image_size)"},
                "reshape does not move the channels, it mixes pixels.",
            ),
            Mistake(
                "with blue first",
                {".transpose(2, 0, 1)": ".transpose(2, 0, 1)[::-1]"},
                "PIL's order is red, green, blue, and so is the tower's.",
            ),
            Mistake(
                "without normalizing",
                {"normalize(rescale(pixels))": "rescale(pixels)"},
                "values from 0 to 1 are not enough: -1 to 1.",
            ),
            Mistake(
                "without rescaling",
                {"normalize(rescale(pixels))": "normalize(pixels.astype(np.float32))"},
                "0 to 255 must become 0 to 1 before it is normalized.",
            ),
            Mistake(
                "when normalized before it is rescaled",
                {"normalize(rescale(pixels))": "rescale(normalize(pixels.astype(np.float32)))"},
                "first 0 to 1, then -1 to 1.",
            ),
            Mistake(
                "in float64",
                {"np.stack(prepared)": "np.stack(prepared).astype(np.float64)"},
                "the result has to be float32.",
            ),
            Mistake(
                "with a numpy array returned",
                {"torch.from_numpy(np.stack(prepared))": "np.stack(prepared)"},
                "the model computes with torch tensors.",
            ),
            Mistake(
                "with only the last picture",
                {"torch.from_numpy(np.stack(prepared))": "torch.from_numpy(np.stack(prepared[-1:]))"},
                "every picture of the batch is needed.",
            ),
            Mistake(
                "with gray pictures",
                {'image.convert("RGB")': 'image.convert("L").convert("RGB")'},
                "the colors have to be kept.",
            ),
        ],
        right_ways=[
            RightWay(
                "in torch",
                """
def on_white(image):
    ground = Image.new("RGBA", image.size, (255, 255, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")

def process_images(images, image_size):
    arrays = [normalize(rescale(resize(on_white(image), image_size))) for image in images]
    return torch.stack([torch.from_numpy(array) for array in arrays]).permute(0, 3, 1, 2).contiguous()
""",
            ),
            RightWay(
                "pasted through its own alpha, all at once",
                """
def process_images(images, image_size):
    rgb = []
    for image in images:
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            ground = Image.new("RGB", image.size, "white")
            ground.paste(image, mask=image.getchannel("A"))
            image = ground
        rgb.append(image.convert("RGB"))
    pixels = np.stack([resize(image, image_size) for image in rgb])
    return torch.tensor(normalize(rescale(pixels))).permute(0, 3, 1, 2)
""",
            ),
        ],
        compare="the order convert, resize, rescale: resizing bytes and resizing floats do not round the "
        "same way, and an indexed picture (mode P) cannot be interpolated at all.",
    ),
    Exercise(
        name="PaliGemmaProcessor",
        file="text_image_token_processor",
        minutes=10,
        difficulty="easy",
        why="A tokenizer without `<image>` would give nonsense, silently: it is refused before anything "
        "is read.",
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
                    "self.bos_token_id = "
                    "self._token_id(BOS_TOKEN)": 'self.bos_token_id = self._token_id("<eos>")'
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
                    "self.pad_token_id = "
                    "self._token_id(PAD_TOKEN)": "self.pad_token_id = self._token_id(BOS_TOKEN)",
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
                    'raise ValueError(f"the tokenizer has no {token!r} token: it is not '
                    "PaliGemma's\")": 'return self.tokenizer.token_to_id("<unk>")'
                },
                "a missing token is an error: a ValueError.",
            ),
        ],
        right_ways=[
            RightWay(
                "through the vocabulary",
                """
def _token_id(self, token):
    vocabulary = self.tokenizer.get_vocab()
    if token not in vocabulary:
        raise ValueError("no " + token)
    return vocabulary[token]
""",
            ),
            RightWay(
                "in another order",
                """
def __init__(self, tokenizer, num_image_tokens, image_size):
    self.num_image_tokens, self.image_size, self.tokenizer = num_image_tokens, image_size, tokenizer
    for name, token in (("pad", "<pad>"), ("newline", "\\n"), ("image", "<image>"), ("bos", "<bos>")):
        setattr(self, name + "_token_id", self._token_id(token))
""",
            ),
        ],
        compare="`is None`, not `not token_id`: the id of `<pad>` is 0.",
    ),
    Exercise(
        name="PaliGemmaProcessor.__call__",
        file="text_image_token_processor",
        minutes=40,
        difficulty="hard",
        why="Here picture and prompt become what the model takes: after this you can run it on your own "
        "photo.",
        builds_on=("add_image_tokens_to_prompt", "process_images", "PaliGemmaProcessor"),
        steps=[
            "Refuse, with a ValueError, lists of different lengths and a prompt that contains `<image>`.",
            "Write each prompt with its image tokens, and turn it into ids; the text already spells out its "
            "special tokens, so the tokenizer must not add any.",
            "Find the length of the longest row, T. Pad the shorter ones to T on the left with the padding "
            "id.",
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
                    "[self.pad_token_id] * (T - len(row)) + row": "row + [self.pad_token_id] * (T - "
                    "len(row))",
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
                "with 0 for the padding, whatever `<pad>`'s id is",
                {"[self.pad_token_id] * ": "[0] * "},
                "self.pad_token_id is the id of `<pad>`.",
            ),
            Mistake(
                "with the mask computed from the ids 0",
                {
                    "torch.tensor([[0] * (T - len(row)) + [1] * len(row) for row in rows])": "(input_ids != "
                    "0).long()"
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
                    "T = max(len(row) for row in "
                    "rows)": "T = min(len(row) for row in rows)\n        rows = [row[:T] for row in rows]"
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
            RightWay(
                "filling in a tensor of padding",
                """
def __call__(self, text, images):
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
        input_ids[i, T - len(row):] = torch.tensor(row)
        attention_mask[i, T - len(row):] = 1
    pixel_values = process_images(images, self.image_size)
    return dict(attention_mask=attention_mask, input_ids=input_ids, pixel_values=pixel_values)
""",
            ),
            RightWay(
                "reversed, padded on the right, reversed",
                """
def __call__(self, text, images):
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
""",
            ),
            RightWay(
                "the tokenizer's own padding",
                """
def __call__(self, text, images):
    if len(text) != len(images) or IMAGE_TOKEN in "".join(text):
        raise ValueError("wrong input")
    self.tokenizer.enable_padding(direction="left", pad_id=self.pad_token_id, pad_token="<pad>")
    encoded = self.tokenizer.encode_batch(
        [add_image_tokens_to_prompt(t, self.num_image_tokens) for t in text], add_special_tokens=False)
    self.tokenizer.no_padding()
    return {
        "pixel_values": process_images(images, self.image_size),
        "input_ids": torch.tensor([e.ids for e in encoded]),
        "attention_mask": torch.tensor([e.attention_mask for e in encoded]),
    }
""",
            ),
        ],
        compare="padding on the left: every row ends in its newline, so the next token comes at the same "
        "position in all of them.",
    ),
]
