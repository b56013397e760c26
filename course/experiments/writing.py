"""Experiments with how an answer is written: the cache, the choice of tokens, and rounded weights."""

from course.experiments.edits import Edit
from course.experiments.experiment import Experiment

FILE = "generation_1"
CHOICE = "if temperature == 0:\n        return int(logits.argmax())"
LOADED = "model.language_model.tie_weights()"


def rounded(bits: int) -> Edit:
    return Edit("load_weights", "load_hf_model", LOADED, f"rounded_weights(model, bits={bits})\n{LOADED}")


EXPERIMENTS = (
    Experiment(
        "second-best",
        "the second likeliest token, each time",
        "sample_next_token",
        "words",
        (
            Edit(
                FILE,
                "sample_next_token",
                "return int(logits.argmax())",
                "return int(logits.topk(2).indices[1])",
            ),
        ),
        "Never the best word, always the second. Does it become wrong, or only clumsy?",
        """Both, in this order: "{cats caption}". The first word is still sensible, because the second
        best of many is good when there is a choice. But where only one token makes sense, as after a
        finished answer, the second best is nonsense, and [`<eos>` is never chosen](caption: endless)
        when it is due. After that the model reads its own nonsense and goes on from there.
        Probabilities are not a ranking of good answers: most of the time there is one good token and a
        thousand bad ones.""",
    ),
    Experiment(
        "temperature",
        "temperature 2",
        "sample_next_token",
        "words",
        (Edit(FILE, "sample_next_token", CHOICE, "temperature = 2"),),
        "Tokens are drawn, and the unlikely ones more often than the model thinks they should be. Which "
        "answer falls first?",
        """All of them, even the shortest: the umbrella is at the "{cats where}", and the caption is
        "{cats caption}". [The first word is right](cats where: says top; night where: says bottom), but
        each further token is one more chance for a bad one, and the model goes on from whatever it
        wrote. At temperature 2 the square root of every probability counts: a token with a chance of 1
        in 10,000 against the best is taken as if it had 1 in 100, and there are 1,556 of them. [The
        cats' boxes](cats detect: changed) do not survive that. See `top-p` for the remedy.""",
    ),
    Experiment(
        "top-p",
        "temperature 2, but only tokens that together reach one half",
        "sample_next_token",
        "words",
        (Edit(FILE, "sample_next_token", CHOICE, "temperature, top_p = 2, 0.5"),),
        "The same temperature, with the long tail cut off. Better?",
        """Much better, thanks to `keep_top_p`: [captions](caption: same) and [places](where: same) are
        exactly the likeliest ones again. Where the model is sure, the best token alone has more than
        half of the probability, and then nothing else can be drawn. Only [numbers](detect: changed)
        still vary, because there many neighbors are about equally likely: <loc0270> is no worse than
        <loc0272>. Temperature gives every token a chance, a thousand bad ones among them; top-p takes
        it away from those that only together are likely.""",
    ),
    Experiment(
        "cache-forgotten",
        "the cache is not handed on",
        "generate",
        "cache",
        (
            Edit(
                FILE,
                "generate",
                'input_ids, attention_mask=attention_mask, kv_cache=output["kv_cache"], logits_to_keep=1',
                "input_ids, logits_to_keep=1",
            ),
        ),
        "From the second token on, the model is given one token and nothing else. What does it say?",
        """The first token is right, because it was chosen with the picture in view: ["two"](cats
        caption: says two), ["top"](cats where: says top), ["<loc0272>"](cats detect: says <loc0272>).
        Then the model forgets everything: all it knows is the word it wrote last, and it goes on as one
        would from there: "{cats caption}". [Boxes](detect: 0 boxes) cannot come about like this. The
        cache is often taken for a matter of speed. It is the model's only memory; without it the whole
        sequence has to be given again at every step.""",
    ),
    Experiment(
        "no-end",
        "<eos> does not end an answer",
        "generate",
        "words",
        (
            Edit(
                FILE,
                "generate",
                "finished = [finished[row] or tokens[row] == eos_token_id for row in range(B)]",
                "pass",
            ),
        ),
        "The answer is finished, and the loop goes on. What comes after the end?",
        """Mostly more ends, and sometimes an afterthought: "{cats caption}". The answer itself [is the
        same](cats caption: says two cats and an umbrella; cats where: says top; night where: says
        bottom left), because nothing before the end knows what comes after it. The model was never
        trained to go on after `<eos>`, so what it writes there means nothing. In a batch all rows that
        are done do exactly this until the last one ends, and the loop only looks the other way.""",
    ),
    Experiment(
        "eight-bits",
        "weights rounded to 8 bits",
        "",
        "",
        (rounded(8),),
        "Each weight becomes one of 255 values in its row. Which answers stand it?",
        """All of them: [captions](caption: same), [places](where: same), and [boxes](detect: kept).
        Rounding is off by half a step at most, which is 0.4 % of the row's largest weight, and every
        output adds up more than a hundred such errors, which point in all directions and cancel out
        mostly. That is why int8 is the usual way to halve a model that is stored in bfloat16. What it
        costs is measured over many pictures, not over two.""",
        bits=8,
    ),
    Experiment(
        "four-bits",
        "weights rounded to 4 bits",
        "",
        "",
        (rounded(4),),
        "Now 15 values for a whole row. Where does it break?",
        """Nowhere that you would see: [captions](caption: same) and [places](where: same) are the same,
        and [the boxes move by less than a hundredth](detect: within 9). A weight may now be off by 7 %
        of the largest in its row. The model adds up a hundred or more such products for each number and
        has several layers to agree on an answer, and an answer is a choice among words, which a small
        error seldom turns. One bit less, in `three-bits`, and it is over. This is why 4 bits are what
        large models are shipped in for laptops, with one step for each few dozen weights instead of
        each row.""",
        bits=4,
    ),
    Experiment(
        "three-bits",
        "weights rounded to 3 bits",
        "",
        "",
        (rounded(3),),
        "Seven values: -3 to 3, times one step a row. Half as fine as 4 bits. Half as good?",
        """Not half as good, but broken: ["{cats caption}"](cats caption: changed), ["two
        airplanes"](night caption: "two airplanes"), and [no cat is found](cats detect: nothing). Places
        are [still right](where: same), so the coarse answer outlives the fine one once more. Quality
        does not sink evenly with the bits; it holds, and then it falls. The largest weight of a row
        decides its step, so with seven values more than a third of all weights round to zero. Where to
        put the steps is what the better methods of 4 bits and less are about.""",
        bits=3,
    ),
)
