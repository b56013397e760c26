"""The lesson against PEFT and transformers, and each of its steps by itself.

Two programs that agree to five digits on the loss, on every gradient and on the weights after ten steps
train the same. The model is a small random one; rows differ in length, and so do their answers.
"""

import math

import pytest
import torch
from PIL import Image
from transformers import PaliGemmaForConditionalGeneration

from finetuning.adapter import load_adapter, lora_layers, save_adapter, save_checkpoint, transformers_name
from load_weights import hub_name, load_hf_model
from random_weights.small import random_checkpoint, random_tensors, small_config, write_tensors
from text_image_token_processor_1 import PaliGemmaProcessor, process_images
from training_1 import (
    add_lora,
    choose_parameters,
    collate,
    merge_lora,
    sum_by_token,
    train_step,
    training_row,
)

try:
    import peft
except ImportError:
    peft = None
needs_peft = pytest.mark.skipif(
    peft is None, reason="peft is not installed; it is in requirements-dev.txt, and only tests need it"
)

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK, ALPHA = 3, 7
EXAMPLES = [
    ("caption en", "a cat and ten cats"),
    ("detect cat", "<loc0012><loc0345><loc0678><loc0901> cat ; <loc0002><loc0003><loc0500><loc0600> cat"),
    ("is there a dog?", "no"),
    ("", ""),
]


@pytest.fixture(scope="module")
def examples():
    """Pictures of random colors, each with a prefix and a suffix."""
    pixels = torch.Generator().manual_seed(3)
    return [
        (
            Image.fromarray(torch.randint(256, (20, 30, 3), generator=pixels, dtype=torch.uint8).numpy()),
            *texts,
        )
        for texts in EXAMPLES
    ]


def batch_of(model, tokenizer, examples):
    """The examples as one batch, with padding."""
    vision = model.config.vision_config
    rows = [training_row(tokenizer, prefix, suffix, vision.num_patches) for _, prefix, suffix in examples]
    pictures = [picture for picture, _, _ in examples]
    return collate(rows, 0) | {"pixel_values": process_images(pictures, vision.image_size)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights of half the size of the other tests': rounding grows less on its way through."""
    folder, config = tmp_path_factory.mktemp("calm"), small_config()
    random_checkpoint(folder, config)
    write_tensors(folder, {name: tensor / 2 for name, tensor in random_tensors(config).items()})
    return folder


@pytest.fixture
def ours(checkpoint):
    return load_hf_model(checkpoint)


def with_lora(model):
    """LoRA beside all of the decoder's matrices, and B no longer zero, so that A has gradients."""
    add_lora(model.language_model, TARGETS, RANK, ALPHA)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            layer.lora_A.weight.copy_(torch.randn(layer.lora_A.weight.shape, generator=generator) * 0.2)
            layer.lora_B.weight.copy_(torch.randn(layer.lora_B.weight.shape, generator=generator) * 0.1)
    return choose_parameters(model, "lora")


# ---------------------------------------------------------------------- against PEFT and transformers


def in_peft(checkpoint, adapter=None, trainable=True):
    """transformers' model with PEFT's adapter, read from a folder or made."""
    model = PaliGemmaForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    )
    if adapter is not None:
        return peft.PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
    config = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=rf".*language_model\..*\.({'|'.join(TARGETS)})"
    )
    return peft.get_peft_model(model, config)


