"""The exercise GemmaForCausalLM.tie_weights of decoder_0.py."""

from dataclasses import replace

import torch
from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import SIZES, SMALL_GEMMA, output_layer
from course.exercises.inputs import randn


def loaded(made, embed_tokens) -> dict:
    """What a loader does: it puts another parameter in place, and ties again."""
    made.model.embed_tokens.weight = nn.Parameter(embed_tokens.clone())
    made.tie_weights()
    return {
        "lm_head.weight and embed_tokens.weight are one parameter": made.lm_head.weight
        is made.model.embed_tokens.weight,
        "embed_tokens.weight": made.model.embed_tokens.weight,
        "lm_head.weight": made.lm_head.weight,
    }


def trained(made, hidden_states) -> dict:
    """A step of training by the output layer alone: the embeddings have to take it too."""
    made.tie_weights()
    logits = made.lm_head(hidden_states)
    with torch.no_grad():
        made.lm_head.weight.add_(1.0)
    return {"logits": logits, "embed_tokens.weight": made.model.embed_tokens.weight}


def modules_kept(made) -> dict:
    """The modules as they were before it was called."""
    lm_head, embed_tokens = made.lm_head, made.model.embed_tokens
    made.tie_weights()
    return {
        "lm_head is the module that it was": made.lm_head is lm_head,
        "embed_tokens is the module that it was": made.model.embed_tokens is embed_tokens,
    }


def untied(made):
    """The two as separate parameters, as a loader may leave them."""
    made.lm_head.weight = nn.Parameter(made.lm_head.weight.detach().clone())
    return made


# Known mistakes that take whole functions.


def when_it_is_done_only_once(self):
    if not hasattr(self, "tied"):
        self.lm_head.weight = self.model.embed_tokens.weight
    self.tied = True


# Other right ways.


def register_parameter(self):
    table = self.model.embed_tokens
    self.lm_head.register_parameter("weight", table.weight)


def only_where_it_is_needed(self):
    if self.lm_head.weight is not self.model.embed_tokens.weight:
        setattr(self.lm_head, "weight", self.model.get_parameter("embed_tokens.weight"))
    return self


EXERCISE = Exercise(
    name="GemmaForCausalLM.tie_weights",
    file="decoder",
    minutes=5,
    difficulty="easy",
    why="The checkpoint holds no lm_head: without this, the answers would be noise.",
    builds_on=("GemmaModel",),
    steps=[
        "Find the parameter that has to stay: the one that the checkpoint holds.",
        "Put that very object, not a copy, in place of the other.",
        "Leave the modules themselves as they are: one looks up, the other multiplies.",
    ],
    hints=(
        "Two names for one object: what does `=` do in Python?",
        "The weight of an nn.Linear is an attribute that can be set to another nn.Parameter.",
        "self.lm_head.weight = self.model.embed_tokens.weight.",
    ),
    make=lambda m: m.GemmaForCausalLM(replace(SMALL_GEMMA, num_hidden_layers=0)),
    sizes=SIZES,
    cases=[
        Case(
            "a model that was just made",
            call=output_layer,
        ),
        Case(
            "other embeddings were loaded",
            lambda: {"embed_tokens": randn(53, 28)},
            call=loaded,
        ),
        Case(
            "the modules stay, only the weight is another",
            call=modules_kept,
            make=lambda m: untied(m.GemmaForCausalLM(replace(SMALL_GEMMA, num_hidden_layers=0))),
        ),
        Case(
            "a step of training by the output layer",
            lambda: {"hidden_states": randn(2, 7, 28)},
            call=trained,
            make=lambda m: untied(m.GemmaForCausalLM(replace(SMALL_GEMMA, num_hidden_layers=0))),
        ),
    ],
    mistakes=[
        Mistake(
            "with a copy",
            {
                "self.model.embed_tokens.weight": ("nn.Parameter(self.model.embed_tokens.weight.clone())"),
            },
            "a copy is right until the first step of training; then the two drift apart.",
        ),
        Mistake(
            "with two parameters that share their numbers",
            {
                "self.lm_head.weight = self.model.embed_tokens.weight": (
                    "self.lm_head.weight.data = self.model.embed_tokens.weight.data"
                ),
            },
            "each would have gradients of its own, and a saved checkpoint would hold both: it has to "
            "be one parameter.",
        ),
        Mistake(
            "with the embeddings replaced",
            {
                "self.lm_head.weight = self.model.embed_tokens.weight": (
                    "self.model.embed_tokens.weight = self.lm_head.weight"
                ),
            },
            "the checkpoint holds embed_tokens, so that is the one to keep.",
        ),
        Mistake(
            "with the module in place of its weight",
            {
                "self.lm_head.weight = self.model.embed_tokens.weight": (
                    "self.lm_head = self.model.embed_tokens"
                ),
            },
            "an nn.Embedding looks rows up; the output layer has to multiply.",
        ),
        Mistake(
            "with a new lm_head",
            {
                "self.lm_head.weight = self.model.embed_tokens.weight": (
                    "self.lm_head = nn.Linear(self.lm_head.in_features, self.lm_head.out_features, "
                    "bias=False)\n"
                    "        self.lm_head.weight = self.model.embed_tokens.weight"
                ),
            },
            "who holds the module, to look into it or to train it, would hold the old one: only its "
            "weight is "
            "to be another.",
        ),
        Mistake(
            "with the table transposed",
            {"self.model.embed_tokens.weight": "nn.Parameter(self.model.embed_tokens.weight.T)"},
            "both are [V, D]: nn.Linear itself multiplies by the transpose of its weight.",
        ),
        Mistake(
            "when nothing is tied",
            {"self.lm_head.weight = self.model.embed_tokens.weight": "pass"},
            "lm_head would keep its random numbers.",
        ),
        Mistake(
            "when it is done only once",
            when_it_is_done_only_once,
            "a loader puts other parameters in place and calls it again.",
        ),
    ],
    right_ways=[
        RightWay("register_parameter", register_parameter),
        RightWay("only where it is needed", only_where_it_is_needed),
    ],
    compare="one line, and half a billion parameters fewer: 257216 * 2048 numbers that would be "
    "stored twice.",
)
