"""The exercise LoRALinear.merged of training_0.py."""

import torch
from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import randn
from course.exercises.training.inputs import ALPHA, SIZES, filled, layer


def merged(LoRALinear, x, bias=True, dtype=torch.float32):
    """The new layer, what it says, and whether the old ones are as they were."""
    made = filled(LoRALinear(layer(dtype, bias), 4, ALPHA))
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    new = made.merged()
    parameters = {name: parameter.detach().clone() for name, parameter in new.named_parameters()}
    result = new(x.to(dtype)).detach()
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.zero_()
    return {
        "parameters": parameters,
        "result": result,
        "an ordinary nn.Linear": type(new) is nn.Linear,
        "in_features and out_features say its sizes": (new.out_features, new.in_features) == new.weight.shape,
        "everything as it was": all(torch.equal(before[name], t) for name, t in made.state_dict().items()),
    }


# Other right ways.


def into_a_copy(self):
    made = nn.Linear(self.base_layer.weight.shape[1], self.base_layer.weight.shape[0])
    made.to(self.base_layer.weight.dtype)
    made.weight.data = (
        (self.base_layer.weight.float() + self.scaling * (self.lora_B.weight @ self.lora_A.weight))
        .to(made.weight.dtype)
        .data
    )
    made.bias = None
    if self.base_layer.bias is not None:
        made.bias = nn.Parameter(self.base_layer.bias.data.clone())
    return made


@torch.no_grad()
def by_asking_for_each_column(self):
    base = self.base_layer
    columns = torch.eye(self.lora_A.weight.shape[1], device=base.weight.device)
    update = self.lora_B(self.lora_A(columns)).T * self.scaling
    where = {"dtype": base.weight.dtype, "device": base.weight.device}
    made = nn.Linear(*base.weight.T.shape, bias=base.bias is not None, **where)
    made.weight.copy_(base.weight.float() + update)
    if base.bias is not None:
        made.bias.copy_(base.bias)
    return made


# Known mistakes that take whole functions.


def when_the_base_layer_is_changed(self):
    with torch.no_grad():
        self.base_layer.weight += self.lora_B.weight @ self.lora_A.weight * self.scaling
    return self.base_layer


BF16 = "self.lora_B.weight.to(weight.dtype) @ self.lora_A.weight.to(weight.dtype) * self.scaling"
PRODUCT = "self.lora_B.weight @ self.lora_A.weight * self.scaling"
SUM = "(weight.float() + update).detach().to(weight.dtype)"

EXERCISE = Exercise(
    name="LoRALinear.merged",
    file="training",
    minutes=15,
    difficulty="medium",
    why="A merged model is an ordinary checkpoint: any program reads it, and an answer costs no more.",
    builds_on=("LoRALinear",),
    steps=[
        "Multiply the two small matrices so that the product is [O, I], and scale it.",
        "Add it to the frozen weight in float32, and round the sum to the dtype of the frozen weight.",
        "Put the sum into a new nn.Linear.",
        "Give it a copy of the bias, or none if there is none, and return it.",
    ],
    hints=(
        "lora_B is [O, R] and lora_A is [R, I]: in which order do they fit, and is the inner size R?",
        ".float() gives the weight in float32. If it is that already, it is the same tensor: add with `+`, "
        "not with `+=`. .to(weight.dtype) rounds once. A new nn.Linear's weight may be replaced by any "
        "nn.Parameter of its shape.",
        "linear.weight = nn.Parameter((weight.float() + self.lora_B.weight @ self.lora_A.weight * "
        "self.scaling).detach().to(weight.dtype)).",
    ),
    make=lambda m: m.LoRALinear,
    result={"weight": "O I", "bias": "O", "result": "B O"},
    sizes=SIZES,
    cases=[
        Case("with a bias", lambda: {"x": randn(2, 10)}, call=merged),
        Case("without a bias", lambda: {"x": randn(3, 10, seed=1), "bias": False}, call=merged),
        Case(
            "a frozen weight in bfloat16",
            lambda: {"x": randn(2, 10), "bias": False, "dtype": torch.bfloat16},
            call=merged,
            exact=0.9,
        ),
        Case(
            "a layer on another device than the default one",
            make=lambda m: m.LoRALinear(layer(), 4, ALPHA),
            call=lambda made: {name: tensor.detach() for name, tensor in made.merged().named_parameters()},
            other_device=True,
        ),
    ],
    mistakes=[
        Mistake(
            "without the scaling",
            {" * self.scaling": ""},
            "forward multiplies by alpha / R, so the merged weight has it, too.",
        ),
        Mistake(
            "with A and B swapped",
            {"self.lora_B.weight @ self.lora_A.weight": "self.lora_A.weight @ self.lora_B.weight"},
            "[R, I] @ [O, R] does not fit: B stands on the left, [O, R] @ [R, I].",
        ),
        Mistake(
            "with the product transposed",
            {PRODUCT: "(self.lora_B.weight @ self.lora_A.weight).T * self.scaling"},
            "the product is [O, I] as it is, like the weight.",
        ),
        Mistake(
            "when the product is taken off",
            {"weight.float() + update": "weight.float() - update"},
            "it is added: taking it off is how a merge is undone.",
        ),
        Mistake(
            "without the frozen weight",
            {"weight.float() + update": "update"},
            "the small matrices only say what to change.",
        ),
        Mistake(
            "with the product rounded to bfloat16 before the sum",
            {"weight.float() + update": "weight + update.to(weight.dtype)"},
            "each rounding costs digits, and bfloat16 has only two or three: round once, at the end.",
        ),
        Mistake(
            "with the small matrices in bfloat16",
            {PRODUCT: BF16},
            "the product and the sum are float32; only the result is rounded.",
        ),
        Mistake(
            "when float32 is kept",
            {SUM: "(weight.float() + update).detach()"},
            "the new layer stands among others of the old dtype, and takes their outputs.",
        ),
        Mistake(
            "when the base layer itself is changed",
            when_the_base_layer_is_changed,
            "this module would then add the product a second time.",
            also=({"weight.float() + update": "weight.float().add_(update)"},),
        ),
        Mistake(
            "without the bias",
            {"bias=bias is not None, ": "bias=False, ", "if bias is not None:": "if False:"},
            "LoRA leaves it alone, but the layer still has it.",
        ),
        Mistake(
            "with the old layer's own bias",
            {"bias.detach().clone()": "bias.detach()"},
            "it shares its memory with this module's: whoever changes one changes both.",
        ),
        Mistake(
            "with a new bias",
            {"bias.detach().clone()": "torch.zeros_like(bias)"},
            "the bias of the frozen layer is a part of what it computes.",
        ),
    ],
    right_ways=[
        RightWay("into a copy", into_a_copy),
        RightWay("by asking for each column", by_asking_for_each_column),
    ],
    compare="the meta device: the new layer's own random weights are never made. What would a merge of the "
    "3B model cost without it?",
)
