"""Experiments with the decoder: norms, positions, mask, attention, MLP, layers, output."""

from course.experiments.edits import Edit
from course.experiments.experiment import Experiment, Parameter

FILE = "decoder_1"
SCORES = "scores = query @ key.transpose(2, 3) * self.head_dim**-0.5"
ROTATED = "query = query * cos + rotate_half(query) * sin\n    key = key * cos + rotate_half(key) * sin"
ALLOWED = "allowed = not_later[None] | is_prefix[:, None, :]"
GATED = "return self.down_proj(gate * self.up_proj(hidden_states))"
LOOP = "for layer in self.layers:"
LAYER = "hidden_states = layer(hidden_states, attention_mask, position_embeddings, kv_cache)"
TIED = "self.lm_head.weight = self.model.embed_tokens.weight"


def num_layers(config) -> int:
    return config.text_config.num_hidden_layers


def num_heads(config) -> int:
    return config.text_config.num_attention_heads


EXPERIMENTS = (
    Experiment(
        "no-one-plus",
        "RMSNorm multiplies by weight instead of 1 + weight",
        "GemmaRMSNorm",
        "residual",
        (
            Edit(
                FILE,
                "GemmaRMSNorm.forward",
                "return (normed * (1 + self.weight.float())).to(x.dtype)",
                "return (normed * self.weight.float()).to(x.dtype)",
            ),
        ),
        "Llama and most others multiply by the weight itself. What if Gemma's is read like theirs?",
        """Gibberish, [whatever you ask](all: changed): "{cats caption}", and [no box](detect: 0 boxes). This
        is the worst that one `1 +` can do. Gemma stores the gain as its distance from one, so a weight near
        zero means "leave it as it is"; read as a gain, it means "erase it". Each norm now wipes out most of
        what goes into its layer, the last one most of what goes into the choice of a word: the likeliest
        first word gets about two thousandths. Llama's files hold the gain itself under the same name
        and in the same shape, so nothing but the model's own code says which is meant.""",
    ),
    Experiment(
        "mean-subtracted",
        "RMSNorm subtracts the mean, as LayerNorm does",
        "GemmaRMSNorm",
        "residual",
        (
            Edit(
                FILE,
                "GemmaRMSNorm.forward",
                "x32 = x.float()",
                "x32 = x.float() - x.float().mean(dim=-1, keepdim=True)",
            ),
        ),
        "The difference between LayerNorm and RMSNorm is the mean. How much of the answers hangs on it?",
        """Little, and where it does it shows late: [both captions](caption: same) and [both places](where:
        same) are as before, and there are still [two cats](cats detect: 2 boxes), the second where it was.
        But the first one's box now reaches a tenth of the picture too far down, and [a tenth too far to the
        right](cats detect: says <loc049), and of the star there is [one number and then the end](night
        detect: 0 boxes): "{night detect}". The mean is one direction out of 192, and no more of a vector lies
        there than in any other, about a third of a percent of its squared length. This is what Zhang and
        Sennrich found: what helps about a norm is the fixed length, not the mean of zero, so the mean can be
        saved. That holds for training; these weights were trained without it, and captions and places alone
        would not have shown the mistake.""",
    ),
    Experiment(
        "fast-clocks",
        "RoPE with base 100 instead of 10,000",
        "GemmaRotaryEmbedding",
        "positions",
        (
            Edit(
                FILE,
                "GemmaRotaryEmbedding.forward",
                "inv_freq = self.rope_theta**-exponents",
                "inv_freq = 100**-exponents",
            ),
        ),
        "All clock hands turn, but the slow ones too fast. Is this better than not to turn them at all, "
        "as in `no-rope`?",
        """It is worse: ["nothing I know"](caption: "nothing I know") for a caption, [the same](where:
        "nothing I know") for a place, and [no box](detect: nothing), where `no-rope` still names things.
        This is what the model was trained to say of a picture that shows none of the things it knows. No
        positions leave a model without knowledge of the order; false ones tell it something untrue. The slow
        hands are what attention to far tokens rests on, the image tokens a hundred positions back among
        them, and those are the ones that are now elsewhere. Whoever changes this base, to make contexts
        longer, has to train the model again.""",
    ),
    Experiment(
        "neighbor-pairs",
        "RoPE pairs neighboring numbers instead of the two halves",
        "rotate_half",
        "positions",
        (
            Edit(
                FILE,
                "rotate_half",
                "first, second = x.chunk(2, dim=-1)\n    return torch.cat([-second, first], dim=-1)",
                "first, second = x[..., ::2], x[..., 1::2]\n"
                "return torch.stack([-second, first], dim=-1).flatten(-2)",
            ),
        ),
        "The paper pairs neighbors, the checkpoint's code pairs halves. Does it matter which?",
        """It does, and most where order counts. What there is can still be named, [two cats and an umbrella,
        a rocket and a star](caption: same), but [no box is complete](detect: 0 boxes), and to "where?" the
        model answers with a thing, [umbrellas](cats where: says umbrella) or [rockets](night where: says
        rocket). Either way of pairing would do, but these weights were trained to put into numbers i and i +
        16 what is rotated together, and now number i meets its neighbor, which has another angle besides.
        Published weights exist in both orders, and to convert from one to the other is to permute the rows of
        q_proj and k_proj. The captions alone would have shown nothing.""",
    ),
    Experiment(
        "no-rope",
        "queries and keys are not rotated",
        "apply_rotary_pos_emb",
        "positions",
        (Edit(FILE, "apply_rotary_pos_emb", ROTATED, "pass"),),
        "Without RoPE the decoder does not know in which order anything stands. Which of the six "
        "answers survive?",
        """None of them whole. The captions begin well, since what there is stands in the picture's features,
        and a few names need little order; but then they go in circles, [the cats](cats caption: says two
        cats and two cats and two cats) and [the star](night caption: says a rocket and a star and a star)
        again and again, because the model cannot tell how often it has written them. The prompts, too, are
        bags of words now: `detect cat` and `detect star` are [not answered with boxes](detect: 0 boxes) but
        with "{cats detect}" and "{night detect}", and the question for the umbrella's place is answered with
        [umbrellas](cats where: says umbrella). Attention is a set operation; positions are all that makes it
        a sequence.""",
    ),
    Experiment(
        "causal-prefix",
        "a causal mask for picture and prompt as well",
        "prefix_lm_mask",
        "mask",
        (Edit(FILE, "prefix_lm_mask", ALLOWED, "allowed = not_later[None]"),),
        "Now the image tokens cannot see the prompt, nor each other's future, as in a GPT. What gets worse?",
        """Everything: the model sees ["nothing I know"](caption: "nothing I know"), finds [no box](detect:
        nothing), and of both places it says ["nothing I know"](where: "nothing I know"), too. When an image
        token cannot see the prompt, it cannot prepare an answer to the question; it can only be looked at
        later, as it is. Nor do the tokens at the top of a thing see those at its bottom. No weight has
        changed and no feature of the picture, but the decoder's layers no longer get what they learned to
        work with. The paper tried this mask in training and found prefix-LM better; a model that was trained
        with it would get along with it, this one was not.""",
    ),
    Experiment(
        "open-mask",
        "everything may look at everything",
        "prefix_lm_mask",
        "mask",
        (
            Edit(
                FILE,
                "prefix_lm_mask",
                ALLOWED,
                "allowed = torch.ones_like(not_later[None] | is_prefix[:, None, :])",
            ),
        ),
        "No mask but the padding's: a token may look into its own future. What is the answer worth?",
        """Exactly as much: [all six answers](all: same) are the same, to the letter. While an answer is
        being written there is no future: a token is chosen, and what comes after it does not exist yet.
        The prefix is open anyway. So the causal part of the mask does nothing here, and everything in
        training, where the whole answer is given at once and each token could copy the next from the
        input. A mistake in this mask passes every test by looking at answers; look at the loss, which
        would fall to nearly nothing.""",
    ),
    Experiment(
        "not-itself",
        "a new token does not see itself",
        "prefix_lm_mask",
        "mask",
        (
            Edit(
                FILE,
                "prefix_lm_mask",
                "not_later = positions[None, :] <= positions[L - T:, None]",
                "not_later = positions[None, :] < positions[L - T:, None]",
            ),
        ),
        "< instead of <=: the classic off-by-one. Each token of the answer sees all tokens but itself. "
        "The answers?",
        """[All captions and places](caption: same; where: same) stay, and [all boxes](detect: within 3), to a
        thousandth or two at most. A token need not look at itself to know what it is: its own vector flows
        past attention in the residual stream, and attention only adds to it. So this classic mistake leaves
        no trace that anybody would notice in the answers, and a test that compares numbers is the only way to
        find it. The residual stream forgives a great deal.""",
    ),
    Experiment(
        "no-gate",
        "the MLP without its gate",
        "GemmaMLP",
        "gates",
        (Edit(FILE, "GemmaMLP.forward", GATED, "return self.down_proj(self.up_proj(hidden_states))"),),
        "down(gelu(gate(x)) * up(x)) without the first factor. What are the decoder's MLPs still good for?",
        """For nothing that you would notice: [no answer is left](all: changed), and what comes out instead is
        a letter or a few pieces that say nothing, "{cats caption}" for the first picture's caption,
        ["i"](cats where: "i") for the umbrella's place, and "{cats detect}" instead of [a box](detect: 0
        boxes). The gate decides, number by number, what of `up` passes. With all gates open, everything is
        added that any token could ever need, and what is left on top of the heap says nothing about the
        picture. And with the gate the bend is gone as well: what is left of the MLP is a single matrix.""",
    ),
    Experiment(
        "gate-alone",
        "the MLP with nothing but its gate",
        "GemmaMLP",
        "gates",
        (Edit(FILE, "GemmaMLP.forward", GATED, "return self.down_proj(gate)"),),
        "The other way around: only gelu(gate(x)) goes into down. This is an ordinary MLP, as in GPT-2. "
        "Better?",
        """Hardly, for what comes is one token, again and again, [without an end](cats caption: endless;
        where: endless; night: endless). Asked for a place, the model still names one, half of the right one
        for the rocket, ["bottom"](night where: says bottombottom), and a wrong one for the umbrella,
        ["middle"](cats where: says middlemiddle); the captions begin with newlines, the token at which the
        prompt ended, and `detect` gets [no box](detect: 0 boxes). What says that a word has been written, and
        the next is due, is lost. GELU never goes far below zero (-0.17 at the lowest), so an MLP of gates
        alone can only say "how much", and it is `up` that says "of what, and with which sign". Shazeer, who
        brought gates into transformers, offers no explanation and attributes their success to divine
        benevolence.""",
    ),
    Experiment(
        "silu",
        "SiLU instead of GELU in the gate",
        "GemmaMLP",
        "gates",
        (
            Edit(
                FILE,
                "GemmaMLP.forward",
                'gate = F.gelu(self.gate_proj(hidden_states), approximate="tanh")',
                "gate = F.silu(self.gate_proj(hidden_states))",
            ),
        ),
        "Llama's activation in Gemma's MLP. Does the model become a llama?",
        """Hardly anything happens: [the captions](caption: same) and [the places](where: same) stay, and [no
        edge of a box moves by more than two](detect: within 2) of the 1,024 steps. The two curves look alike:
        zero on the left, x on the right, a dip in between. But look below the words, at the one choice here
        that is not all but certain: that "left" follows on the rocket's "bottom" was 81 percent likely and is
        now 88. Somebody who copies Llama's MLP gets a Gemma that seems to work, with every number a little
        off. Four layers forgive it; what eighteen make of it you can only measure.""",
    ),
    Experiment(
        "unscaled",
        "no 1/√Hd in the decoder",
        "GemmaAttention",
        "scale",
        (Edit(FILE, "GemmaAttention.forward", SCORES, "scores = query @ key.transpose(2, 3)"),),
        "Scores are 5.7 times as large. The first formula of attention, without its denominator. What "
        "breaks?",
        """The first picture does not notice: [caption](cats caption: same), [place](cats where: same) and
        [boxes](cats detect: kept) are right, and no edge moves by [a hundredth](cats detect: within 10) of
        the picture's side. The second keeps its [caption](night caption: same) and [place](night where:
        same), too, but when its star has been found, the model finds it [a second time](night detect: 2
        boxes), in nearly the same place: "{night detect}". Larger scores make softmax sharper: each head
        looks at its best token nearly alone, and mostly the best token is enough. It is not where several
        have to be weighed against each other, as in "is there one more?", and what was uncertain becomes less
        so, if not more true: the "left" of the rocket's place has gone from 81 percent to 91. In training it
        would be fatal: a softmax that has decided passes no gradient on.""",
    ),
    Experiment(
        "one-look",
        "every head looks at one single token",
        "GemmaAttention",
        "scale",
        (Edit(FILE, "GemmaAttention.forward", SCORES, "scores = query @ key.transpose(2, 3) * 1000"),),
        "Scores times 1000: softmax becomes argmax, and nothing is averaged anymore. Can it still read "
        "a picture?",
        """Mostly: [the first caption](cats caption: same), [the rocket's place](night where: same) and [the
        top](cats where: says top) for the umbrella's are right, and every box that is drawn lies on a thing
        that was asked for, though each of 16 heads now reads exactly one token. So most of what attention
        does here is to look something up, not to average. What suffers is what needs more than one look, and
        that is to know how many there are and how much has been said. Of two cats there are [three
        boxes](cats detect: 3 boxes) and of the star [two](night detect: 2 boxes), the last in each answer
        nearly on top of the one before, the second caption has ["two stars"](night caption: says two stars),
        and after the umbrella's "top" the end, which was certain, is only 5 percent likely. Attention is
        often called a soft dictionary; here you see how little of the softness is used once a model has been
        trained, and for what.""",
    ),
    Experiment(
        "decoder-head-off",
        "one head of the decoder is switched off",
        "GemmaAttention",
        "heads",
        (
            Edit(
                FILE,
                "GemmaAttention.forward",
                "attended = weights @ value",
                "attended = weights @ value\nattended[:, {head}] = 0",
                only="language_model.model.layers.{layer}.self_attn",
            ),
        ),
        "The decoder has 16 heads, and this one belongs to the boxes. What do captions become without it?",
        """Captions stay as they are, [every letter of them](caption: same), and so do [both places](where:
        same). Boxes get a wrong bottom: the second cat's goes from 836 to [946](cats detect: says
        <loc0600><loc094), the number that should come next, the right edge, and the star's [is now a
        guess](night detect: changed), at a probability of two percent instead of ten. So this head helps to
        tell which of the four numbers is due. Of the 16 heads 14 can be missing, one at a time, and [the cats
        have their boxes and no others](lost: 1.2, 3.0), give or take a tenth of the picture for an edge;
        without head 2 of layer 1 the first cat's [has no right edge](1.2 detect: 1 box), and without head 0
        of layer 3 the second cat's ends at [the picture's right edge](3.0 detect: says <loc10) instead of its
        own, and too high. Nobody assigned the heads their tasks: training did, and to switch things off and
        see what fails is how such heads are found in any model.""",
        (Parameter("layer", num_layers, 1), Parameter("head", num_heads, 1)),
    ),
    Experiment(
        "heads-mixed",
        "heads joined without transposing back",
        "GemmaAttention",
        "shapes",
        (
            Edit(
                FILE,
                "GemmaAttention.forward",
                "return self.o_proj(attended.transpose(1, 2).reshape(B, T, self.num_heads * self.head_dim))",
                "return self.o_proj(attended.reshape(B, T, self.num_heads * self.head_dim))",
            ),
        ),
        "The mistake of `tower-heads-mixed`, in the decoder. The same effect?",
        """Here the words stay English, in a faultless sentence about nothing: ["nothing I know"](caption:
        "nothing I know"), [the same](where: "nothing I know") for a place, and [no box](detect: nothing).
        While the prompt is read, each token gets what one head found for four other tokens, as in the tower.
        But look at a later step: with T = 1, [1, H, 1, Hd] holds its numbers in the same order with and
        without the transpose, so the mistake is only in the prompt. The first word comes from the prompt,
        and with it the answer is lost; from then on the decoder works as it should. Code that is tested one
        token at a time passes, and code that is tested with a single head does, too.""",
    ),
    Experiment(
        "no-residual",
        "the decoder's MLP replaces instead of adding",
        "GemmaDecoderLayer",
        "residual",
        (
            Edit(
                FILE,
                "GemmaDecoderLayer.forward",
                "hidden_states = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))",
                "hidden_states = self.mlp(self.post_attention_layernorm(hidden_states))",
            ),
        ),
        "In `tower-no-residual` the model sees things that are not there. And here?",
        """Noise, [whatever you ask](all: changed): a caption of "{cats caption}", cats that are detected as
        "{cats detect}" and have [no box](detect: 0 boxes), and of the rocket's picture "{night caption}".
        Each layer's MLP throws away what all layers before it have found, the token itself included. The
        last one has to choose the next word from its own remark alone. The tower at least goes on to name
        things, if false ones, because its reader, the decoder, is whole.""",
    ),
    Experiment(
        "layer-skipped",
        "one layer of the decoder is skipped",
        "GemmaModel",
        "residual",
        (
            Edit(
                FILE,
                "GemmaModel.forward",
                LAYER,
                "worked_on = layer(hidden_states, attention_mask, position_embeddings, kv_cache)\n"
                "hidden_states = hidden_states if layer is self.layers[{layer}] else worked_on",
            ),
        ),
        "Four layers. What does each of them do for an answer?",
        """Read the table from top to bottom. Without layer 0 the model does not notice that it has written a
        word, and counts ["three" again and again](0 caption: says threethreethree); asked for a place, it
        names [the cats](0 where: "three cats"), and it finds [no box](0 detect: 0 boxes). Without layer 1
        [the umbrella's place](1 where: same) is right and the caption still begins with ["two"](1 caption:
        says two), but two of what is nearly a draw, "umbrellas" with 47 percent and "cats" with 42, and
        `detect` gets letters instead of [boxes](1 detect: 0 boxes). Without layer 2 there are ["three
        cats"](2 caption: "three cats"), but only two of [their boxes](2 detect: changed), and the left edge
        of the second is a guess, at two percent; [the place](2 where: same) is right. Without layer 3, the
        last, [the place](3 where: same) is right, too, and the caption begins with ["two"](3 caption: says
        two), after which a second "two" is likelier than "cats"; but `detect` gets newlines and [no number](3
        detect: 0 boxes; 3 detect: endless). No layer has a single task, but each leaves a gap of its own
        kind.""",
        (Parameter("layer", num_layers, 2),),
    ),
    Experiment(
        "early-exit",
        "the words are taken from an earlier layer",
        "GemmaModel",
        "logits",
        (Edit(FILE, "GemmaModel.forward", LOOP, "for layer in self.layers[:{layers}]:"),),
        "lm_head can read any layer's output, because all of them write to the same stream. After how "
        "many layers is the answer there?",
        """Only after the third of four, and not everywhere. After none, one or two layers there are [newlines
        without end](0 all: endless; 1 all: endless; 2 all: endless): the stream is still nearest to the token
        that it began with, the newline behind the prompt. After three, [both places](where: same) are there,
        but the captions have only begun: the first has its ["two"](cats caption: says two), after which a
        second "two" has 47 percent and "cats" 36, and where the other should begin, the newline still has [55
        percent](night caption: changed) and "a" has 43. Boxes have [not begun](detect: 0 boxes; detect:
        endless). So the last layer turns a gist into exact numbers, and decides what was still open. Reading
        a middle layer with the final norm and lm_head is known as the logit lens; `explain.py` draws it for
        every word of an answer.""",
        (Parameter("layers", num_layers, 3),),
    ),
    Experiment(
        "no-final-norm",
        "the decoder's last norm is left out",
        "GemmaModel",
        "residual",
        (Edit(FILE, "GemmaModel.forward", "return self.norm(hidden_states)", "return hidden_states"),),
        "The tower's last norm mattered a lot. And the decoder's?",
        """[Captions](caption: same), [boxes](detect: kept) and [both places](where: same), all there. The
        norm does two things: it divides by a length, which makes all logits larger or smaller by the same
        factor, and it multiplies by a gain. A common factor does not change which logit is the largest, so
        greedy decoding does not see it at all. The gain turns only what was nearly even: the last digit of [a
        few edges](detect: within 6). Sampling would see more, because the factor acts as a temperature: that
        the rocket's place ends with "bottom", without a "left", had 19 percent and now has a tenth of one.
        And the tower's norm feeds a projector that adds a bias and a decoder with a length of its own, so
        there the length counts.""",
    ),
    Experiment(
        "words-unscaled",
        "embeddings are not multiplied by √D",
        "GemmaModel",
        "joining",
        (
            Edit(
                FILE,
                "GemmaModel.forward",
                "hidden_states = inputs_embeds * normalizer",
                "hidden_states = inputs_embeds",
            ),
        ),
        "RMSNorm brings every vector to the same length anyway. So does the factor matter?",
        """It matters a lot: for a caption a stammered "{cats caption}", [which is German for
        "nothing"](caption: says nichtsnichts), for `detect` [no box](detect: 0 boxes) but semicolons, and
        for a place [no word](cats where: changed; night where: nothing) either. The norm is only on the way
        into each layer; the stream itself keeps its length, and what a layer adds to it was learned for a
        stream √192 = 14 times as long. Now the first layers' additions drown the words, and the model does
        not see what it was asked, or what it has just written. With Gemma's D of 2048 the factor would be
        45. Llama has no such factor; nothing in the shapes tells which of the two a checkpoint wants.""",
    ),
    Experiment(
        "untied-copy",
        "lm_head gets a copy of the embedding table",
        "GemmaForCausalLM.tie_weights",
        "logits",
        (
            Edit(
                FILE,
                "GemmaForCausalLM.tie_weights",
                TIED,
                "self.lm_head.weight = nn.Parameter(self.model.embed_tokens.weight.clone())",
            ),
        ),
        "Tied is tied no more: two tables with the same numbers. What changes?",
        """Nothing: [all six answers](all: same) are the same, because the numbers are. Tying is not
        about the answer. It saves memory, half a billion parameters in the 3B model, and it is about
        training: one table gets the gradients of both uses, and two copies would drift apart from the
        first step on. So a test by answers cannot tell a copy from a tie; `is` can.""",
    ),
    Experiment(
        "untied-random",
        "lm_head keeps weights of its own, which the checkpoint does not hold",
        "GemmaForCausalLM.tie_weights",
        "logits",
        (
            Edit(
                FILE,
                "GemmaForCausalLM.tie_weights",
                TIED,
                "numbers = torch.Generator().manual_seed(0)\n"
                "weight = torch.randn(self.lm_head.weight.shape, generator=numbers)\n"
                "self.lm_head.weight = nn.Parameter(weight.to(self.lm_head.weight))",
            ),
        ),
        "And if the line is forgotten, so that lm_head stays as nn.Linear made it?",
        """The model thinks as it always did, and [speaks gibberish](all: changed): "{night where}". Every
        layer has done its work, and the vector at the end means "bottom", but the table that turns vectors
        into words is random. The checkpoint stores one table for both uses, so loading it leaves an untied
        lm_head as it was, and with `strict=False` nobody complains. When a loaded model writes random words
        with a perfect loader, look at lm_head first.""",
    ),
    Experiment(
        "first-position",
        "the first positions are scored instead of the last",
        "GemmaForCausalLM",
        "logits",
        (
            Edit(
                FILE,
                "GemmaForCausalLM.forward",
                "return self.lm_head(hidden_states[:, -logits_to_keep:]).float()",
                "return self.lm_head(hidden_states[:, :logits_to_keep]).float()",
            ),
        ),
        "One minus sign is missing: [:, :1] instead of [:, -1:]. What is predicted at the first position?",
        """Nothing was ever predicted there. At the last position, the newline, the model learned to say what
        comes next; at the first there is `<pad>` or an image token, on which training never put a loss, so
        anything may come out: a token at one to four percent, as in "{cats caption}", or [the end](night
        detect: nothing; cats where: nothing) before the first word. [No caption](caption: changed), [no
        place](where: changed) and [no box](detect: 0 boxes) is right. From the second token on the line is
        correct again, by accident, because a call with a single new token has a single position, so an answer
        may still find its way back to [what is in the picture](night caption: says and a star), "{night
        caption}", or [not](cats caption: says connaisse), when it has begun in another language; and `detect
        cat`, which needs its first number, never does: "{cats detect}". Compare with `padded-right`, which
        reads off the wrong place for another reason.""",
    ),
)
