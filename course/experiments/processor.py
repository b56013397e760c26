"""Experiments with what the model is given: the text around the prompt, and the pixels."""

from course.experiments.edits import Edit
from course.experiments.experiment import Experiment

FILE = "text_image_token_processor_1"
TEXT = 'return f"{IMAGE_TOKEN * num_image_tokens}{BOS_TOKEN}{prompt}{NEWLINE}"'
PIXELS = "pixels = normalize(rescale(pixels))"
CHANNELS = "prepared.append(pixels.transpose(2, 0, 1))"

EXPERIMENTS = (
    Experiment(
        "no-newline",
        "the prompt does not end in a newline",
        "add_image_tokens_to_prompt",
        "joining",
        (
            Edit(
                FILE,
                "add_image_tokens_to_prompt",
                TEXT,
                'return f"{IMAGE_TOKEN * num_image_tokens}{BOS_TOKEN}{prompt}"',
            ),
        ),
        "One character less, and it cannot even be seen. What will the model answer?",
        """The model does what it always does: it writes what comes next. In training an answer came
        after a newline and never anywhere else, so without one the prompt is not over, and the model
        goes on with the prompt: "caption en" continues as "{cats caption}". [A question becomes no
        answer at all](where: nothing). The newline is no formality but the word that means "your turn".
        The same happens in many chat models when one token of their template is missing.""",
    ),
    Experiment(
        "no-bos",
        "no <bos> between the picture and the prompt",
        "add_image_tokens_to_prompt",
        "joining",
        (
            Edit(
                FILE,
                "add_image_tokens_to_prompt",
                TEXT,
                'return f"{IMAGE_TOKEN * num_image_tokens}{prompt}{NEWLINE}"',
            ),
        ),
        "Another special token is missing. Is it as bad as the missing newline?",
        """Hardly anything happens: [captions](caption: same) and [places](where: same) stay, and [the
        cats are found where they were](cats detect: kept). `<bos>` says nothing that is not said
        otherwise: that the prompt begins is plain from the end of the image tokens. Even so, [the
        star's box is wrong](night detect: changed; night detect: 1 box): numbers are more delicate than
        words. A mistake that shows in one answer out of six is the kind that stays in code for
        years.""",
    ),
    Experiment(
        "image-last",
        "the image tokens come after the prompt",
        "add_image_tokens_to_prompt",
        "joining",
        (
            Edit(
                FILE,
                "add_image_tokens_to_prompt",
                TEXT,
                'return f"{BOS_TOKEN}{prompt}{NEWLINE}{IMAGE_TOKEN * num_image_tokens}"',
            ),
        ),
        "In the prefix everything sees everything, whatever its order. So does the order matter at all?",
        """[No caption](caption: changed) and [no box](detect: 0 boxes) survives. All tokens of the
        prefix do see each other, but the first token of the answer is read off the last position, and
        that is now a piece of the picture instead of the newline. Positions count too: queries learned
        that the picture lies some hundred tokens back, and now it is next door. Nothing in the
        architecture wants the picture first; the weights do, because they never saw anything else.""",
    ),
    Experiment(
        "thumbnail",
        "the picture is shrunk to 32 x 32 pixels before it is resized",
        "resize",
        "patches",
        (
            Edit(
                FILE,
                "resize",
                "return np.array(image.resize((image_size, image_size), resample=Image.Resampling.BICUBIC))",
                "image = image.resize((32, 32))\n"
                "return np.array(image.resize((image_size, image_size), resample=Image.Resampling.BICUBIC))",
            ),
        ),
        "Of every 25 pixels that the tower is given, one is left. Do you still see two cats and an "
        "umbrella? Does the model?",
        """[All captions and all places](caption: same; where: same) are as before, from 1,024 pixels.
        What a thing is shows in coarse shape and color, and those survive. Where it ends does not: [a
        third cat, which is the umbrella, is found](cats detect: 3 boxes). This is why PaliGemma comes
        for 224, 448 and 896 pixels: the larger ones are for what is small, such as text, and for where
        it is.""",
    ),
    Experiment(
        "not-rescaled",
        "pixels from 0 to 255, normalized but not rescaled",
        "rescale",
        "patches",
        (Edit(FILE, "process_images", PIXELS, "pixels = normalize(pixels)"),),
        "The division by 255 is forgotten: every number that the tower is given is 255 times too large. "
        "And the answers?",
        """All is lost: both pictures are ["a ball and a ball"](caption: "a ball and a ball"), and
        [nothing is found](detect: nothing). Numbers up to 509 instead of 1 drown the position
        embeddings, which are added to them, and the biases. The layer norms after that bring the
        vectors back to an ordinary length, so no number overflows and nothing warns you; what was small
        beside the pixels is gone.""",
    ),
    Experiment(
        "not-normalized",
        "pixels from 0 to 1 instead of -1 to 1",
        "normalize",
        "patches",
        (Edit(FILE, "process_images", PIXELS, "pixels = rescale(pixels)"),),
        "And if it is the next step that is forgotten? Every number is still wrong. As bad as "
        "`not-rescaled`?",
        """Everything looks right: [captions](caption: same) and [places](where: same) are the
        reference's. To the tower the picture is paler, with half the contrast, and it has seen pale
        pictures. Only [a third box, on the umbrella](cats detect: 3 boxes; night detect: kept), gives
        it away. Forgotten normalization is one of the most common mistakes in code that uses somebody's
        vision model, and this is why: it does not break anything, it makes everything slightly
        worse.""",
    ),
    Experiment(
        "mirrored",
        "the picture is mirrored",
        "process_images",
        "patches",
        (Edit(FILE, "process_images", PIXELS, "pixels = normalize(rescale(pixels))[:, ::-1]"),),
        "Which of the six answers have to change, if the model really looks?",
        """Exactly those that speak of left and right. The rocket, bottom left, is now ["bottom
        right"](night where: "bottom right"), and its caption begins with the star: ["a star and a
        rocket"](night caption: "a star and a rocket"), because captions go from left to right. The
        umbrella [is at the top as before](cats where: same). [Two cats](cats detect: 2 boxes) are found
        again, mirrored. Nothing was learned by heart: the answers follow the pixels.""",
    ),
    Experiment(
        "bgr",
        "red and blue change places",
        "process_images",
        "patches",
        (Edit(FILE, "process_images", CHANNELS, "prepared.append(pixels[:, :, ::-1].transpose(2, 0, 1))"),),
        "OpenCV reads pictures as blue, green, red. Which answers depend on color?",
        """The two cats become [two dogs](cats caption: says two dogs), the rocket a [hat](night
        caption: says hat), and [no cat is found](cats detect: nothing) any more: cats are yellow and
        orange in the drawings, and blue ones were hardly ever seen. [The star](night detect: kept),
        orange once and blue now, is still found by its shape. [Both places](where: same) are right:
        where something is does not hang on its color. Blue cats are no oddity: every picture that comes
        from `cv2.imread` without a conversion looks like this to the model.""",
    ),
    Experiment(
        "gray",
        "the picture loses its colors",
        "process_images",
        "patches",
        (
            Edit(
                FILE,
                "process_images",
                'pixels = resize(image.convert("RGB"), image_size)',
                'pixels = resize(image.convert("L").convert("RGB"), image_size)',
            ),
        ),
        "You recognize a cat in a black-and-white film. Does the model?",
        """No: it sees ["three dogs"](cats caption: "three dogs"), and [finds no cat](cats detect:
        nothing). Where things are is [still right](where: same), and [the star keeps its box](night
        detect: kept). A model of a few million parameters has learned the cheapest way to tell its
        drawings apart, and color is cheap. What a network has learned to see shows only when you take
        something away.""",
    ),
    Experiment(
        "transposed",
        "rows and columns of the picture change places",
        "process_images",
        "patches",
        (Edit(FILE, "process_images", CHANNELS, "prepared.append(pixels.transpose(2, 1, 0))"),),
        "transpose(2, 1, 0) gives the right shape, too. What does the model see now?",
        """The picture is turned over its diagonal: what was top is left. So the umbrella, at the top,
        is now on the ["left"](cats where: "left"), and the rocket, bottom left, is ["top right"](night
        where: "top right"): true answers about the picture that the model was given. A star turned over
        is [still a star](night detect: 1 box), but cats lying on their side [are none](cats detect:
        nothing). As the picture is square, no shape is wrong, and no error is raised.""",
    ),
    Experiment(
        "reshaped",
        "reshape instead of transpose, to bring the channels to the front",
        "process_images",
        "shapes",
        (
            Edit(
                FILE, "process_images", CHANNELS, "prepared.append(pixels.reshape(3, image_size, image_size))"
            ),
        ),
        "Both give [3, S, S]. Is reshape(3, S, S) the same as transpose(2, 0, 1)?",
        """It is not: reshape leaves every number where it lies in memory and only counts them in
        another way. In memory red, green and blue alternate, so each "channel" is a third of the
        picture, its rows cut in three, with red, green and blue side by side as stripes. The model sees
        ["{cats caption}"](cats caption: changed) and ["{night caption}"](night caption: changed), and
        [finds nothing](detect: nothing). This is one of the most common shape mistakes: `transpose`
        moves axes, `reshape` cuts a row of numbers into pieces.""",
    ),
    Experiment(
        "padded-right",
        "padding on the right",
        "PaliGemmaProcessor.__call__",
        "joining",
        (
            Edit(
                FILE,
                "PaliGemmaProcessor.__call__",
                "input_ids = torch.tensor([[self.pad_token_id] * (T - len(row)) + row for row in rows])",
                "input_ids = torch.tensor([row + [self.pad_token_id] * (T - len(row)) for row in rows])",
            ),
            Edit(
                FILE,
                "PaliGemmaProcessor.__call__",
                "attention_mask = torch.tensor([[0] * (T - len(row)) + [1] * len(row) for row in rows])",
                "attention_mask = torch.tensor([[1] * len(row) + [0] * (T - len(row)) for row in rows])",
            ),
        ),
        "The six questions are one batch, and the shorter ones are padded. A few pads before or after: "
        "which answers change?",
        """The [longest prompts](where: same), which need no padding, are answered as before. [All
        others](caption: changed; detect: changed) are nonsense. The next token is read off the last
        position, and that is a `<pad>` now, from which nothing was ever predicted. Training pads on the
        right without harm, because there every token's place is known; to generate, all rows have to
        end at the same position. A test with a single prompt never finds this.""",
    ),
    Experiment(
        "padding-seen",
        "padding may be looked at",
        "PaliGemmaProcessor.__call__",
        "joining",
        (
            Edit(
                FILE,
                "PaliGemmaProcessor.__call__",
                "attention_mask = torch.tensor([[0] * (T - len(row)) + [1] * len(row) for row in rows])",
                "attention_mask = torch.ones_like(input_ids)",
            ),
        ),
        "A few <pad> before a hundred image tokens: can they do any harm?",
        """They can: the caption of the first picture becomes "{cats caption}", and [no box is
        found](detect: 0 boxes). Attention shares out a whole, and whatever is not masked gets a share,
        also a token that means nothing. Besides, every real token now stands a few positions further
        on. [The longest prompts](where: same) have no padding and are safe. So an answer would depend
        on what else happens to be in the batch, which is how this mistake is usually noticed.""",
    ),
)
