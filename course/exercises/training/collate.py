"""The exercise collate of training_0.py."""

import torch

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.training.inputs import PAD


def rows(*lengths: tuple[int, int]) -> list[dict]:
    """Rows with prompts and answers of these lengths."""
    made = []
    for i, (prompt, answer) in enumerate(lengths):
        ids = [7 + (5 * i + 3 * t) % 13 for t in range(prompt + answer)]
        types = [0] * prompt + [1] * answer
        made.append({"input_ids": ids, "token_type_ids": types, "labels": [-100] * prompt + ids[prompt:]})
    return made


# Known mistakes that take whole functions.


def when_the_rows_grow(rows, pad_token_id):
    T = max(len(row["input_ids"]) for row in rows)
    mask = []
    for row in rows:
        missing = T - len(row["input_ids"])
        mask.append([0] * missing + [1] * len(row["input_ids"]))
        row["input_ids"][:0] = [pad_token_id] * missing
        row["token_type_ids"][:0] = [0] * missing
        row["labels"][:0] = [IGNORE_INDEX] * missing  # noqa: F821
    names = ("input_ids", "token_type_ids", "labels")
    batch = {name: torch.tensor([row[name] for row in rows]) for name in names}
    return batch | {"attention_mask": torch.tensor(mask)}


def when_all_are_cut_to_the_shortest(rows, pad_token_id):
    T = min(len(row["input_ids"]) for row in rows)
    names = ("input_ids", "token_type_ids", "labels")
    batch = {name: torch.tensor([row[name][-T:] for row in rows]) for name in names}
    return batch | {"attention_mask": torch.ones(len(rows), T, dtype=torch.int64)}


# Other right ways.


def into_full_tensors(rows, pad_token_id):
    shape = (len(rows), max(len(row["labels"]) for row in rows))
    batch = {
        "input_ids": torch.full(shape, pad_token_id),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
        "token_type_ids": torch.zeros(shape, dtype=torch.long),
        "labels": torch.full(shape, -100),
    }
    for i, row in enumerate(rows):
        n = len(row["input_ids"])
        batch["attention_mask"][i, -n:] = 1
        for name, values in row.items():
            batch[name][i, -n:] = torch.tensor(values)
    return batch


def with_pad_sequence(rows, pad_token_id):
    def padded(name, value):
        turned = [torch.tensor(row[name][::-1]) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(turned, batch_first=True, padding_value=value).flip(1)

    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    T = int(lengths.max())
    return {
        "labels": padded("labels", IGNORE_INDEX),  # noqa: F821
        "input_ids": padded("input_ids", pad_token_id),
        "token_type_ids": padded("token_type_ids", 0),
        "attention_mask": (torch.arange(T) >= T - lengths[:, None]).long(),
    }


MASK = 'padded([[1] * len(row["input_ids"]) for row in rows], 0)'
PADDED = "[value] * (T - len(sequence)) + sequence"

EXERCISE = Exercise(
    name="collate",
    file="training",
    minutes=15,
    difficulty="easy",
    why="Examples differ in length, and a tensor has no ragged edge.",
    builds_on=("training_row",),
    steps=[
        "Find the length of the longest row.",
        "Bring each list of each row to this length, with something in front that stands for nothing: which "
        "value that is differs for ids, types and labels.",
        "Make an attention mask: 1 where a row has a token, 0 where it was padded.",
        "Return the four of them as int64 tensors, and leave the rows as they were.",
    ],
    hints=(
        "A position of padding must not be seen, must not be the suffix's, and must not be learned: three "
        "values say so.",
        "A small function inside can do the same for all four: it takes lists and the value to pad with. "
        "a + b makes a new list; a += b changes a.",
        "torch.tensor([[value] * (T - len(sequence)) + sequence for sequence in sequences]), with "
        "pad_token_id, 0, 0 and IGNORE_INDEX.",
    ),
    result="B T",
    cases=[
        Case("two rows, the second longer", lambda: {"rows": rows((3, 2), (5, 4)), "pad_token_id": PAD}),
        Case(
            "three rows, the first longest", lambda: {"rows": rows((6, 5), (3, 1), (4, 4)), "pad_token_id": 2}
        ),
        Case("a single row", lambda: {"rows": rows((4, 3)), "pad_token_id": PAD}),
    ],
    mistakes=[
        Mistake(
            "with the padding on the right",
            {PADDED: "sequence + [value] * (T - len(sequence))"},
            "answers then end at different positions; batch_loss looks at the last ones alone.",
        ),
        Mistake(
            "when padding is learned",
            {"IGNORE_INDEX": "pad_token_id"},
            "the model would learn to write <pad>: what is not learned is -100.",
        ),
        Mistake(
            "with 0 as the label of padding",
            {"IGNORE_INDEX": "0"},
            "0 is the id of a token, and would be learned: what is not learned is -100.",
        ),
        Mistake(
            "with attention over the padding",
            {MASK: MASK.replace(", 0)", ", 1)")},
            "then an answer depends on how long its neighbors in the batch are.",
        ),
        Mistake(
            "with a mask that is inverted",
            {MASK: MASK.replace("[1]", "[0]").replace(", 0)", ", 1)")},
            "1 is what may be seen, and 0 is padding.",
        ),
        Mistake(
            "with padding of type 1",
            {'[row["token_type_ids"] for row in rows], 0': '[row["token_type_ids"] for row in rows], 1'},
            "type 1 is the suffix, and padding stands in front of the prefix.",
        ),
        Mistake(
            "with 0 in place of the padding token",
            {"for row in rows], pad_token_id)": "for row in rows], 0)"},
            "its id is given: it differs from tokenizer to tokenizer.",
        ),
        Mistake(
            "with the length of the first row",
            {'max(len(row["input_ids"]) for row in rows)': 'len(rows[0]["input_ids"])'},
            "the longest row decides, wherever it stands.",
        ),
        Mistake(
            "when all rows are cut to the shortest",
            when_all_are_cut_to_the_shortest,
            "pictures and prompts would lose their beginning.",
        ),
        Mistake(
            "when the rows themselves grow",
            when_the_rows_grow,
            "the same rows come again in the next epoch, in another batch.",
        ),
        Mistake(
            "with lists in place of tensors",
            {"return torch.tensor(": "return list("},
            "the model takes tensors.",
        ),
    ],
    right_ways=[
        RightWay("into full tensors", into_full_tensors),
        RightWay("with pad_sequence", with_pad_sequence),
    ],
    compare="what padding costs. In a batch of one caption of 60 tokens and 15 answers of 2, how many "
    "positions of the suffix are padding? What if examples of a similar length came together?",
)
