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
        "The picture enters the decoder 14 times as loud as it should. Does it drown the question?",
        """Not the question itself, but much of the answer: two cats and an umbrella become ["a cat and two
        cats"](cats caption: "a cat and two cats"), `detect cat` puts a [third box](cats detect: 3 boxes) on
        the umbrella, whose place is [wrong](cats where: changed), and no star [is found](night detect:
        nothing). The decoder multiplies everything by √D, and the division is there so that it does not
        happen to the picture. Inside a layer a norm takes the length out again, so what attention reads of
        the picture is nearly right at first, enough for [the second caption](night caption: same); but what
        a layer adds to a vector 14 times too long is a whisper. Image tokens stay what they were, and do
        not get worked on.""",
    ),
    Experiment(
        "picture-off",
        "the picture's features are all zero",
        "_merge_input_ids_with_image_features",
        "joining",
        (Edit(FILE, MERGE, DIVIDED, DIVIDED + " * 0"),),
        "A blind model, asked about a picture. What would you say in its place?",
        """Asked for things, it admits that it sees nothing: it finds [no cat](cats detect: nothing), and of
        both places it says, with a stammer at the end, that there is [nothing it knows](where: says nothing I
        know). It was trained on questions about things that are not there, so it has the words. But it has
        [the same caption for both](caption: alike; caption: changed), "{cats caption}", although "nothing I
        know" is the caption of pictures with none of its 42 things: that had a chance of 42 %, and "a" one of
        54 %. From there on it has to guess, and such a guess sounds as sure as an answer. Whoever measures a
        model's understanding of pictures should measure it blind, too, since whatever it gets right that way
        it did not see; here that is [not one answer of six](all: changed).""",
    ),
    Experiment(
        "pictures-exchanged",
        "every row gets the picture of another row",
        "_merge_input_ids_with_image_features",
        "joining",
        (Edit(FILE, MERGE, DIVIDED, DIVIDED + "\nimage_features = image_features.flip(0)"),),
        "The questions about the cats go with the night picture, and the other way around. The answers?",
        """They are perfect, for the wrong picture: ["a rocket and a star"](cats caption: "a rocket and
        a star") for the cats and ["two cats and an umbrella"](night caption: "two cats and an
        umbrella") for the night. Asked for a cat or a star, the model says that there is [none](detect:
        nothing), and it is right. Asked where the umbrella is, or the rocket, it says ["nothing I
        know"](where: "nothing I know"), and it is right again: neither is in the picture that it was
        given. This happens when features slip into another row of a batch, and the only sign of it is
        that the answers are good and false.""",
    ),
    Experiment(
        "features-reversed",
        "the picture's features enter in reverse order",
        "_merge_input_ids_with_image_features",
        "positions",
        (Edit(FILE, MERGE, DIVIDED, DIVIDED + "\nimage_features = image_features.flip(1)"),),
        "The last patch first. The tower is done by then, and every feature knows its place in the "
        "picture. The places?",
        """Opposite, but only up and down: the umbrella at the top is at the ["bottom"](cats where: "bottom"),
        and the rocket at the bottom is at the [top](night where: says top). The star's box says the same in
        numbers: it now reaches from [582 to 947](night detect: says <loc058; night detect: says <loc094),
        where it reached from 75 to 328, while [left and right](night detect: says <loc086) stay where they
        were. Its exact mirror image would be from 696 to 949: the lower edge is nearly there, the upper one
        is not, so the feature has a say in the row, too. [Captions](caption: same) do not change by a letter.
        So the decoder tells what a thing is from the feature, its column, too, and reads the row mostly from
        the position of the image token, although the feature would know; nobody designed this division of
        labor.""",
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
        """Not for this model: ["nothing I know"](caption: "nothing I know") is all that it has to say, [about
        places](where: "nothing I know"), too, and it finds [no star](night detect: nothing). Asked for a cat,
        it does not even know whether there is one: no first token, the end or an edge, is one percent likely.
        An average says which colors and textures there are, and loses where, and what belongs together; this
        model has learned what to say of a picture in which it knows nothing. This is why PaliGemma takes all
        patches and drops SigLIP's pooling: a vector per picture is enough to compare it with a sentence, and
        not to talk about what is in it. The price is a sequence of 256 tokens before the first word.""",
    ),
    Experiment(
        "shifted-by-one",
        "the picture's features are shifted by one image token",
        "_merge_input_ids_with_image_features",
        "joining",
        (Edit(FILE, MERGE, DIVIDED, DIVIDED + "\nimage_features = image_features.roll(1, dims=1)"),),
        "An off-by-one: every feature stands one token too far to the right. By how much do the boxes move?",
        """By next to nothing: [the boxes](detect: kept), [the captions](caption: same), [the places](where:
        same), all there, and [no edge moves by more than three](detect: within 3) of 1,024 steps. One token
        is a tenth of the picture's width, so if the decoder measured columns by counting tokens, the boxes
        would have moved by a tenth of it. They did not: columns come out of the features, which were given
        their places in the tower. Rows are counted, as `features-reversed` shows, but one token to the right
        is still the same row for nine features out of ten. Off-by-one mistakes like this one are found by
        comparing numbers, or never.""",
    ),
    Experiment(
        "far-away",
        "all positions + 1000",
        "PaliGemmaForConditionalGeneration.forward",
        "positions",
        (Edit(FILE, "PaliGemmaForConditionalGeneration.forward", POSITIONS, POSITIONS + " + 1000"),),
        "The model never came near position 1001 in training. What does it do there?",
        """The same as ever: [captions](caption: same), [places](where: same) and [boxes](detect: within 3). A
        query and a key are each rotated by the angle of its position, and their product depends on the
        difference of the angles alone; adding 1000 to both cancels out. That is the point of rotary
        positions, and why it does not matter that transformers counts from 1 and the makers' code from 0. It
        holds up to rounding: where two numbers for an edge are all but even, rounding decides, and in
        bfloat16 the same change moves some of the boxes' numbers by a thousandth or two. A learned table of
        positions, as in GPT-2, would have no row 1001.""",
    ),
    Experiment(
        "stretched",
        "all positions doubled",
        "PaliGemmaForConditionalGeneration.forward",
        "positions",
        (Edit(FILE, "PaliGemmaForConditionalGeneration.forward", POSITIONS, POSITIONS + " * 2"),),
        "Adding to all positions did no harm. And doubling them?",
        """Now distances are doubled, too, and most answers break. [The first caption](cats caption: same)
        comes through, but three cats instead of two had a chance of 29 %; the second is ["a rocket"](night
        caption: "a rocket") without the star, which [is not found](night detect: nothing) either. The
        umbrella's place is ["nothing I know"](cats where: "nothing I know"), and the rocket's is
        [wrong](night where: changed), "{night where}". Where a cat's box needs four numbers, there is [a word
        in French](cats detect: says chat; cats detect: changed). To the decoder the neighbor is two steps
        away, and nobody is one step away: relative positions are free of where the zero is, but not of the
        unit.""",
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
        """The first token is right, because it comes from the prompt: [272 and 75](cats detect: says <loc02;
        night detect: says <loc007) are the tops of the first cat and of the star. Then the model believes
        itself back at position 1, in front of the picture, and loses count: no box has more than [a
        top](detect: 0 boxes), and `detect cat` writes tops [without an end](cats detect: endless). The first
        caption [repeats the cats](cats caption: says two cats and two cats), and the second [the star](night
        caption: says a star and a star). And yet [the umbrella's place](cats where: same), which is one word,
        passes: whoever tries only short answers finds nothing wrong. So test a cache with many answers, and
        hold it against the same tokens computed without it.""",
    ),
)
