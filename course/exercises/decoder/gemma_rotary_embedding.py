"""The exercise GemmaRotaryEmbedding of decoder_0.py."""

import torch

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import SIZES, bf16
from course.exercises.inputs import randn


def angles_case(position_ids, dtype=torch.float32):
    """Inputs of GemmaRotaryEmbedding: x is there for its dtype alone."""
    return lambda: {"x": randn(2, 4, 28, dtype=dtype), "position_ids": torch.tensor(position_ids)}


# Other right ways.


class OneOverAPowerEinsum:
    def forward(self, x, position_ids):
        exponents = torch.arange(self.head_dim // 2, device=position_ids.device, dtype=torch.float32)
        inv_freq = 1.0 / (self.rope_theta ** (2 * exponents / self.head_dim))
        angles = torch.einsum("bt,i->bti", position_ids.float(), inv_freq).repeat(1, 1, 2)
        return torch.cos(angles).type_as(x), torch.sin(angles).type_as(x)


class ExponentialOfALogarithm:
    def forward(self, x, position_ids):
        i = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=x.device)
        log_theta = torch.log(torch.tensor(self.rope_theta, device=x.device))
        inv_freq = torch.exp(-log_theta * i / self.head_dim)
        angles = position_ids.unsqueeze(-1) * torch.cat([inv_freq, inv_freq])
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


