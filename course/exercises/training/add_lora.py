"""The exercise add_lora of training_0.py."""

from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.training.inputs import ALPHA


def block() -> nn.Module:
    """A layer with some of the decoder's names, and some that look like them."""
    made = nn.Module()
    made.self_attn = nn.Module()
    for name in ("q_proj", "k_proj", "v_proj", "xq_proj"):
        made.self_attn.add_module(name, nn.Linear(6, 7))
    made.self_attn.q_proj_norm = nn.Linear(7, 5)
    made.mlp = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6))
    return made


def small_decoder() -> nn.Module:
    made = nn.Module()
    made.layers = nn.ModuleList([block(), block()])
    made.lm_head = nn.Linear(6, 11)
    return made


def added(add_lora, targets, rank=4, alpha=ALPHA):
    """The names, and of each layer of the model what it is now."""
    model = small_decoder()
    before = {name: module.weight for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    names = add_lora(model, targets, rank, alpha)
    now = {}
    for name, weight in before.items():
        module = model.get_submodule(name)
        if isinstance(module, nn.Linear):
            now[name] = ["as it was" if module.weight is weight else "another layer"]
        else:
            kept = "around the old layer" if module.base_layer.weight is weight else "around another layer"
            now[name] = [type(module).__name__, kept, len(module.lora_A.weight), module.scaling]
    return {"returned": names, "layers": now}


# Known mistakes that take whole functions.


def when_one_target_that_fits_is_enough(model, targets, rank, alpha):
    replaced = []
    for name, module in list(model.named_modules()):
        if any(name == target or name.endswith("." + target) for target in targets):
            model.set_submodule(name, LoRALinear(module, rank, alpha))  # noqa: F821
            replaced.append(name)
    if not replaced:
        raise ValueError("no layer's name ends in any of the targets")
    return replaced


def with_the_first_layer_of_each_target(model, targets, rank, alpha):
    replaced = []
    for target in targets:
        names = [name for name, _ in model.named_modules() if ("." + name).endswith("." + target)]
        if not names:
            raise ValueError(f"no layer's name ends in {target}")
        model.set_submodule(names[0], LoRALinear(model.get_submodule(names[0]), rank, alpha))  # noqa: F821
        replaced.append(names[0])
    return replaced


def in_the_order_of_the_targets(model, targets, rank, alpha):
    replaced = []
    for target in targets:
        names = [name for name, _ in model.named_modules() if ("." + name).endswith("." + target)]
        if not names:
            raise ValueError(f"no layer's name ends in {target}")
        for name in names:
            model.set_submodule(name, LoRALinear(model.get_submodule(name), rank, alpha))  # noqa: F821
        replaced += names
    return replaced


# Other right ways.


def with_setattr(model, targets, rank, alpha):
    modules = dict(model.named_modules())
    ends = tuple("." + target for target in targets)
    names = [name for name in modules if f".{name}".endswith(ends)]
    for end in ends:
        if not any(f".{name}".endswith(end) for name in names):
            raise ValueError(f"nothing is called {end[1:]}")
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, LoRALinear(modules[name], rank, alpha))  # noqa: F821
    return names


def with_a_regular_expression(model, targets, rank, alpha):
    import re

    found = {target: re.compile(rf"(.*\.)?{re.escape(target)}") for target in targets}
    names = [name for name, _ in model.named_modules()]
    if missing := [t for t, pattern in found.items() if not any(map(pattern.fullmatch, names))]:
        raise ValueError(f"no layer for {missing}")
    replaced = [name for name in names if any(p.fullmatch(name) for p in found.values())]
    for name in replaced:
        model.set_submodule(name, LoRALinear(model.get_submodule(name), rank, alpha))  # noqa: F821
    return replaced


FITS = 'name == target or name.endswith("." + target)'

