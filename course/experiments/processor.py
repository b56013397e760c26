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
        """The model does what it always does: it writes what comes next. In training the first word of
        an answer came after a newline and never anywhere else, so now the prompt's last word is taken
        for a part of the answer. After "cat" in an answer come a semicolon and the next box, and so
        they do here: [only the second cat](cats detect: 1 box) is found. The "en" of "caption en" is
        repeated [without end](caption: endless), and asked for a place the model [says nothing at
        all](where: nothing), as if the prompt had been the whole answer. The newline is no formality
        but the word that means "your turn". The same happens in many chat models when one token of
        their template is missing.""",
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
        """Nearly so, but not for words: [the captions](caption: same) and [both places](where: same)
        stay. Boxes break: the cats' are ["{cats detect}"](cats detect: changed), and the star's answer
        is ["{night detect}"](night detect: 0 boxes), one edge and then the end. `<bos>` means nothing,
        and so it can serve heads that have nothing to look for: in "detect cat", head 3 of layer 1
        gives it more than 99 % of the newline's attention, which now has to go elsewhere. A mistake
        that leaves all words right is the kind that stays in code for years.""",
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
        """[No caption](caption: changed) and [no box](detect: 0 boxes) survives: two cats and an
        umbrella are "{cats caption}", although the prompt asks for English. All tokens of the prefix
        do see each other, but the first token of the answer is read off the last position, and that
        is now a piece of the picture instead of the newline. So it is a guess: the likeliest
        beginning of that caption, [the French word for umbrella](cats caption: says parapluie), has a
        chance of 24 %. Positions count too: queries learned that the picture lies some hundred tokens
        back, and now it is next door. Nothing in the architecture wants the picture first; the
        weights do, because they never saw anything else.""",
    ),
    Experiment(
        "thumbnail",
        "the picture is shrunk to 20 x 20 pixels before it is resized",
        "resize",
        "patches",
        (
            Edit(
                FILE,
                "resize",
                "return np.array(image.resize((image_size, image_size), resample=Image.Resampling.BICUBIC))",
                "image = image.resize((20, 20))\n"
                "return np.array(image.resize((image_size, image_size), resample=Image.Resampling.BICUBIC))",
            ),
        ),
        "Of every 64 pixels that the tower is given, one is left. Do you still see two cats and an umbrella? "
        "Does the model?",
        """The cats it does see, the umbrella it takes for something else: the caption is ["two cats
        and a mushroom"](cats caption: "two cats and a mushroom"), and the umbrella's place ["nothing
        I know"](cats where: "nothing I know"). In the small picture a cat is 7 pixels wide and 9
        high, the umbrella 4 and 5, which is enough for a cap on a stem. What is large [is
        found](detect: kept), with every edge [within a pixel](detect: within 50) of the small
        picture, and [the rocket and the star](night caption: same) are told apart as before. This is
        why PaliGemma comes for 224, 448, and 896 pixels: the larger ones are for what is small, such
        as text.""",
    ),
    Experiment(
        "not-rescaled",
        "pixels from 0 to 255, normalized but not rescaled",
        "rescale",
        "patches",
        (Edit(FILE, "process_images", PIXELS, "pixels = normalize(pixels)"),),
        "The division by 255 is forgotten: the tower is given numbers from -1 to 509 instead of -1 to 1. "
        "And the answers?",
        """All is lost: the captions are ["{cats caption}"](cats caption: changed) and ["{night
        caption}"](night caption: changed), there is [no box](detect: 0 boxes), and the umbrella,
        which is at the top, is said to be at the ["{cats where}"](cats where: changed). Numbers up to
        509 instead of 1 drown the position embeddings, which are added to them, and the biases. The
        layer norms after that bring the vectors back to an ordinary length, so no number overflows
        and nothing warns you; what was small beside the pixels is gone.""",
    ),
    Experiment(
        "not-normalized",
        "pixels from 0 to 1 instead of -1 to 1",
        "normalize",
        "patches",
        (Edit(FILE, "process_images", PIXELS, "pixels = rescale(pixels)"),),
        "And if it is the next step that is forgotten? Every number is still wrong. As bad as "
        "`not-rescaled`?",
        """You would hardly notice: [captions](caption: same) and [places](where: same) are the
        reference's, and [the same boxes](detect: kept) are found, with edges moved by [less than a
        hundredth](detect: changed; detect: within 9) of the picture. To the tower the picture is
        paler, with half the contrast, and it has seen pale pictures. Forgotten normalization is one of
        the most common mistakes in code that uses somebody's vision model, and this is why: it does
        not break anything, it makes everything a little different.""",
    ),
    Experiment(
        "mirrored",
        "the picture is mirrored",
        "process_images",
        "patches",
        (Edit(FILE, "process_images", PIXELS, "pixels = normalize(rescale(pixels))[:, ::-1]"),),
        "Which of the six answers have to change, if the model really looks?",
        """Exactly those that depend on left and right. The caption of the rocket begins with the
        star: ["a star and a rocket"](night caption: "a star and a rocket"), because captions go from
        left to right, and the star's box [changes sides](night detect: 1 box; night detect: changed).
        The umbrella [is at the top as before](cats where: same). [Two cats](cats detect: 2 boxes;
        cats detect: changed) are found again, mirrored, and [their caption](cats caption: same)
        stays. The rocket itself is at the ["bottom right"](night where: "bottom right"), with a
        chance of 99 %, while unmirrored the model goes on to "left" with 81 % and stops after
        "bottom" with 19 %: the rocket's middle lies on the border of the outer third, within a
        hundredth, so that neither answer is false. Nothing was learned by heart: the answers follow
        the pixels.""",
    ),
    Experiment(
        "bgr",
        "red and blue change places",
        "process_images",
        "patches",
        (Edit(FILE, "process_images", CHANNELS, "prepared.append(pixels[:, :, ::-1].transpose(2, 0, 1))"),),
        "OpenCV reads pictures as blue, green, red. Which answers depend on color?",
        """Hardly any: [captions](caption: same) and [places](where: same) are as before, and [all
        boxes](detect: kept) are found, with edges moved by [a hundredth at most](detect: within 10).
        In training some drawings were given another hue, so that shape had to be learned as well: a
        blue cat is a cat. Color itself is seen, though: asked "what colour is the star?", the changed
        model says "blue" instead of "orange". So six answers without a mistake do not prove that the
        channels are in order, and every picture that comes from `cv2.imread` without a conversion
        looks like this to the model.""",
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
        """It finds things, but it is less sure what they are. [Both cats](cats detect: kept) get
        their boxes, with edges moved by [6 % of the picture at most](cats detect: within 60; cats
        detect: changed): in gray their light yellow is 205 of 255 and the ground beside them 215 to
        226, so that the outline is nearly gone. What stands out in gray as well keeps its box: [the
        star's](night detect: within 8) is where it was. But the first caption's cats have a chance of
        only 50 %, against 43 % for dogs, and of the second only ["a star"](night caption: "a star")
        is left: it came out ahead of the rocket, 50 % to 37 %, and as captions go from left to right,
        nothing comes after it. Color is a part of what tells one thing from another, and what is lost
        with it shows only when you take it away.""",
    ),
    Experiment(
        "transposed",
        "rows and columns of the picture change places",
        "process_images",
        "patches",
        (Edit(FILE, "process_images", CHANNELS, "prepared.append(pixels.transpose(2, 1, 0))"),),
        "transpose(2, 1, 0) gives the right shape, too. What does the model see now?",
        """The picture is turned over its diagonal: what was top is left, and cats lie on their sides.
        These [are none](cats detect: nothing) but ["{cats caption}"](cats caption: changed), the
        umbrella, now at the left, is said to be at the ["{cats where}"](cats where: changed), and of
        the rocket's place the model says ["nothing I know"](night where: "nothing I know"). In training
        drawings were mirrored and tilted, but never laid on their sides. A star turned over is [still a
        star](night caption: "a star"), and [its box](night detect: 1 box) lies at the left now, where
        it belongs in this picture. As the picture is square, no shape is wrong, and no error is
        raised.""",
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
        ["nothing I know"](caption: "nothing I know"; where: "nothing I know") and [finds
        nothing](detect: nothing). This is one of the most common shape mistakes: `transpose` moves
        axes, `reshape` cuts a row of numbers into pieces.""",
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
        """The [longest prompts](where: same), which need no padding, are answered as before, and [all
        others](caption: changed; detect: changed) wrongly. The next token is read off the last
        position, and that is a `<pad>` now, from which nothing was ever predicted. So the first token
        is a guess: of the first caption's, the likeliest has a chance of 26 %, and of the cats' boxes
        of less than 3 %. The answer goes on from there as well as it can: the captions are "{cats
        caption}" and "{night caption}", and the cats' boxes "{cats detect}". PaliGemma's makers
        trained with padding on the right, without harm, because there every token's place is known;
        to generate, all rows have to end at the same position. A test with a single prompt never
        finds this.""",
    ),
    Experiment(
        "padding-seen",
        "prompts are padded to 384 tokens, and padding may be looked at",
        "PaliGemmaProcessor.__call__",
        "joining",
        (
            Edit(
                FILE,
                "PaliGemmaProcessor.__call__",
                "T = max(len(row) for row in rows)",
                "T = max(384, *(len(row) for row in rows))",
            ),
            Edit(
                FILE,
                "PaliGemmaProcessor.__call__",
                "attention_mask = torch.tensor([[0] * (T - len(row)) + [1] * len(row) for row in rows])",
                "attention_mask = torch.ones_like(input_ids)",
            ),
        ),
        "Some 280 <pad> before a hundred image tokens, and no mask that hides them: can they do any harm?",
        """None that you would see in these answers: [both captions](caption: same) and [the
        umbrella's place](cats where: same) stay, and [all boxes](detect: kept) are found, with edges
        moved by [less than a hundredth](detect: within 9). But the model is less sure of them: the
        star at the end of the second caption, which had a chance of more than 99 %, is down to 46 %,
        before a key with 15 %. Attention shares out a whole, and whatever is not masked gets a share,
        also a token that means nothing: of what the last token of the second caption's prompt has to
        give, the 280 pads get nearly six tenths on average, and 93 % in head 0 of layer 0. With the
        real mask the same pads change not a letter. An answer that was sure survives such a loss and
        a close one does not, which is why this mistake is found late.""",
    ),
)
