"""The exercise LoRALinear of training_0.py."""

import torch
from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import randn
from course.exercises.training.inputs import ALPHA, SIZES, filled, layer


def at_the_start(LoRALinear, x):
    """A new one: whether it changes anything yet, what is zero in it, and what learns."""
    made = LoRALinear(layer(), 4, ALPHA)
    return {
        "says what the frozen layer says": torch.equal(made(x), layer()(x)),
        "A is random": bool(made.lora_A.weight.std() > 0.01),
        "B is zeros": not made.lora_B.weight.any(),
        "learns": {name: parameter.requires_grad for name, parameter in made.named_parameters()},
    }


def gradients(LoRALinear, x):
    """After backward: of the small matrices and of the input, but not of the frozen ones."""
    made = filled(LoRALinear(layer(), 4, ALPHA))
    (made(x) * randn(*x.shape[:-1], SIZES["O"], seed=8)).sum().backward()
    return {name: parameter.grad for name, parameter in made.named_parameters()} | {"x": x.grad}


def bf16(LoRALinear, x):
    made = filled(LoRALinear(layer(torch.bfloat16), 4, ALPHA))
    return {
        "result": made(x).detach(),
        "dtypes": [str(made.lora_A.weight.dtype), str(made.lora_B.weight.dtype)],
    }


def where(LoRALinear, base):
    """The devices of the parameters, on a machine whose default is another one than the layer's."""
    made = LoRALinear(base, 4, ALPHA)
    return {name: str(parameter.device) for name, parameter in made.named_parameters()}


# Other right ways.


class WithFunctional:
    def __init__(self, base_layer, rank, alpha):
        super().__init__()
        for parameter in base_layer.parameters():
            parameter.requires_grad = False
        self.base_layer = base_layer
        device = base_layer.weight.device
        self.lora_A = nn.Linear(base_layer.in_features, rank, False, device)
        self.lora_B = nn.Linear(rank, base_layer.out_features, False, device)
        self.lora_B.weight.data.zero_()
        self.scaling = alpha / rank

    def forward(self, x):
        frozen = self.base_layer(x)
        small = F.linear(F.linear(x.float(), self.lora_A.weight), self.lora_B.weight)  # noqa: F821
        return torch.add(frozen, small, alpha=self.scaling).to(frozen.dtype)


class ScaledInBetween:
    def __init__(self, base_layer, rank, alpha):
        super().__init__()
        self.scaling = alpha / rank
        self.base_layer = base_layer
        self.base_layer.requires_grad_(False)
        where = {"bias": False, "device": base_layer.weight.device, "dtype": torch.float32}
        self.lora_A = nn.Linear(base_layer.weight.shape[1], rank, **where)
        self.lora_B = nn.Linear(rank, base_layer.weight.shape[0], **where)
        nn.init.normal_(self.lora_A.weight, std=0.2)
        nn.init.constant_(self.lora_B.weight, 0.0)

    def forward(self, x):
        y = self.base_layer(x)
        return (y.float() + self.lora_B(self.scaling * self.lora_A(x.to(torch.float32)))).type(y.dtype)


FROZEN, ZEROS = "base_layer.requires_grad_(False)", "nn.init.zeros_(self.lora_B.weight)"
UPDATE = "update = self.lora_B(self.lora_A(x.float())) * self.scaling"
RETURN = "return (out + update).to(out.dtype)"