EXERCISE = Exercise(
    name="add_lora",
    file="training",
    minutes=15,
    difficulty="medium",
    why="Which matrices may change is a list of names, and it is saved with what they learned.",
    builds_on=("LoRALinear",),
    steps=[
        "Look at every module of the model by its name, in the model's order.",
        "If the name is one of the targets, or ends in a dot and a target, put a LoRALinear around the "
        "module in its place, and note the name.",
        "If a target fits no name at all, raise a ValueError that says which.",
        "Return the names.",
    ],
    hints=(
        "`layers.0.self_attn.xq_proj` ends in `q_proj`, too. What has to stand in front of a target?",
        "list(model.named_modules()) gives names and modules, set_submodule(name, module) puts another one "
        "in its place. A set of targets from which those that fit are taken shows what is left over.",
        'fits = {target for target in targets if name == target or name.endswith("." + target)}.',
    ),
    cases=[
        Case("two targets, of two layers", lambda: {"targets": ["q_proj", "v_proj"]}, call=added),
        Case("a whole name, and a number", lambda: {"targets": ["lm_head", "mlp.2"], "rank": 3}, call=added),
        Case("a target at the model's top", lambda: {"targets": ["lm_head"], "alpha": 8.0}, call=added),
        Case(
            "targets that are not in the model's order",
            lambda: {"targets": ["v_proj", "k_proj", "q_proj"]},
            call=added,
        ),
        Case(
            "two targets that fit the same layer",
            lambda: {"targets": ["k_proj", "self_attn.k_proj"]},
            call=added,
        ),
        Case("a target that fits nothing", lambda: {"targets": ["qproj"]}, call=added),
        Case("one that fits, and one that does not", lambda: {"targets": ["q_proj", "out_proj"]}, call=added),
    ],
    mistakes=[
        Mistake(
            "without the dot",
            {FITS: "name.endswith(target)"},
            "`xq_proj` ends in `q_proj` as well, and is another layer.",
        ),
        Mistake(
            "with whole names alone",
            {FITS: "name == target"},
            "`q_proj` stands for `layers.0.self_attn.q_proj` and all others that end so.",
        ),
        Mistake(
            "with ends alone",
            {FITS: 'name.endswith("." + target)'},
            "a layer at the top has no dot in its name: a target may also be the whole name.",
        ),
        Mistake(
            "with every name that holds a target",
            {FITS: "target in name"},
            "`q_proj_norm` and `xq_proj` hold `q_proj`, too: the last part of the name has to be the target.",
        ),
        Mistake(
            "when a target that fits nothing is passed over",
            {"if unused:": "if False:"},
            "a name with a typo would train nothing, and nobody would notice: raise a ValueError.",
        ),
        Mistake(
            "when one target that fits is enough",
            when_one_target_that_fits_is_enough,
            "each target has to fit some layer: the other one may have a typo.",
        ),
        Mistake(
            "with rank and alpha swapped",
            {"LoRALinear(module, rank, alpha)": "LoRALinear(module, int(alpha), rank)"},
            "the rank comes first.",
        ),
        Mistake(
            "with the first layer of each target alone",
            with_the_first_layer_of_each_target,
            "all layers that a target fits are replaced: the decoder has 18 of each name.",
        ),
        Mistake(
            "with the names in the order of the targets",
            in_the_order_of_the_targets,
            "the model's order is asked for; and a layer that two targets fit is wrapped only once.",
        ),
        Mistake(
            "with the names in the order of the alphabet",
            {"return replaced": "return sorted(replaced)"},
            "the model's order is asked for, in which q_proj comes before k_proj.",
        ),
        Mistake(
            "when the names are not returned",
            {"return replaced": "return None"},
            "whoever called it wants to say how many layers learn.",
        ),
        Mistake(
            "with the targets returned",
            {"return replaced": "return list(targets)"},
            "the names of the layers are asked for.",
        ),
        Mistake(
            "when the model stays as it was",
            {"model.set_submodule(name, LoRALinear(module, rank, alpha))": "LoRALinear(module, rank, alpha)"},
            "a LoRALinear has to be put into the model that was given, or it is never called.",
        ),
    ],
    right_ways=[
        RightWay("with setattr", with_setattr),
        RightWay("with a regular expression", with_a_regular_expression),
    ],
    compare="what a name decides. The tower's layers are called q_proj, too: what would you write to add "
    "LoRA to the decoder alone, and what to the tower's as well?",
)
