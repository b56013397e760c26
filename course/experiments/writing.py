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
        """It depends on what there was to choose from. Of numbers, many neighbors are about equally
        likely, and the edges in "{night detect}" are as good as before. Of words, one is likely, and
        the second is another language or another thing: ["{cats caption}"](cats caption: changed)
        for the cats, and ["{night caption}"](night caption: changed) for a rocket and a star. And
        where only one token makes sense, as after a finished answer, the second best is nonsense:
        [`<eos>` is not chosen](night detect: endless) when it is due. After that the model reads its
        own nonsense and goes on from there. Probabilities are not a ranking of good answers: most of
        the time there is one good token and a thousand bad ones.""",
    ),
    Experiment(
        "temperature",
        "temperature 2",
        "sample_next_token",
        "words",
        (Edit(FILE, "sample_next_token", CHOICE, "temperature = 2"),),
        "Tokens are drawn, and the unlikely ones more often than the model thinks they should be. Which "
        "answer falls first?",
        """The short ones, of all things: [both captions](caption: same) hold, five words each, while
        the umbrella's place, a single word, becomes ["{cats where}"](cats where: changed), and the
        rocket's ["{night where}"](night where: changed). It is luck, but not only: each further token
        is one more chance for a bad one, the end is a token too, and the model goes on from whatever
        it wrote, as in "{cats detect}". At temperature 2 the square root of every probability counts:
        a token with a chance of 1 in 10,000 against the best is taken as if it had 1 in 100, and there
        are 1,716 of them. See `top-p` for the remedy.""",
    ),
    Experiment(
        "top-p",
        "temperature 2, but only tokens that together reach one half",
        "sample_next_token",
        "words",
        (Edit(FILE, "sample_next_token", CHOICE, "temperature, top_p = 2, 0.5"),),
        "The same temperature, with the long tail cut off. Better?",
        """Much better, thanks to `keep_top_p`: [captions](caption: same) and [the umbrella's
        place](cats where: same) are exactly the likeliest ones again. Where the model is sure, the
        best token alone has more than half of the probability, and then nothing else can be drawn.
        Of the rocket's place, ["{night where}"](night where: says bottom), only the first word is
        sure: after it the reference itself gives "left" 81 % and the end 19 %, at temperature 2
        "left" just misses one half, and one of the two is drawn. And [numbers](detect: changed)
        vary, [a little](detect: kept), because many neighbors are about equally likely. Temperature
        gives every token a chance, a thousand bad ones among them; top-p takes it away from those
        that only together are likely.""",
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
        caption: says two), an edge of [the first cat's box](cats detect: says <loc0), ["top"](cats
        where: says top), and ["bottom"](night where: says bottom). Then the model forgets everything:
        all it knows is the word it wrote last, and it goes on as one would from there, [without
        end](cats caption: endless): "{cats caption}". [Boxes](detect: 0 boxes) cannot come about like
        this. The cache is often taken for a matter of speed. It is the model's only memory; without it
        the whole sequence has to be given again at every step.""",
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
        """More ends, as in "{cats where}", and when there have been a few, an afterthought, a German
        ["kenne"](cats detect: says <eos> kenne) behind the boxes. The answer itself [is the
        same](cats caption: says two cats and an umbrella<eos>; cats where: says top<eos>; night
        where: says bottom left<eos>), because nothing before the end knows what comes after it. The
        model was never trained to go on after `<eos>`, so what it writes there means nothing. In a
        batch all rows that are done do exactly this until the last one ends, and the loop only looks
        the other way.""",
    ),
    Experiment(
        "eight-bits",
        "weights rounded to 8 bits",
        "",
        "",
        (rounded(8),),
        "Each weight becomes one of 255 values in its row. Which answers stand it?",
        """All of them, in every word: [captions](caption: same) and [places](where: same) are the same
        to the last letter, and edges of [boxes](detect: kept) move by [three thousandths at
        most](detect: within 3), if at all. Rounding is off by half a step at most, which is 0.4 % of
        the row's largest weight, and every output adds up more than a hundred such errors, which point
        in all directions and cancel out mostly. That is why int8 is the usual way to halve a model
        that is stored in bfloat16. What it costs is measured over many pictures, not over two.""",
        bits=8,
    ),
    Experiment(
        "four-bits",
        "weights rounded to 4 bits",
        "",
        "",
        (rounded(4),),
        "Now 15 values for a whole row. Where does it break?",
        """Nowhere that shows: [captions](caption: same) and [places](where: same) are the same, and
        the boxes move by [a hundredth at most](detect: within 10). A weight may now be off by 7 % of
        the largest in its row, but the model adds up a hundred or more such products for each number,
        and an answer is a choice among words, which a small error seldom turns. One bit less, in
        `three-bits`, and it shows. This is why 4 bits are what large models are shipped in for
        laptops, with one step for each few dozen weights instead of each row.""",
        bits=4,
    ),
    Experiment(
        "three-bits",
        "weights rounded to 3 bits",
        "",
        "",
        (rounded(3),),
        "Seven values: -3 to 3, times one step a row. Half as fine as 4 bits. Half as good?",
        """Not as good, but better than half: [the captions](caption: same) and [the umbrella's
        place](cats where: same) are right, and [all boxes](detect: kept) are found, no edge of them
        off by more than [two hundredths](detect: within 20) of the picture's side. What falls is
        what was least certain: the rocket is at the ["bottom"](night where: "bottom"), and its
        "left" has gone from 81 percent to 2. The largest weight of a row decides its step, so with
        seven values two fifths of all weights round to zero. Quality does not sink evenly with the
        bits; it holds, and then it breaks: with 2 bits, three values, more than four fifths are
        zero, and not one of the six answers is left. Where to put the steps is what the better
        methods of 4 bits and less are about.""",
        bits=3,
    ),
)
