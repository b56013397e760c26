"""A model that is being taught: what of it learns, the rows of its examples, its answers, its files."""

import argparse
import json
from pathlib import Path

import torch
from torch import nn

from finetuning import data, memory, report
from finetuning.adapter import save_adapter, save_checkpoint, write_json, write_whole
from finetuning.fused import fuse
from finetuning.settings import PRODUCTS
from load_weights import ModelSet, find_tensors, load_hf_model, weight_files
from program import known_prompts
from speed.loading import LARGE

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# The highest learning rate by what learns: for models below and above LARGE parameters.
RATES = {"lora": (2e-3, 2e-4), "attention": (1e-3, 2e-5), "all": (5e-4, 1e-5)}
DECAY = {"lora": 0.0, "attention": 0.03, "all": 0.03}
BATCH = (16, 4)  # likewise
ASKED_AT_ONCE = 16


def choose_precision(args: argparse.Namespace, is_small: bool, device: str) -> str:
    if args.precision != "auto":
        return args.precision
    if is_small or args.train == "all" or device == "mps":
        return "float32"
    return "bfloat16"


class Learner:
    """The model, what of it learns, and the rows of all examples."""

    def __init__(self, args: argparse.Namespace, training, model_set: ModelSet, task: data.Task, device: str):
        self.args, self.training, self.task, self.device = args, training, task, device
        self.out = Path(args.out)
        folder = Path(args.model)
        sizes = [torch.Size(tensor.shape).numel() for tensor in find_tensors(weight_files(folder)).values()]
        self.is_small = sum(sizes) < LARGE
        args.batch = args.batch or BATCH[not self.is_small]
        args.rate = args.rate or RATES[args.train][not self.is_small]
        precision = choose_precision(args, self.is_small, device)
        self.model_set = model_set
        self.model, self.tokenizer = load_hf_model(folder, device, precision, self.model_set)
        self.tower = self.model.vision_tower
        vision = self.model.config.vision_config
        self.processor = self.model_set.processor.PaliGemmaProcessor(
            self.tokenizer, vision.num_patches, vision.image_size
        )
        self.eos = self.tokenizer.token_to_id("<eos>")
        self.index = {path: i for i, path in enumerate(task.pictures)}
        self.features: torch.Tensor | None = None
        self.rows = self.make_rows()

        memory.prepare(self.model, args.train, device, self.way_of_products())
        torch.manual_seed(args.seed)  # A of LoRA begins at random
        if args.train == "lora":
            training.add_lora(self.model.language_model, TARGETS, args.rank, 2 * args.rank)
        self.parameters = training.choose_parameters(self.model, args.train)
        if memory.is_frozen_bf16(self.model, device):
            fuse(self.model)
        if args.recompute:
            memory.recompute(self.model)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=args.rate, weight_decay=DECAY[args.train])
        self.best = training.BestWeights(self.parameters)
        self.sum_loss = training.sum_by_token if args.loss == "token" else training.sum_by_example

    def way_of_products(self) -> str | None:
        """For frozen bfloat16 weights on a CPU, the quicker way; tried once, and kept in the folder."""
        if not memory.is_frozen_bf16(self.model, self.device):
            return None
        path = self.out / PRODUCTS
        if not path.exists():
            way = memory.quicker_way(self.model)
            write_whole(self.out, path.name, lambda part: write_json(part, way))
        return json.loads(path.read_text(encoding="utf-8"))

    # ---- examples

    def make_rows(self) -> list[dict]:
        """The ids of all examples; their pictures are looked at when they are needed."""
        return [
            self.training.training_row(
                self.tokenizer, example.prefix, example.suffix, self.processor.num_image_tokens
            )
            for example in self.task.examples
        ]

    def prepared(self, i: int) -> torch.Tensor:
        """pixel_values [1, 3, S, S] of a picture."""
        picture = data.open_picture(str(self.task.pictures[i]))
        return self.model_set.processor.process_images([picture], self.processor.image_size)

    def look_at_pictures(self):
        """Computes the features of all pictures, if the tower stays as it is."""
        if self.args.train == "all":
            return
        vision = self.model.config.vision_config
        self.features = memory.cache_features(
            self.out / "features.bin", self.tower, self.prepared, len(self.task.pictures),
            (vision.num_patches, vision.hidden_size), next(self.tower.parameters()).dtype, self.device,
        )  # fmt: skip
        self.model.vision_tower = nn.Identity()

    def seen(self, example: data.Example) -> torch.Tensor:
        """What a batch holds of a picture: its features, or its pixels."""
        i = self.index[example.picture]
        return self.prepared(i)[0] if self.features is None else self.features[i]

    def make_batch(self, indices: list[int]) -> dict[str, torch.Tensor]:
        examples = self.task.examples
        batch = self.training.collate([self.rows[i] for i in indices], self.processor.pad_token_id)
        batch["pixel_values"] = torch.stack([self.seen(examples[i]) for i in indices])
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    # ---- questions

    def answers(self, examples: list[data.Example]) -> list[str]:
        """What the model says about each, greedily.

        Raises FloatingPointError if a logit is not finite.
        """
        self.model.eval()
        generation, found = self.model_set.generation, []
        for start in range(0, len(examples), ASKED_AT_ONCE):
            group = examples[start : start + ASKED_AT_ONCE]
            batch = self.processor(
                [example.prefix for example in group], [data.Image.new("RGB", (1, 1))] * len(group)
            )
            batch["pixel_values"] = torch.stack([self.seen(example) for example in group])
            batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
            answers = [generation.Answer(self.tokenizer) for _ in group]
            for tokens in generation.generate(self.model, batch, self.eos, self.args.max_tokens):
                for answer, token in zip(answers, tokens, strict=True):
                    if token is not None and token != self.eos:
                        answer.append(token)
            found += [answer.text for answer in answers]
        return found

    def score(self) -> float:
        """Asks about all that is held out, and notes for the log what it found. Higher is better.

        The share of exactly right answers, above 0; while there is none, minus the loss, below 0. A free
        caption is hardly ever the same word for word: if its share alone counted, every epoch would
        have a score of 0, and the first one would be kept.
        """
        held_out = self.task.held_out
        found = report.scores(self.answers(held_out), [example.suffix for example in held_out])
        first = len(self.task.train)
        batches = [
            self.make_batch([*range(first, first + len(held_out))][start : start + self.args.batch])
            for start in range(0, len(held_out), self.args.batch)
        ]
        self.found = found | {"eval_loss": self.training.evaluate(self.model, batches, self.sum_loss)}
        return found["right"] or -self.found["eval_loss"]

    # ---- files

    def write_results(self, history: dict, is_final: bool):
        """The adapter or checkpoint as the parameters are now, the log and the curve."""
        args = self.args
        if not args.merge:
            save_adapter(self.out, self.model, args.model, args.rank, 2 * args.rank)
        elif is_final:
            save_checkpoint(self.out, self.model, Path(args.model), self.stored_dtype(), self.changed)
        if is_final or not args.merge:
            self.write_known_prompts()
        title = f"{Path(args.model).name} learns {Path(args.data).parent.name}/{Path(args.data).name}"
        write_whole(
            self.out, "log.jsonl", lambda path: report.write_text(path, report.log_lines(history["steps"]))
        )
        if history["steps"]:
            picture = report.curve(history["steps"], title)
            write_whole(self.out, "curve.png", lambda path: picture.save(path, format="PNG"))

    def keep_best(self, history: dict):
        """Writes the best weights so far as a result, where the training cannot go on."""
        self.finish_weights()
        self.write_results(history, is_final=True)

    def write_known_prompts(self):
        """What inference.py need not wonder about; a checkpoint's own prompts are its base's and these."""
        model = Path(self.args.model)
        # Old questions beside the new need no place in a list of limited length: the base's file names them.
        prompts = known_prompts.unknown_to(model, [example.prefix for example in self.task.train])
        base = model if self.args.merge else None
        content = known_prompts.content_after_training(self.out.resolve().name, prompts, base)
        if content is not None:
            write_whole(self.out, known_prompts.FILE, lambda path: path.write_text(content, encoding="utf-8"))

    def stored_dtype(self) -> torch.dtype:
        """In what the base model's weights are stored: what learned is rounded to it once, at the end."""
        tensors = find_tensors(weight_files(Path(self.args.model)))
        return next(iter(tensors.values())).dtype

    def finish_weights(self):
        """The best weights, and with --merge in the shape and precision in which they are stored."""
        self.best.restore()
        if not self.args.merge:
            return
        learned = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        if self.args.train == "lora":
            learned = [f"{name}.weight" for name in self.training.merge_lora(self.model)]
        self.changed = set(learned)
        dtype = self.stored_dtype()
        with torch.no_grad():
            for name in learned:  # so that what is asked is what is stored
                parameter = self.model.get_parameter(name)
                parameter.copy_(parameter.to(dtype))
