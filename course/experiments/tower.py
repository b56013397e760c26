"""Experiments with the vision tower: places of patches, heads, layers."""

from course.experiments.edits import Edit
from course.experiments.experiment import Experiment, Parameter

FILE = "vision_transformer_1"
EMBEDDED = "return patch_embeds + self.position_embedding.weight"
SHUFFLED = "order = torch.randperm(patch_embeds.shape[1], generator=torch.Generator().manual_seed(0))\n"
SCORES = "scores = query @ key.transpose(2, 3) * self.head_dim**-0.5"
LOOP = "for layer in self.layers:"
LAYERS = "vision_tower.vision_model.encoder.layers"
# A claim for each head but two, of the 5 layers with 6 heads that paligemma-tiny has.
SPARED = "; ".join(
    f"{layer}.{head} detect: within 20"
    for layer in range(5)
    for head in range(6)
    if (layer, head) not in ((3, 4), (4, 4))
)


def num_layers(config) -> int:
    return config.vision_config.num_hidden_layers


def num_heads(config) -> int:
    return config.vision_config.num_attention_heads


EXPERIMENTS = (
    Experiment(
        "no-places",
        "patches do not know their place",
        "VisionEmbeddings",
        "positions",
        (Edit(FILE, "VisionEmbeddings.forward", EMBEDDED, "return patch_embeds"),),
        "The patches still come in their order. What can the model still say?",
        """Nothing at all, neither what nor where: [both captions](caption: "nothing I know") and [both
        places](where: "nothing I know") are "nothing I know", and [nothing is found](detect: nothing).
        Attention treats its inputs as a set, so the tower now sees a heap of a hundred snippets; that
        they come in order is known to nobody inside. And a cat is not a heap of orange: what a patch
        shows depends on what is beside it, and "beside" is gone. The decoder does know the order of the
        image tokens, by its rotary positions, but by then it is too late: what was never put together
        in the tower is not put together there.""",
    ),
    Experiment(
        "shuffled-before",
        "patches shuffled, then given their places",
        "VisionEmbeddings",
        "positions",
        (
            Edit(
                FILE,
                "VisionEmbeddings.forward",
                EMBEDDED,
                SHUFFLED + "return patch_embeds[:, order] + self.position_embedding.weight",
            ),
        ),
        "A jigsaw puzzle, thrown on the floor: every patch is told that it lies where it fell. The caption?",
        """It is ["nothing I know"](caption: "nothing I know"), and there is [no box anywhere](detect:
        nothing). Every patch is whole, so colors and textures are all there; only their arrangement is
        false. That is enough to lose the cats, so the tower does not just count orange patches. In
        training "nothing I know" was the caption of pictures with none of the 42 things, and a hundred
        pieces of things are such a picture. Compare with `shuffled-after`, which moves the same patches
        one line later.""",
    ),
    Experiment(
        "shuffled-after",
        "patches given their places, then shuffled",
        "VisionEmbeddings",
        "positions",
        (
            Edit(
                FILE,
                "VisionEmbeddings.forward",
                EMBEDDED,
                SHUFFLED + "return (patch_embeds + self.position_embedding.weight)[:, order]",
            ),
        ),
        "The same shuffle, after the places were added. As bad as before?",
        """Not quite: [cats](cats caption: says cats) are seen again, and the rocket is [at the
        bottom](night where: says bottom). Each patch carries its true place with it, and to attention
        without a mask the order of its inputs is nothing, so the tower computes exactly what it did, in
        another order. But the decoder also goes by the order of the image tokens, by their rotary
        positions, and that is false: there are ["three cats"](cats caption: "three cats") without an
        umbrella, which is in the ["middle"](cats where: "middle") when asked for; there are ["two
        rockets"](night caption: "two rockets") and [two stars](night detect: 2 boxes) instead of one of
        each, and [the boxes](detect: changed) are wrong. It can hardly count, because pieces that
        belong together no longer come together. Two systems of places, and this experiment tells them
        apart.""",
    ),
    Experiment(
        "columns-first",
        "patches counted down the columns instead of along the rows",
        "VisionEmbeddings",
        "patches",
        (
            Edit(
                FILE,
                "VisionEmbeddings.forward",
                "patch_embeds = patch_embeds.flatten(2).transpose(1, 2)",
                "patch_embeds = patch_embeds.transpose(2, 3).flatten(2).transpose(1, 2)",
            ),
        ),
        "Each patch upright, the grid turned over its diagonal. Which is worse, this or `transposed`?",
        """It depends on the thing. Here each patch is upright but lies in the wrong place, so that
        edges no longer meet: the rocket and the star are [gone](night caption: "nothing I know";
        night detect: nothing), while `transposed`, which turns the patches as well, leaves the star
        whole. But there no cat is left, and here there are [two boxes](cats detect: 2 boxes; cats
        detect: changed), roughly where they belong in a picture turned over its diagonal, although
        the caption is ["{cats caption}"](cats caption: changed). The umbrella is at the ["left"](cats
        where: "left"), where such a picture has it. `flatten(2)` counts in the order of memory, rows
        first, and the position embeddings were learned for that order. No shape changes, so no error
        is raised.""",
    ),
    Experiment(
        "tower-unscaled",
        "no 1/√Hd in the tower's attention",
        "Attention",
        "scale",
        (Edit(FILE, "Attention.forward", SCORES, "scores = query @ key.transpose(2, 3)"),),
        "Scores are 5.7 times as large (√32). What does softmax make of them?",
        """Softmax turns differences of scores into ratios, so larger scores mean that nearly all the
        weight goes to the few best patches. Even so, [both captions](caption: same) and [the
        umbrella's place](cats where: same) stay, and [all boxes](detect: kept) are found, the star's
        with edges moved by [a hundredth at most](night detect: within 10). It is not free: the first
        cat's box [reaches over](cats detect: changed) toward the other cat, by a tenth of the
        picture. The order of the patches by score is the same as before, so a trained model does
        better than one might think. It is learning that fails without the division: a softmax with
        nearly all of its weight in one place hardly passes a gradient on.""",
    ),
    Experiment(
        "tower-average",
        "every patch looks at all patches alike",
        "Attention",
        "attention",
        (Edit(FILE, "Attention.forward", SCORES, "scores = 0 * (query @ key.transpose(2, 3))"),),
        "Attention without choice: each head gives every patch the average of all. What is left?",
        """Nothing that is of use: [all captions and places](caption: "nothing I know"; where: "nothing
        I know") are "nothing I know", and there is [no box](detect: nothing). With equal scores,
        attention adds the same vector to every patch, so patches do not learn about their neighbors at
        all, and each is worked on alone. A patch of 16 pixels rarely shows what it belongs to. What
        matters about attention is not that it mixes but that it chooses.""",
    ),
    Experiment(
        "tower-one-way",
        "patches see only those before them",
        "Attention",
        "mask",
        (
            Edit(
                FILE,
                "Attention.forward",
                SCORES,
                SCORES + "\nscores = scores.masked_fill(~torch.ones(N, N, dtype=torch.bool).tril(), -1e9)",
            ),
        ),
        "A causal mask, as in a GPT. A picture is read from the top left then. Which parts suffer?",
        """What is at the top suffers least: the umbrella is still [there](cats where: same), and [the
        caption](cats caption: same) of its picture stays, if only just, because its first word,
        "two", has fallen from a chance of more than 99 % to 57 %. But the cats have [lost their
        boxes](cats detect: nothing), and of the rocket and the star the model says ["nothing I
        know"](night caption: "nothing I know"; night where: "nothing I know") and [finds
        nothing](night detect: nothing). The upper left patches know nothing of what lies below and to
        the right, and the lower ones, which could see nearly everything, were trained among neighbors
        that knew. A causal mask is the price for predicting the next token; a tower predicts nothing,
        so it need not pay. That is why image encoders look both ways.""",
    ),
    Experiment(
        "tower-head-off",
        "one head of the tower is switched off",
        "Attention",
        "heads",
        (
            Edit(
                FILE,
                "Attention.forward",
                "attended = weights @ value",
                "attended = weights @ value\nattended[:, {head}] = 0",
                only=LAYERS + ".{layer}.self_attn",
            ),
        ),
        "There are 30 heads in the tower. How many of them can be spared, one at a time?",
        """Nearly all: whichever of [28 of them]("""
        + SPARED
        + """) is off, both cats are found where they are, and no edge moves by as much as two
        hundredths of the picture. Head 4 of layer 3 and head 4 of layer 4 cost a little more: there are
        [still two boxes](3.4 detect: 2 boxes; 3.4 detect: changed; 4.4 detect: 2 boxes; 4.4 detect:
        changed), but the first cat's reaches over toward the other, by 10 % and 14 % of the picture, as
        if the patches were less sure to which of the two they belong. Boxes do not tell everything,
        though: without head 0 of layer 2, shown here, they [stay](cats detect: kept), but the caption is
        ["two cats"](cats caption: "two cats") and no umbrella, and that the umbrella is [at the
        top](cats where: same) has a chance of 57 % instead of nearly 100 %. Even then the other picture
        suffers [nothing](night caption: same; night detect: within 10) to speak of. Heads share the
        work, and the sum in the residual stream hardly misses one, but nothing forces them to share it
        evenly.""",
        (Parameter("layer", num_layers, 2), Parameter("head", num_heads, 0)),
    ),
    Experiment(
        "tower-heads-mixed",
        "heads joined without transposing back",
        "Attention",
        "shapes",
        (
            Edit(
                FILE,
                "Attention.forward",
                "return self.out_proj(attended.transpose(1, 2).reshape(B, N, C))",
                "return self.out_proj(attended.reshape(B, N, C))",
            ),
        ),
        "[B, H, N, Hd] to [B, N, C] by reshape alone: the shapes agree. Do the answers?",
        """They do not: ["{cats caption}"](cats caption: changed), ["{night caption}"](night caption:
        changed), and [no box](detect: nothing). Without the transpose, the first rows are made of head
        0 of the first few patches, so patches get each other's vectors, and every head's place is taken
        by another's. Shapes are right, and no error is raised. Before heads can be joined, they have to
        lie beside each other: `transpose(1, 2)` first, then `reshape`.""",
    ),
    Experiment(
        "exact-gelu",
        "GELU by its exact formula instead of the tanh one",
        "MLP",
        "gates",
        (
            Edit(
                FILE,
                "MLP.forward",
                'return self.fc2(F.gelu(self.fc1(hidden_states), approximate="tanh"))',
                "return self.fc2(F.gelu(self.fc1(hidden_states)))",
            ),
        ),
        "PyTorch's default instead of Flax's. Does anybody notice?",
        """Nobody: [captions and places](caption: same; where: same) are letter for letter the same,
        and no edge of [a box](detect: kept) moves by more than [three thousandths](detect: within 3).
        The two curves differ by less than 0.001 everywhere. Then why does the exercise insist?
        Because in a test that compares numbers it shows, in 27 layers it adds up, and whoever looks
        for a real difference to the original has to rule it out first. Agreement to the last digit is
        cheap, and "nearly" hides mistakes.""",
    ),
    Experiment(
        "tower-relu",
        "ReLU instead of GELU",
        "MLP",
        "gates",
        (
            Edit(
                FILE,
                "MLP.forward",
                'return self.fc2(F.gelu(self.fc1(hidden_states), approximate="tanh"))',
                "return self.fc2(F.relu(self.fc1(hidden_states)))",
            ),
        ),
        "Another activation that the weights were never trained with. A catastrophe?",
        """No: [captions](caption: same) and [the umbrella's place](cats where: same) do not change by
        a letter, and [all boxes](detect: kept) are found, with edges moved by [a hundredth at
        most](detect: within 10). GELU is ReLU with its corner rounded: far from zero the two are
        alike, and near zero both are small. Compare with `tower-linear`, which has no bend at all.
        That there is a bend matters far more than its shape.""",
    ),
    Experiment(
        "tower-linear",
        "no GELU at all",
        "MLP",
        "gates",
        (
            Edit(
                FILE,
                "MLP.forward",
                'return self.fc2(F.gelu(self.fc1(hidden_states), approximate="tanh"))',
                "return self.fc2(self.fc1(hidden_states))",
            ),
        ),
        "Two linear maps, one after the other, with nothing in between. What are they worth?",
        """As much as one: fc2(fc1(x)) is a single matrix, so the fourfold width in between is wasted.
        Of two cats and an umbrella the model stammers that there are [three](cats caption: says three;
        cats caption: changed) of something, the umbrella's place is ["{cats where}"](cats where:
        changed), and asked for cats it gives [no box](cats detect: 0 boxes) but "{cats detect}". An MLP
        decides: this vector has a feature, that one does not, and adds what follows from it. Without a
        bend nothing is ever decided, only mixed.""",
    ),
    Experiment(
        "tower-no-residual",
        "the tower's MLP replaces instead of adding",
        "EncoderLayer",
        "residual",
        (
            Edit(
                FILE,
                "EncoderLayer.forward",
                "hidden_states = hidden_states + self.mlp(self.layer_norm2(hidden_states))",
                "hidden_states = self.mlp(self.layer_norm2(hidden_states))",
            ),
        ),
        "`x = x + mlp(norm(x))` without the first x. How much of the picture comes through?",
        """Hardly anything: two cats and an umbrella are ["{cats caption}"](cats caption: says three), a
        rocket and a star ["{night caption}"](night caption: says three), [nothing](detect: nothing) is
        found, the umbrella's place is [false](cats where: changed), and of the rocket's the model says
        ["nothing I know"](night where: "nothing I know"). Two pictures that have nothing in common get
        nearly the same captions, so little of the pixels reaches the decoder. The MLP learned
        corrections, small vectors to be added to what is known; taken for the whole, they are a picture
        of something else. This is why it is called the residual stream: x flows through, and every
        layer only adds to it.""",
    ),
    Experiment(
        "tower-cut",
        "the tower ends after a few layers",
        "Encoder",
        "residual",
        (Edit(FILE, "Encoder.forward", LOOP, "for layer in self.layers[:{layers}]:"),),
        "Five layers look at the picture. How many would do?",
        """Only all five. After two layers the caption is ["three bells"](2 caption: "three bells"),
        after three there are still ["three"](3 caption: says three) of something, and after four it
        is ["three dogs"](4 caption: "three dogs"), with cats in third place at 14 %. [No cat](1
        detect: nothing; 3 detect: nothing; 4 detect: nothing; cats detect: 0 boxes) is found, and
        even after four layers the umbrella at the top is said to be at the ["right"](4 where:
        "right"). That does not mean that more is unknown until the end, only that nobody reads it:
        the projector and the decoder were trained on the last layer's output, and what the others
        write is not meant for them. Another model may read another layer, as LLaVA does with the last
        but one, but it has to be trained to.""",
        (Parameter("layers", num_layers, 4),),
    ),
    Experiment(
        "tower-layer-skipped",
        "one layer of the tower is skipped",
        "Encoder",
        "residual",
        (
            Edit(
                FILE,
                "Encoder.forward",
                LOOP,
                "for layer in self.layers[:{layer}] + self.layers[{layer} + 1:]:",
            ),
        ),
        "Which layer can be spared best, and which least?",
        """Best is layer 1: without it [the caption](1 caption: same) and [the umbrella's place](1
        where: same) stay, and [both boxes](1 detect: kept), too, because the next layer reads the
        residual stream, to which layer 1 only added something. Without layer 0 both pictures are
        ["nothing I know"](caption: "nothing I know"; 0 caption: "nothing I know"), because all others
        build on it. The last three are needed as well: without layer 2 there are ["three cats"](2
        caption: "three cats"), and without layer 3 or 4 [no cat is found](3 detect: nothing; 4
        detect: nothing), because the decoder was trained on what they add. A layer is not a step of a
        recipe; it is one more remark on what is already there, and some remarks can be missed.""",
        (Parameter("layer", num_layers, 0),),
    ),
    Experiment(
        "tower-layers-swapped",
        "two neighboring layers of the tower change places",
        "Encoder",
        "residual",
        (
            Edit(
                FILE,
                "Encoder.forward",
                LOOP,
                "order = list(self.layers)\n"
                "order[{layer}], order[{layer} + 1] = order[{layer} + 1], order[{layer}]\n"
                "for layer in order:",
            ),
        ),
        "Layers 1 and 2 in the other order. All layers read and write the same stream; does the order "
        "matter?",
        """Less than it might: [the caption](1 caption: same) and [the umbrella's place](1 where:
        same) stay, and [both cats](1 detect: kept) are found. It is not free, though: the star's box
        now [reaches up](night detect: 1 box; night detect: says <loc000; night detect: changed) to
        the edge of the picture, and the caption hardly knows what is beside it: a car has a chance of
        23 %, and a rocket of 19 %. With layers [0 and 1](0 detect: nothing), [2 and 3](2 detect:
        nothing), or [3 and 4](3 detect: nothing) exchanged, no cat is found. Layers 1 and 2 speak the
        same language, the one of the stream; the first one translates into it, and the last ones out
        of it, for the decoder.""",
        (Parameter("layer", lambda config: num_layers(config) - 1, 1),),
    ),
    Experiment(
        "no-post-layernorm",
        "the tower's last norm is left out",
        "VisionTransformer",
        "residual",
        (
            Edit(
                FILE,
                "VisionTransformer.forward",
                "return self.post_layernorm(hidden_states)",
                "return hidden_states",
            ),
        ),
        "One norm of eleven, and all the layers are done by then. Can it matter?",
        """It does: of both pictures and of both places the model says ["nothing I know"](caption:
        "nothing I know"; where: "nothing I know"), and [no box](detect: nothing) is left. In a
        pre-norm transformer every layer adds to the stream and nothing ever shrinks it, so what comes
        out at the end has whatever length it has: 164 on average in these two pictures. The closing
        norm makes 11 of it, the length that the projector was trained for. Compare with
        `picture-undivided`, where the picture's vectors are too long as well, but all by the same
        factor.""",
    ),
)