EXERCISE = Exercise(
    name="LoRALinear",
    file="training",
    minutes=25,
    difficulty="medium",
    why="A 3B model learns on a laptop: less than one percent of its numbers need gradients.",
    steps={
        "__init__": [
            "Keep the given layer as base_layer, with its parameters frozen.",
            "Make lora_A from I to R and lora_B from R to O: float32, no bias, on the layer's device.",
            "Set lora_B to zeros, and leave lora_A random.",
            "Keep alpha / R as scaling.",
        ],
        "forward": [
            "Send the input through the frozen layer, and in float32 through the two small ones, scaled.",
            "Return the sum in the dtype of the frozen layer's output.",
        ],
    },
    hints=(
        "One of the two has to be zero so that nothing changes at the start. If both were, what would the "
        "gradient of each be?",
        "requires_grad_(False) freezes a layer, nn.init.zeros_ clears a weight. base_layer.weight has the "
        "shape [O, I]. Adding float32 to bfloat16 gives float32.",
        "self.lora_A = nn.Linear(I, rank, bias=False, device=...); update = "
        "self.lora_B(self.lora_A(x.float())) * self.scaling; (out + update).to(out.dtype).",
    ),
    make=lambda m: m.LoRALinear(layer(), 4, ALPHA),
    attributes=("scaling",),
    result={"": "B T O"},
    sizes=SIZES,
    cases=[
        Case("two rows of three tokens", lambda: {"x": randn(2, 3, 10)}, training=True),
        Case("at the start", lambda: {"x": randn(2, 3, 10)}, make=lambda m: m.LoRALinear, call=at_the_start),
        Case(
            "what gets a gradient",
            lambda: {"x": randn(2, 3, 10).requires_grad_()},
            make=lambda m: m.LoRALinear,
            call=gradients,
        ),
        Case(
            "rank 3 and alpha 9, without a bias",
            lambda: {"x": randn(2, 5, 10, seed=1)},
            make=lambda m: m.LoRALinear(layer(bias=False), 3, 9.0),
        ),
        Case(
            "a frozen layer in bfloat16",
            lambda: {"x": randn(3, 70, 10, dtype=torch.bfloat16)},
            make=lambda m: m.LoRALinear,
            call=bf16,
            exact=0.95,
        ),
        Case(
            "a layer on another device than the default one",
            lambda: {"base": layer()},
            make=lambda m: m.LoRALinear,
            call=where,
            other_device=True,
        ),
    ],
    mistakes=[
        Mistake(
            "with B random, too",
            {"        nn.init.zeros_(self.lora_B.weight)\n": ""},
            "then the model answers nonsense before it has learned anything: B begins at zero.",
        ),
        Mistake(
            "with A zeros, too",
            {ZEROS: ZEROS + "\n        nn.init.zeros_(self.lora_A.weight)"},
            "with both at zero, the gradient of each is zero as well, and nothing ever moves.",
        ),
        Mistake(
            "with A zeros in place of B",
            {"nn.init.zeros_(self.lora_B.weight)": "nn.init.zeros_(self.lora_A.weight)"},
            "it would train, but adapters are made the other way around: B is zeros and A random.",
        ),
        Mistake(
            "without alpha / R",
            {" * self.scaling": ""},
            "the product is multiplied by scaling, so that another rank needs no other learning rate.",
        ),
        Mistake(
            "with alpha alone",
            {"alpha / rank": "alpha"},
            "alpha is divided by the rank: more columns add up to a larger product.",
        ),
        Mistake(
            "with R / alpha",
            {"alpha / rank": "rank / alpha"},
            "it is the other way around.",
        ),
        Mistake(
            "with the root of R",
            {"alpha / rank": "alpha / rank ** 0.5"},
            "that is another paper's (rsLoRA); here it is R itself.",
        ),
        Mistake(
            "when the scaling is applied twice",
            {"self.lora_A(x.float())": "self.lora_A(x.float() * self.scaling)"},
            "once: at A, or at B, or at the end.",
        ),
        Mistake(
            "when the base layer is not frozen",
            {FROZEN: "base_layer"},
            "it would need gradients and the optimizer's memory, which LoRA is there to save.",
        ),
        Mistake(
            "when the base layer is frozen but for its bias",
            {FROZEN: "base_layer\n        base_layer.weight.requires_grad_(False)"},
            "all of its parameters stay as they are.",
        ),
        Mistake(
            "with the frozen layer's output alone",
            {RETURN: "return out"},
            "what the small matrices say is added to it.",
        ),
        Mistake(
            "without the frozen layer",
            {RETURN: "return update.to(out.dtype)"},
            "the small matrices only say what to change.",
        ),
        Mistake(
            "with the update in bfloat16",
            {
                UPDATE: "update = (F.linear(F.linear(x, self.lora_A.weight.to(x.dtype)), "
                "self.lora_B.weight.to(x.dtype)) * self.scaling)"
            },
            "what is small when training begins would be rounded away: the update is float32.",
        ),
        Mistake(
            "when float32 is returned",
            {RETURN: "return out + update"},
            "the next layer is bfloat16 as well, and takes no float32.",
        ),
        Mistake(
            "with small matrices in the base layer's dtype",
            {
                "device=base_layer.weight.device)": "device=base_layer.weight.device, "
                "dtype=base_layer.weight.dtype)",
                UPDATE: "update = self.lora_B(self.lora_A(x.to(self.lora_A.weight.dtype))) * self.scaling",
            },
            "a step of 1e-4 on a bfloat16 weight is mostly rounded to nothing: what learns is float32.",
        ),
        Mistake(
            "with biases",
            {"bias=False, ": ""},
            "the small matrices have none, and neither have the files that hold adapters.",
        ),
        Mistake(
            "when nothing can flow through the frozen layer",
            {"out = self.base_layer(x)": "with torch.no_grad():\n            out = self.base_layer(x)"},
            "frozen means that its weights get no gradient; the layers before it still need theirs.",
        ),
        Mistake(
            "with the small layers on the default device",
            {", device=base_layer.weight.device": ""},
            "on a GPU they have to be where the layer is.",
        ),
    ],
    right_ways=[
        RightWay("with functional calls", WithFunctional),
        RightWay("scaled in between", ScaledInBetween),
    ],
    compare="the order of the products: B (A x), never (B A) x. For a matrix of 2048 x 2048 and rank 8, how "
    "many multiplications does each cost for one token?",
)