def peft_parameters(model) -> dict[str, torch.nn.Parameter]:
    """PEFT's small matrices by the names that they have here."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            module, part, *_ = name.removeprefix("base_model.model.").partition(".lora_")
            found[f"{hub_name(module)}.lora_{name.rsplit('.lora_', 1)[1][0]}.weight"] = parameter
    return found


def assert_same(ours, theirs):
    """The difference is at most 1e-5 of the whole."""
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


@needs_peft
def test_loss_gradients_and_ten_steps_as_peft(checkpoint, ours, examples, tmp_path):
    model, tokenizer = ours
    parameters = with_lora(model)
    save_adapter(tmp_path, model, str(checkpoint), RANK, ALPHA)
    theirs = in_peft(checkpoint, tmp_path)
    their_parameters = peft_parameters(theirs)
    our_parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert our_parameters.keys() == their_parameters.keys() and len(our_parameters) == 2 * len(TARGETS) * 3

    batch = batch_of(model, tokenizer, examples)
    assert (batch["attention_mask"] == 0).any()
    optimizers = [
        torch.optim.AdamW(group, lr=1e-3, weight_decay=0.1)
        for group in (parameters, their_parameters.values())
    ]
    for _ in range(10):
        their_loss = theirs(**batch).loss
        optimizers[1].zero_grad()
        their_loss.backward()
        # No clipping on either side: the gradients are compared as they are.
        our_loss = train_step(model, [batch], parameters, optimizers[0], sum_by_token, max_norm=math.inf)
        assert our_loss == pytest.approx(their_loss.item(), rel=1e-5)
        for name, parameter in our_parameters.items():
            assert_same(parameter.grad, their_parameters[name].grad)
        optimizers[1].step()
    for name, parameter in our_parameters.items():
        assert_same(parameter, their_parameters[name])


@needs_peft
def test_accumulated_step_as_one_batch_of_peft(checkpoint, ours, examples, tmp_path):
    """Parts with different numbers of learned tokens: the gradient is still that of the whole."""
    model, tokenizer = ours
    parameters = with_lora(model)
    save_adapter(tmp_path, model, str(checkpoint), RANK, ALPHA)
    theirs = in_peft(checkpoint, tmp_path)
    theirs(**batch_of(model, tokenizer, examples)).loss.backward()
    parts = [batch_of(model, tokenizer, part) for part in (examples[:1], examples[1:])]
    train_step(model, parts, parameters, torch.optim.SGD(parameters, lr=0.0), sum_by_token, math.inf)
    for name, parameter in peft_parameters(theirs).items():
        assert_same(model.get_parameter(name).grad, parameter.grad)


@needs_peft
def test_our_adapter_in_peft_gives_the_same_logits(checkpoint, ours, examples, tmp_path):
    model, tokenizer = ours
    with_lora(model)
    save_adapter(tmp_path, model, str(checkpoint), RANK, ALPHA)
    theirs = in_peft(checkpoint, tmp_path, trainable=False).eval()
    batch = batch_of(model, tokenizer, examples)
    batch.pop("labels")
    with torch.no_grad():
        torch.testing.assert_close(
            model(**batch)["logits"][:, -3:], theirs(**batch).logits[:, -3:], rtol=1e-4, atol=1e-4
        )


@needs_peft
@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"alpha_pattern": {"v_proj": 5}, "rank_pattern": {"v_proj": 2}}]
)
def test_an_adapter_of_peft_here(checkpoint, ours, examples, tmp_path, options):
    theirs = PaliGemmaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    config = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=r".*language_model\..*\.(q_proj|v_proj|down_proj)", **options
    )
    theirs = peft.get_peft_model(theirs, config).eval()
    with torch.no_grad():
        for parameter in peft_parameters(theirs).values():
            parameter.normal_(std=0.2)
    theirs.save_pretrained(tmp_path)
    model, tokenizer = ours
    assert len(load_adapter(model, tmp_path)) == 3 * 3
    batch = batch_of(model, tokenizer, examples)
    batch.pop("labels")
    with torch.no_grad():
        torch.testing.assert_close(
            model(**batch)["logits"][:, -3:], theirs(**batch).logits[:, -3:], rtol=1e-4, atol=1e-4
        )


@needs_peft
def test_answers_are_the_same(checkpoint, ours, examples, tmp_path):
    """Token by token, through generate of both."""
    from generation_1 import generate

    model, tokenizer = ours
    with_lora(model)
    save_adapter(tmp_path, model, str(checkpoint), RANK, ALPHA)
    vision = model.config.vision_config
    processor = PaliGemmaProcessor(tokenizer, vision.num_patches, vision.image_size)
    batch = processor(["caption en"], [examples[0][0]])
    mine = [tokens[0] for tokens in generate(model, batch, eos_token_id=-1, max_tokens=12)]
    theirs = in_peft(checkpoint, tmp_path, trainable=False).eval()
    theirs.generation_config.eos_token_id = None
    output = theirs.generate(
        **batch, token_type_ids=torch.zeros_like(batch["input_ids"]), max_new_tokens=12, do_sample=False
    )
    assert mine == output[0, batch["input_ids"].shape[1] :].tolist()


# --------------------------------------------------------------------------------- adapter files


def test_names_of_modules_there_and_back(ours):
    model, _ = ours
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert hub_name(transformers_name(name) + ".weight") == name + ".weight"


def test_merged_checkpoint_is_read_by_transformers(checkpoint, ours, examples, tmp_path):
    model, tokenizer = ours
    with_lora(model)
    batch = batch_of(model, tokenizer, examples)
    batch.pop("labels")
    with torch.no_grad():
        before = model(**batch)["logits"][:, -3:]
        changed = {f"{name}.weight" for name in merge_lora(model)}
        torch.testing.assert_close(model(**batch)["logits"][:, -3:], before, rtol=1e-4, atol=1e-4)
    save_checkpoint(tmp_path, model, checkpoint, torch.float32, changed)
    again, _ = load_hf_model(tmp_path)
    theirs = PaliGemmaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**batch)["logits"][:, -3:], before, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(theirs(**batch).logits[:, -3:], before, rtol=1e-4, atol=1e-4)
