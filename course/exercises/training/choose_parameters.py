"""The exercise choose_parameters of training_0.py."""

from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay


def attention(lora: bool, out: str) -> nn.Module:
    """Four projections; lora: small matrices beside the first and the third."""
    made = nn.Module()
    for name in ("q_proj", "k_proj", "v_proj", out):
        made.add_module(name, nn.Linear(3, 3, bias=out == "out_proj"))
        if lora and name in ("q_proj", "v_proj"):
            around = nn.Module()
            around.base_layer = made.get_submodule(name).requires_grad_(False)
            around.lora_A, around.lora_B = nn.Linear(3, 2, bias=False), nn.Linear(2, 3, bias=False)
            made.set_submodule(name, around)
    return made


def small_paligemma(lora: bool) -> nn.Module:
    """Modules with PaliGemma's names: a tower of one layer, the projector, a tied decoder of one layer."""
    made = nn.Module()
    made.vision_tower = nn.Module()
    made.vision_tower.self_attn = attention(False, "out_proj")
    made.multi_modal_projector = nn.Linear(3, 4)
    made.language_model = nn.Module()
    made.language_model.embed_tokens = nn.Embedding(5, 4)
    made.language_model.self_attn = attention(lora, "o_proj")
    made.language_model.mlp = nn.Linear(3, 4, bias=False)
    made.language_model.lm_head = nn.Linear(4, 5, bias=False)
    made.language_model.lm_head.weight = made.language_model.embed_tokens.weight
    return made


def chosen(choose_parameters, mode, before=None):
    """The names of what is returned, in order, and which parameters learn; before: an earlier mode."""
    model = small_paligemma(lora="lora" in (mode, before))
    if before:
        choose_parameters(model, before)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    returned = choose_parameters(model, mode)
    return {
        "returned": [names.get(id(parameter), "no parameter of the model") for parameter in returned],
        "learns": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
    }


# Other right ways.


def by_module(model, mode):
    model.requires_grad_(mode == "all")
    for name, module in model.named_modules():
        last = name.split(".")[-1]
        if mode == "lora" and last in ("lora_A", "lora_B"):
            module.requires_grad_(True)
        if mode == "attention" and last == "self_attn" and name.startswith("language_model"):
            module.requires_grad_(True)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def with_if_and_else(model, mode):
    for name, parameter in model.named_parameters():
        if mode == "all":
            parameter.requires_grad = True
        elif mode == "attention":
            parameter.requires_grad = "language_model" in name and "self_attn" in name
        else:
            parameter.requires_grad = "lora_" in name
    return list(filter(lambda parameter: parameter.requires_grad, model.parameters()))


LORA = '".lora_A." in name or ".lora_B." in name'
ATTENTION = 'name.startswith("language_model.") and ".self_attn." in name'

EXERCISE = Exercise(
    name="choose_parameters",
    file="training",
    minutes=15,
    difficulty="medium",
    why="What learns decides how much memory is needed, and how much of the old is forgotten.",
    builds_on=("add_lora",),
    steps=[
        "Look at every parameter of the model by its name, each once.",
        "Decide by mode and name whether it learns: the small matrices, the decoder's attention, or all.",
        "Say so in the parameter itself, for those that do not learn as well.",
        "Return a list of those that learn, in the model's order.",
    ],
    hints=(
        "The tower's attention has the same names as the decoder's, but for the beginning.",
        "named_parameters gives names and parameters, and one that two layers share only once. "
        "requires_grad_ takes True or False.",
        'learns = ".lora_A." in name or ".lora_B." in name for lora; name.startswith("language_model.") and '
        '".self_attn." in name for attention.',
    ),
    cases=[
        Case("lora", lambda: {"mode": "lora"}, call=chosen),
        Case("attention", lambda: {"mode": "attention"}, call=chosen),
        Case("all, with a table that is tied", lambda: {"mode": "all"}, call=chosen),
        Case(
            "all, after another mode froze most", lambda: {"mode": "all", "before": "attention"}, call=chosen
        ),
        Case("lora, after all", lambda: {"mode": "lora", "before": "all"}, call=chosen),
        Case("all, after lora", lambda: {"mode": "all", "before": "lora"}, call=chosen),
    ],
    mistakes=[
        Mistake(
            "with frozen parameters in the list",
            {"        if learns:\n            chosen.append(parameter)": "        chosen.append(parameter)"},
            "the optimizer would keep two numbers for each of them, and weight decay would shrink them.",
        ),
        Mistake(
            "when nothing is frozen",
            {"parameter.requires_grad_(learns)": "pass"},
            "gradients would still be computed for all, and kept in memory.",
        ),
        Mistake(
            "when what was frozen stays frozen",
            {"requires_grad_(learns)": "requires_grad_(learns and parameter.requires_grad)"},
            "the model may have been frozen before: True has to be said as well as False.",
        ),
        Mistake(
            "with the tower's attention, too",
            {ATTENTION: '".self_attn." in name'},
            "the vision tower's layers are called self_attn as well: only language_model is meant.",
        ),
        Mistake(
            "with all of the decoder",
            {ATTENTION: 'name.startswith("language_model.")'},
            "the MLPs and the embedding table are most of it: only self_attn is meant.",
        ),
        Mistake(
            "with q and v alone",
            {ATTENTION: 'name.startswith("language_model.") and name[-13:-7] in ("q_proj", "v_proj")'},
            "all four projections learn in this mode: q, k, v and o.",
        ),
        Mistake(
            "with A alone",
            {LORA: '".lora_A." in name'},
            "B is zero at the start: if it never moves, the product stays zero.",
        ),
        Mistake(
            "with B alone",
            {LORA: '".lora_B." in name'},
            "A learns as well as B.",
        ),
        Mistake(
            "with the layers that LoRA is beside, too",
            {LORA: '"lora_" in name or "base_layer" in name'},
            "base_layer stays as it is.",
        ),
        Mistake(
            "when a tied weight is there twice",
            {"model.named_parameters()": "model.named_parameters(remove_duplicate=False)"},
            "the table is also the output layer: the optimizer would move it twice, and PyTorch warns of it.",
        ),
        Mistake(
            "with everything but the tower",
            {'"all": True': '"all": not name.startswith("vision_tower.")'},
            "PaliGemma's makers train the tower as well.",
        ),
        Mistake(
            "with names or other things in place of the parameters",
            {"chosen.append(parameter)": "chosen.append(name)"},
            "an optimizer takes parameters.",
        ),
    ],
    right_ways=[
        RightWay("by module", by_module),
        RightWay("with if and else", with_if_and_else),
    ],
    compare="what an optimizer keeps: Adam has two float32 numbers for each that learns, beside its "
    "gradient. How many GB is that for all 2.9 billion, and for LoRA's 19.6 million?",
)
