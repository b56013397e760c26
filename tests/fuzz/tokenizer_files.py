"""tokenizer.json, spoilt: other ids, other parts of the pipeline, damaged text."""

import json
import random
from pathlib import Path

from tests.fuzz.harness import main
from tests.fuzz.spoil import (
    Raw,
    checkpoint_in,
    command,
    picture_in,
    spoil_bytes,
    spoil_json,
    to_json,
    unspoilt,
)

NESTED = Raw('{"type":"Sequence","normalizers":[' * 60 + "]}" * 60)
# Parts that the file format knows, as they are or with numbers and expressions that no one writes.
PARTS = {
    "padding": [{"strategy": {"Fixed": size}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                 "pad_type_id": 0, "pad_token": "<pad>"} for size in (40, 10**9, 2**63)],
    "truncation": [{"direction": "Right", "max_length": size, "strategy": "LongestFirst", "stride": stride}
                   for size, stride in ((4, 0), (0, 0), (4, 9), (2**63, 2**63))],
    "normalizer": [None, NESTED, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "▁"}, {"type": "NFKC"},
                   {"type": "Strip", "strip_left": True, "strip_right": True},
                   {"type": "Replace", "pattern": {"Regex": "(a*)*$"}, "content": "a" * 1000},
                   {"type": "Replace", "pattern": {"String": ""}, "content": "x" * 100},
                   {"type": "Replace", "pattern": {"Regex": "("}, "content": ""},
                   {"type": "Precompiled", "precompiled_charsmap": "AAAA"}],
    "pre_tokenizer": [None, {"type": "Whitespace"}, {"type": "FixedLength", "length": 0},
                      {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
                      {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
                      {"type": "Split", "pattern": {"Regex": "(.*)*"}, "behavior": "Isolated",
                       "invert": False}, {"type": "Punctuation", "behavior": "Removed"}],
    "decoder": [None, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                "use_regex": True}, {"type": "WordPiece", "prefix": "##", "cleanup": True},
                {"type": "BPEDecoder", "suffix": "</w>"},
                {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
                {"type": "Strip", "content": " ", "start": 2**40, "stop": 2**40}],
    "post_processor": [{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}],
                        "pair": [], "special_tokens": {}}, {"type": "ByteLevel", "add_prefix_space": True,
                        "trim_offsets": True, "use_regex": True}],
    "model": [{"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]},
              {"type": "WordLevel", "vocab": {}, "unk_token": "x"},
              {"type": "Unigram", "unk_id": 0, "vocab": []},
              {"type": "WordPiece", "unk_token": "x", "vocab": {}, "continuing_subword_prefix": "",
               "max_input_chars_per_word": 0}],
}  # fmt: skip


def make_case(rng: random.Random, folder: Path) -> list[str]:
    model = checkpoint_in(folder)
    path = model / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    how = rng.random()
    if how < 0.35:
        part = rng.choice(list(PARTS))
        tokenizer[part] = rng.choice(PARTS[part])
    elif how < 0.5:
        ids = rng.choice((-1, 0, 2**31, 2**32 - 1, 2**32, 10**7, 10**12, 1.5, "1"))
        token = rng.choice((*tokenizer["model"]["vocab"], "new"))
        tokenizer["model"]["vocab"][token] = ids
        if rng.random() < 0.5:
            rng.choice(tokenizer["added_tokens"])["id"] = ids
    elif how < 0.6:
        flags = (
            "dropout",
            "unk_token",
            "continuing_subword_prefix",
            "end_of_word_suffix",
            "fuse_unk",
            "byte_fallback",
        )
        tokenizer["model"][rng.choice(flags)] = rng.choice(
            (None, True, False, 0.0, 0.5, 1.0, 7, "x", "<unk>", "\0")
        )
    if how > 0.5:
        tokenizer = spoil_json(rng, tokenizer)
    content = to_json(tokenizer)
    if rng.random() < 0.1:
        content = spoil_bytes(rng, content, head=3000)
    path.write_bytes(content)
    return command(model, picture_in(folder))


def same_as(argv: list[str]) -> list[str] | None:
    """Where its vocabulary is untouched, a tokenizer means the same or is refused, whatever else it says."""
    spoilt, whole = (
        json.loads((Path(command[command.index("--model") + 1]) / "tokenizer.json").read_text("utf-8"))
        for command in (argv, unspoilt(argv))
    )
    is_same = all(spoilt["model"][part] == whole["model"][part] for part in ("vocab", "merges"))
    return unspoilt(argv) if is_same and spoilt["added_tokens"] == whole["added_tokens"] else None


if __name__ == "__main__":
    main("tokenizer_files")
