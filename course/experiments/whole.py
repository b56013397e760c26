"""Experiments with the whole model: joining picture and words, and positions."""

from course.experiments.edits import Edit
from course.experiments.experiment import Experiment

FILE = "decoder_1"
MERGE = "PaliGemmaForConditionalGeneration._merge_input_ids_with_image_features"
DIVIDED = "image_features = image_features.to(inputs_embeds.dtype) / normalizer"
POSITIONS = "position_ids = attention_mask.cumsum(dim=1)[:, num_cached:]"

EXPERIMENTS = (
    Experiment(
        "picture-undivided",
        "the picture's features are not divided by √D",
        "_merge_input_ids_with_image_features",
        "joining",
        (Edit(FILE, MERGE, DIVIDED, "image_features = image_features.to(inputs_embeds.dtype)"),),
        "The picture enters the decoder 11 times as loud as it should. Does it drown the question?",
        """Not the question, itself: the model forgets the umbrella, ["two cats"](cats caption: "two
        cats"), says ["two rockets"](night caption: "two rockets") and finds [a third cat](cats detect:
        3 boxes). The decoder multiplies everything by √D, and the division is there so that it does not
        happen to the picture. Inside a layer a norm takes the length out again, so what attention reads
        of the picture is nearly right at first; but what a layer adds to a vector 11 times too long is
        a whisper. Image tokens stay what they were, and do not get worked on.""",
    ),
    Experiment(
        "picture-off",
        "the picture's features are all zero",
        "_merge_input_ids_with_image_features",
        "joining",
        (Edit(FILE, MERGE, DIVIDED, DIVIDED + " * 0"),),
        "A blind model, asked about a picture. What would you say in its place?",
        """It says [the same about both](caption: alike; caption: changed): "{cats caption}", and [finds
        nothing](detect: nothing). For the places it guesses: ["bottom right"](cats where: "bottom
        right") and ["bottom left"](night where: "bottom left"). The second guess is right, which
        teaches something else: a question with nine possible answers is answered right every now and
        then by a model that sees nothing. Whoever measures a model's understanding of pictures should
        measure it blind, too.""",
    ),
    Experiment(
        "pictures-exchanged",
        "every row gets the picture of another row",
        "_merge_input_ids_with_image_features",
        "joining",
        (Edit(FILE, MERGE, DIVIDED, DIVIDED + "\nimage_features = image_features.flip(0)"),),
        "The questions about the cats go with the night picture, and the other way round. The answers?",
        """They are perfect, for the wrong picture: ["a rocket and a star"](cats caption: "a rocket and
        a star") for the cats and ["two cats and an umbrella"](night caption: "two cats and an
        umbrella") for the night. Asked for a cat, the model says that there is [none](cats detect:
        nothing), and it is right. Asked where the umbrella is, it says ["bottom left"](cats where:
        "bottom left"), which is where the rocket is: the word umbrella is ignored, because there was
        always one thing to be asked about. This happens when features slip into another row of a batch,
        and the only sign of it is that the answers are good and false.""",
    ),
    Experiment(
        "features-reversed",
        "the picture's features enter in reverse order",
        "_merge_input_ids_with_image_features",
        "positions",
        (Edit(FILE, MERGE, DIVIDED, DIVIDED + "\nimage_features = image_features.flip(1)"),),
        "The last patch first. The tower is done by then, and every feature knows its place in the "
        "picture. The places?",
        """Opposite: the umbrella at the top is at the ["bottom"](cats where: "bottom"), and the rocket,
        bottom left, is at the ["top left"](night where: "top left"). [Captions](caption: same) do not
        change by a letter. So the decoder tells what a thing is from the feature, and where it is
        largely from the position of the image token, although the feature would know. The rocket did
        not change sides, left and right, so for those it does trust the feature. Nobody designed this
        division of labor.""",
    ),
    Experiment(
        "picture-averaged",
        "every image token gets the average of all features",
        "_merge_input_ids_with_image_features",
        "patches",
        (
            Edit(
                FILE,
                MERGE,
                DIVIDED,
                DIVIDED + "\nimage_features = image_features.mean(dim=1, keepdim=True).expand(B, N, D)",
            ),
        ),
        "One vector for the whole picture, as in CLIP's and SigLIP's pooled embeddings. Enough for a "
        "caption?",
        """Not for this model: ["a dog"](cats caption: "a dog") and ["a pizza"](night caption: "a
        pizza"), and [no box](detect: nothing). An average says which colors and textures there are, and
        loses where, and what belongs together. This is why PaliGemma takes all patches and drops
        SigLIP's pooling: a vector per picture is enough to compare it with a sentence, and not to talk
        about what is in it. The price is a sequence of 256 tokens before the first word.""",
    ),
    Experiment(
        "shifted-by-one",
        "the picture's features are shifted by one image token",
        "_merge_input_ids_with_image_features",
        "joining",
        (Edit(FILE, MERGE, DIVIDED, DIVIDED + "\nimage_features = image_features.roll(1, dims=1)"),),
        "An off-by-one: every feature stands one token too far to the right. By how much do the boxes move?",
        """By next to nothing: [the boxes](detect: kept), [the captions](caption: same), [the
        places](where: same), all there. One token is a tenth of the picture's width, so if the decoder
        measured by counting tokens, the boxes would have moved by a tenth of it. They did not: the
        exact coordinates come out of the features, which were given their places in the tower. Compare
        with `features-reversed`, where the order did count. Off-by-one mistakes like this one are found
        by comparing numbers, or never.""",
    ),
    Experiment(
        "far-away",
        "all positions + 1000",
        "PaliGemmaForConditionalGeneration.forward",
        "positions",
        (Edit(FILE, "PaliGemmaForConditionalGeneration.forward", POSITIONS, POSITIONS + " + 1000"),),
        "The model never came near position 1001 in training. What does it do there?",
        """The same as ever: [captions](caption: same), [places](where: same), [boxes](detect: kept). A
        query and a key are each rotated by the angle of its position, and their product depends on the
        difference of the angles alone; adding 1000 to both cancels out. That is the point of rotary
        positions, and why it does not matter that transformers counts from 1 and the makers' code from
        0. It holds up to rounding: in bfloat16 the same change moves some of a box's numbers by a
        thousandth or two. A learned table of positions, as in GPT-2, would have no row 1001.""",
    ),
    Experiment(
        "stretched",
        "all positions doubled",
        "PaliGemmaForConditionalGeneration.forward",
        "positions",
        (Edit(FILE, "PaliGemmaForConditionalGeneration.forward", POSITIONS, POSITIONS + " * 2"),),
        "Adding to all positions did no harm. And doubling them?",
        """Now distances are doubled, too, and the answers break: ["two cats"](cats caption: "two cats")
        without the umbrella, its place is ["middle"](cats where: "middle"), and [the star is not
        found](night detect: nothing). To the decoder the neighbor is two steps away, and nobody is one
        step away. Even so, the rocket and the star [are still named](night caption: same). Relative
        positions are free of where the zero is, but not of the unit.""",
    ),
    Experiment(
        "counting-restarts",
        "new tokens count their positions from 1 again",
        "PaliGemmaForConditionalGeneration.forward",
        "cache",
        (
            Edit(
                FILE,
                "PaliGemmaForConditionalGeneration.forward",
                POSITIONS,
                "position_ids = attention_mask[:, num_cached:].cumsum(dim=1)",
            ),
        ),
        "The cache is used, but its length is forgotten when positions are given. What does the answer "
        "look like?",
        """The first token is right, because it comes from the prompt: ["<loc0272>"](cats detect:
        "<loc0272>") is the top of the first cat. Then the model believes itself back at position 1, in
        front of the picture, and [stops after it](detect: 0 boxes). Short answers pass: [places](where:
        same), which are mostly one word, and [one caption](night caption: same) are right. So test a
        cache with long answers, and hold it against the same tokens computed without it.""",
    ),
)