class ComplexNumbers:
    def forward(self, x, position_ids):
        freqs = torch.tensor(
            [self.rope_theta ** (-2 * i / self.head_dim) for i in range(self.head_dim // 2)], device=x.device
        )
        angles = position_ids[..., None].to(torch.float32) @ freqs[None]
        turn = torch.polar(torch.ones_like(angles), angles)
        turn = torch.cat([turn, turn], dim=2)
        return turn.real.to(x.dtype), turn.imag.to(x.dtype)


EXERCISE = Exercise(
    name="GemmaRotaryEmbedding",
    file="decoder",
    minutes=20,
    difficulty="medium",
    why="Attention by itself does not see the order of tokens; rotation by these angles shows it their "
    "distances.",
    steps={
        "forward": [
            "Make the Hd/2 exponents 2i / Hd in float32, on the device of x.",
            "Raise theta to minus these: how far each pair of numbers turns per position.",
            "Multiply every position by every one of them, in float32: [B, T, Hd/2].",
            "Repeat the whole row of angles once after itself: [B, T, Hd].",
            "Take cos and sin, and only then cast to the dtype of x.",
        ],
    },
    hints=(
        "Write the Hd/2 exponents down for Hd = 6 first. Then: which two shapes have to meet so that "
        "every position is multiplied by every frequency?",
        "torch.arange(0, Hd, 2) / Hd counts 2i / Hd. position_ids[:, :, None] is [B, T, 1] and so "
        "spreads over [Hd/2]. Not every whole number above 256 fits in bfloat16.",
        "angles = position_ids[:, :, None].float() * self.rope_theta**-exponents; angles = "
        "torch.cat([angles, angles], dim=-1); return angles.cos().to(x.dtype), and the same with sin.",
    ),
    make=lambda m: m.GemmaRotaryEmbedding(10, 700.0),
    attributes=("head_dim", "rope_theta"),
    result="B T Hd",
    sizes=SIZES,
    cases=[
        Case(
            "positions 0 to 4 and 3 to 7",
            angles_case([[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]]),
            tolerance=5e-5,
        ),
        Case(
            "padding at 0, and a row that is not in order",
            angles_case([[0, 0, 1, 2, 3, 4], [9, 2, 14, 1, 0, 5]]),
            tolerance=5e-5,
        ),
        Case(
            "another size of head and another theta",
            angles_case([[1, 2, 3], [4, 5, 6]]),
            make=lambda m: m.GemmaRotaryEmbedding(6, 30.0),
            tolerance=5e-5,
        ),
        Case(
            "one new token after many",
            angles_case([[130], [257]]),
            tolerance=3e-4,
        ),
        Case(
            "bfloat16, positions up to 400",
            angles_case([list(range(0, 400, 13)), list(range(1, 401, 13))], dtype=bf16),
            exact=0.95,
        ),
        Case(
            "on another device",
            angles_case([[0, 1, 2], [3, 4, 5]]),
            tolerance=5e-5,
            other_device=True,
        ),
    ],
    mistakes=[
        Mistake(
            "without the minus",
            {"self.rope_theta**-exponents": "self.rope_theta**exponents"},
            "theta^(2i / Hd) is large: the angles have to get smaller from pair to pair.",
        ),
        Mistake(
            "with the angles only once",
            {"torch.cat([angles, angles], dim=-1)": "angles"},
            "each angle serves two numbers, one in each half of the head.",
        ),
        Mistake(
            "with each angle next to itself",
            {"torch.cat([angles, angles], dim=-1)": "angles.repeat_interleave(2, dim=-1)"},
            "that fits neighboring pairs; rotate_half pairs i with i + Hd/2, so the whole row of angles "
            "comes twice.",
        ),
        Mistake(
            "with cos and sin swapped",
            {
                "angles.cos().to(x.dtype), angles.sin().to(x.dtype)": (
                    "angles.sin().to(x.dtype), angles.cos().to(x.dtype)"
                ),
            },
            "cos comes first.",
        ),
        Mistake(
            "with angles in bfloat16",
            {
                "position_ids[:, :, None].float() * inv_freq": (
                    "position_ids[:, :, None].to(x.dtype) * inv_freq.to(x.dtype)"
                ),
            },
            "bfloat16 cannot tell position 256 from 257: angles are computed in float32.",
        ),
        Mistake(
            "with the angles cast before cos and sin",
            {
                "angles.cos().to(x.dtype), angles.sin().to(x.dtype)": (
                    "angles.to(x.dtype).cos(), angles.to(x.dtype).sin()"
                ),
            },
            "an angle of 300 in bfloat16 is wrong by up to a whole radian: only the results are cast.",
        ),
        Mistake(
            "without casting to the dtype of x",
            {".to(x.dtype)": ""},
            "in float32 they would turn all of attention to float32.",
        ),
        Mistake(
            "when divided by Hd/2 instead of Hd",
            {"/ self.head_dim": "/ (self.head_dim / 2)"},
            "the exponents 2i / Hd go from 0 to just below 1.",
        ),
        Mistake(
            "with i instead of 2i",
            {"torch.arange(0, self.head_dim, 2": "torch.arange(0, self.head_dim // 2, 1"},
            "the exponent is 2i / Hd.",
        ),
        Mistake(
            "with exponents that begin at 2 / Hd",
            {"torch.arange(0, self.head_dim, 2": "torch.arange(2, self.head_dim + 1, 2"},
            "i counts from 0: the first pair turns by one radian per position.",
        ),
        Mistake(
            "with 10000 whatever rope_theta says",
            {"self.rope_theta**": "10_000.0**"},
            "10000 is the usual theta, but the config decides.",
        ),
        Mistake(
            "with positions counted from 0 again",
            {
                "position_ids[:, :, None].float()": (
                    "torch.arange(position_ids.shape[1], device=x.device)[None, :, None].float().expand("
                    "len(position_ids), -1, -1)"
                ),
            },
            "a token after a cache is not at 0, and padding shifts the others: position_ids says where "
            "each one is.",
        ),
        Mistake(
            "with the positions of the first row for all",
            {
                "position_ids[:, :, None]": ("position_ids[:1, :, None].expand(len(position_ids), -1, -1)"),
            },
            "padding makes positions differ from row to row.",
        ),
        Mistake(
            "without the positions",
            {
                "position_ids[:, :, None].float() * inv_freq": (
                    "torch.ones_like(position_ids)[:, :, None].float() * inv_freq"
                ),
            },
            "the angle is the position times the frequency.",
        ),
        Mistake(
            "when divided by the frequencies",
            {".float() * inv_freq": ".float() / inv_freq"},
            "the angle is the position times theta^(-2i / Hd).",
        ),
        Mistake(
            "with exponents made on the wrong device",
            {", device=x.device": ""},
            "a new tensor has to be on the device of x.",
        ),
        Mistake(
            "with 1 / (theta * exponent) as frequencies",
            {"self.rope_theta**-exponents": "1 / (self.rope_theta * exponents)"},
            "it is a power: theta^(-2i / Hd).",
        ),
        Mistake(
            "when cos and sin come as one tensor",
            {
                "return angles.cos().to(x.dtype), angles.sin().to(x.dtype)": (
                    "return torch.stack([angles.cos(), angles.sin()]).to(x.dtype)"
                ),
            },
            "the result has to be two tensors.",
        ),
    ],
    right_ways=[
        RightWay("one over a power, einsum", OneOverAPowerEinsum),
        RightWay("exponential of a logarithm", ExponentialOfALogarithm),
        RightWay("complex numbers", ComplexNumbers),
    ],
    compare="the order of the casts: float32 for exponents, angles, cos and sin, x.dtype at the very "
    "end. And position 0, where cos is 1 and sin 0: nothing is rotated.",
)
