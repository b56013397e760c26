"""The exercises of vision_transformer_0.py. What each field means is told in exercises.py."""

from dataclasses import replace

import torch

from course.exercise_inputs import randn
from course.exercise_types import Case, Exercise, Mistake, RightWay
from vision_transformer_1 import VisionConfig

# B 2, N 9 (3 x 3 patches), C 28, H 4, Hd 7, M 45; eps is far from any default.
SMALL = VisionConfig(
    hidden_size=28,
    intermediate_size=45,
    num_hidden_layers=3,
    num_attention_heads=4,
    patch_size=5,
    image_size=15,
    num_channels=3,
    layer_norm_eps=0.3,
)
SIZES = {"Hd": 7, "C": 28, "H": 4, "M": 45, "N": 9, "P": 5}
bf16 = torch.bfloat16


def features(**options):
    """Inputs of everything between the embeddings and the last norm: one batch of features."""
    return lambda: {"hidden_states": randn(2, 9, 28, **options)}


def pictures(**options):
    return lambda: {"pixel_values": randn(2, 3, 15, 15, **options)}


EXERCISES = [
    Exercise(
        name="VisionEmbeddings",
        file="vision_transformer",
        minutes=20,
        difficulty="medium",
        why="The tower is a transformer: it reads a list of vectors, so the picture must become one.",
        steps={
            "__init__": [
                "Make patch_embedding: a convolution from the channels of the picture to hidden_size, whose "
                "kernel is one patch and which moves by a whole patch, so that patches do not overlap.",
                "Make position_embedding: a table with one learned vector of hidden_size for each patch.",
            ],
            "forward": [
                "Cast the picture to the dtype of the convolution's weights (it comes in float32).",
                "Embed the patches: [B, C, S/P, S/P], still laid out like a picture.",
                "Lay the patches out in one row, left to right and top to bottom, with the width last: [B, "
                "N, C].",
                "Add to each patch the vector of its place.",
            ],
        },
        hints=(
            "Print the shape after each step. A convolution leaves the channels in front; attention wants "
            "them last, and the two sides of the picture as one.",
            "nn.Conv2d with stride equal to kernel_size cuts without overlap. Afterwards join the last two "
            "axes, and only then swap the joined one with the channels: joining keeps the order of rows.",
            "patch_embeds.flatten(2).transpose(1, 2) + self.position_embedding.weight, where the [N, C] "
            "table is added to every picture of the batch.",
        ),
        make=lambda m: m.VisionEmbeddings(SMALL),
        result="B N C",
        sizes=SIZES,
        cases=[
            Case("a batch of two pictures", pictures()),
            Case(
                "one channel instead of three, and a side that is not a multiple of the patch (16 = 4 * 4 "
                "+ 0, but 17 = 4 * 4 + 1)",
                lambda: {"pixel_values": randn(2, 1, 17, 17)},
                make=lambda m: m.VisionEmbeddings(
                    replace(SMALL, num_channels=1, patch_size=4, image_size=17)
                ),
            ),
            Case("weights in bfloat16, pictures in float32", pictures(), dtype=bf16, tolerance=4e-2),
        ],
        mistakes=[
            Mistake(
                "without the positions",
                {" + self.position_embedding.weight": ""},
                "each patch needs the vector of its place, or attention cannot tell where it lies.",
            ),
            Mistake(
                "with the patches counted column by column",
                {"patch_embeds.flatten(2)": "patch_embeds.transpose(2, 3).flatten(2)"},
                "they are counted row by row, as one reads: height before width when the two are joined.",
            ),
            Mistake(
                "when the axes are reshaped instead of swapped",
                {
                    "patch_embeds.flatten(2).transpose(1, "
                    "2)": "patch_embeds.reshape(len(patch_embeds), -1, patch_embeds.shape[1])"
                },
                "view and reshape only cut the same run of numbers into other sizes, which mixes different "
                "patches; transpose moves an axis.",
            ),
            Mistake(
                "without moving the channels to the end",
                {".flatten(2).transpose(1, 2)": ".flatten(2)"},
                "the convolution leaves [B, C, N]; the encoder reads [B, N, C].",
            ),
            Mistake(
                "without the stride",
                {"stride=config.patch_size,": ""},
                "the window then moves by one pixel at a time; patches lie side by side.",
            ),
            Mistake(
                "without casting the picture",
                {"pixel_values = pixel_values.to(self.patch_embedding.weight.dtype)": "pass"},
                "pictures come in float32, and a convolution wants inputs of its weights' dtype.",
            ),
            Mistake(
                "with the positions in reverse",
                {"self.position_embedding.weight  ": "self.position_embedding.weight.flip(0)  "},
                "row 0 of the table belongs to the top left patch.",
            ),
            Mistake(
                "with the result cast to float32",
                {"patch_embeds = patch_embeds.flatten(2)": "patch_embeds = patch_embeds.float().flatten(2)"},
                "the tower works in the dtype of its weights.",
            ),
            Mistake(
                "without the bias",
                {"stride=config.patch_size,": "stride=config.patch_size, bias=False,"},
                "the checkpoint holds patch_embedding.bias.",
            ),
        ],
        right_ways=[
            RightWay(
                "position ids and a lookup",
                {
                    "patch_embeds + self.position_embedding.weight": "patch_embeds + "
                    "self.position_embedding(torch.arange(patch_embeds.shape[1]))"
                },
            ),
            RightWay(
                "by hand: cut, then one matrix",
                """
def forward(self, pixel_values):
    weight = self.patch_embedding.weight
    C, channels, P, _ = weight.shape
    x = pixel_values.to(weight.dtype)
    B, _, S, _ = x.shape
    n = S // P
    x = x[:, :, :n * P, :n * P].reshape(B, channels, n, P, n, P).permute(0, 2, 4, 1, 3, 5)
    x = x.reshape(B, n * n, channels * P * P) @ weight.reshape(C, -1).T + self.patch_embedding.bias
    return x.add_(self.position_embedding.weight)
""",
            ),
            RightWay(
                "another order of creation",
                """
def __init__(self, config):
    super().__init__()
    self.position_embedding = nn.Embedding(config.num_patches, config.hidden_size)
    self.patch_embedding = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size,
                                     config.patch_size, padding="valid")
    self.register_buffer("position_ids", torch.arange(config.num_patches)[None], persistent=False)

def forward(self, pixel_values):
    x = self.patch_embedding(pixel_values.to(dtype=self.patch_embedding.weight.dtype))
    x = x.permute(0, 2, 3, 1).flatten(1, 2)
    return x + self.position_embedding(self.position_ids)
""",
            ),
        ],
        compare="how the cut is done: a convolution whose stride is its kernel, or a reshape and a "
        "matrix, are the same map. The table is added whole, with no position ids: all patches are always "
        "there.",
    ),
    Exercise(
        name="Attention",
        file="vision_transformer",
        minutes=35,
        difficulty="hard",
        why="A patch of fur only means `cat` next to patches with ears and whiskers: patches must look "
        "around.",
        steps={
            "__init__": [
                "Keep the number of heads and the size of a head (hidden_size divided among the heads).",
                "Make the four projections q_proj, k_proj, v_proj and out_proj: from hidden_size to "
                "hidden_size, with bias.",
            ],
            "forward": [
                "Project to queries, keys and values; split the width into heads, and put the axis of "
                "heads before the patches: [B, H, N, Hd].",
                "Score each query against each key, and divide by the root of the head's size: [B, H, N, N].",
                "Turn the scores of each query into weights over the keys that add up to 1.",
                "Average the values with these weights, lay the heads side by side again, [B, N, C], and "
                "apply the output projection.",
            ],
        },
        hints=(
            "Write the shape next to every line. Everything but the last projection happens in each head by "
            "itself, so heads are an axis like the batch.",
            "Split with view(B, N, H, Hd) and swap axes 1 and 2; merge with the same two steps in reverse. "
            "Scores are query @ key-with-its-last-two-axes-swapped; the weights of one query, a row, add up "
            "to 1.",
            "weights = softmax(query @ key.transpose(2, 3) / sqrt(Hd), dim=-1); out_proj((weights @ "
            "value).transpose(1, 2).reshape(B, N, C)).",
        ),
        make=lambda m: m.Attention(SMALL),
        result="B N C",
        sizes=SIZES,
        cases=[
            Case("one patch, which can only look at itself", lambda: {"hidden_states": randn(2, 1, 28)}),
            Case("a batch of two, nine patches", features(scale=1.5)),
            Case(
                "other sizes: five heads of size 6, eleven patches",
                lambda: {"hidden_states": randn(3, 11, 30, scale=1.5)},
                make=lambda m: m.Attention(replace(SMALL, hidden_size=30, num_attention_heads=5)),
            ),
            Case(
                "one head",
                lambda: {"hidden_states": randn(2, 5, 28)},
                make=lambda m: m.Attention(replace(SMALL, num_attention_heads=1)),
            ),
            Case("bfloat16", features(dtype=bf16), dtype=bf16, tolerance=8e-2),
        ],
        mistakes=[
            Mistake(
                "without dividing by sqrt(Hd)",
                {" * self.head_dim**-0.5": ""},
                "unscaled scores grow with the size of a head, and softmax then picks a single patch.",
            ),
            Mistake(
                "when divided by sqrt(C) instead of sqrt(Hd)",
                {"self.head_dim**-0.5": "C**-0.5"},
                "a score is a sum over one head, so Hd numbers, not over the whole width.",
            ),
            Mistake(
                "when divided by Hd instead of its root",
                {"self.head_dim**-0.5": "self.head_dim**-1"},
                "a sum of Hd random products is about sqrt(Hd) in size.",
            ),
            Mistake(
                "when multiplied by sqrt(Hd) instead of divided",
                {"self.head_dim**-0.5": "self.head_dim**0.5"},
                "the scale brings scores down to about 1.",
            ),
            Mistake(
                "with softmax over the queries",
                {"dim=-1": "dim=-2"},
                "each query's weights over the keys add up to 1: the last axis.",
            ),
            Mistake(
                "with softmax over the heads",
                {"dim=-1": "dim=1"},
                "each query's weights over the keys add up to 1: the last axis.",
            ),
            Mistake(
                "without the output projection",
                {"self.out_proj(": "("},
                "out_proj mixes what the heads found.",
            ),
            Mistake(
                "when the heads are merged without swapping the axes back",
                {"attended.transpose(1, 2).reshape": "attended.reshape"},
                "[B, H, N, Hd] cut into [B, N, C] puts numbers of different patches into one; swap heads "
                "and patches first.",
            ),
            Mistake(
                "when heads are cut by view alone",
                {
                    "view(B, N, self.num_heads, self.head_dim).transpose(1, "
                    "2)": "view(B, self.num_heads, N, self.head_dim)"
                },
                "view(B, H, N, Hd) cuts the same run of numbers differently and mixes patches; view(B, N, "
                "H, Hd) first, then swap.",
            ),
            Mistake(
                "with the heads left behind the patches",
                {"self.head_dim).transpose(1, 2)": "self.head_dim)", "attended.transpose(1, 2)": "attended"},
                "matrix products take the last two axes, so [B, N, H, Hd] lets heads look at heads, not "
                "patches at patches.",
            ),
            Mistake(
                "with queries and keys swapped",
                {"query @ key.transpose(2, 3)": "key @ query.transpose(2, 3)"},
                "rows are queries, columns are keys.",
            ),
            Mistake(
                "with the weights transposed",
                {"weights @ value": "weights.transpose(2, 3) @ value"},
                "row q of the weights averages the values for query q.",
            ),
            Mistake(
                "with a causal mask",
                {
                    "query @ key.transpose(2, 3) * "
                    "self.head_dim**-0.5": "(query @ key.transpose(2, 3) * self.head_dim**-0.5).masked_fill("
                    "torch.ones(N, N, dtype=torch.bool).triu(1), -1e9)"
                },
                "nothing is predicted from left to right here: every patch sees every other.",
            ),
            Mistake(
                "with values from the keys",
                {"value = self.v_proj": "value = self.k_proj"},
                "v_proj makes the values.",
            ),
            Mistake(
                "without softmax",
                {"F.softmax(scores, dim=-1, dtype=torch.float32)": "scores"},
                "scores have to become weights that add up to 1.",
            ),
            Mistake(
                "with float32 left over from softmax",
                {".to(query.dtype)": ""},
                "weights computed in float32 have to go back to the dtype of the values.",
            ),
            Mistake(
                "without the biases",
                {"config.hidden_size)\n": "config.hidden_size, bias=False)\n"},
                "the tower's projections have biases; the Gemma decoder's do not.",
            ),
        ],
        right_ways=[
            RightWay(
                "scaled_dot_product_attention",
                """
def forward(self, hidden_states):
    B, N, C = hidden_states.shape
    query, key, value = (
        projection(hidden_states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        for projection in (self.q_proj, self.k_proj, self.v_proj))
    return self.out_proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
""",
            ),
            RightWay(
                "einsum",
                """
def forward(self, hidden_states):
    B, N, C = hidden_states.shape
    q = self.q_proj(hidden_states).reshape(B, N, self.num_heads, self.head_dim)
    k = self.k_proj(hidden_states).reshape(B, N, self.num_heads, self.head_dim)
    v = self.v_proj(hidden_states).reshape(B, N, self.num_heads, self.head_dim)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k).div_(self.head_dim**0.5)
    weights = scores.float().softmax(-1).type_as(v)
    return self.out_proj(torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(B, N, C))
""",
            ),
            RightWay(
                "one head after another",
                """
def forward(self, hidden_states):
    heads = []
    for h in range(self.num_heads):
        rows = slice(h * self.head_dim, (h + 1) * self.head_dim)
        q = F.linear(hidden_states, self.q_proj.weight[rows], self.q_proj.bias[rows])
        k = F.linear(hidden_states, self.k_proj.weight[rows], self.k_proj.bias[rows])
        v = F.linear(hidden_states, self.v_proj.weight[rows], self.v_proj.bias[rows])
        e = torch.exp((q @ k.mT).float() / self.head_dim**0.5)
        heads.append((e / e.sum(-1, keepdim=True)).to(v.dtype) @ v)
    return self.out_proj(torch.cat(heads, dim=-1))
""",
            ),
            RightWay(
                "scaled queries, other names",
                """
def __init__(self, config):
    super().__init__()
    self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
    self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
    self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
    self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
    self.h = config.num_attention_heads
    self.scale = (config.hidden_size / self.h) ** -0.5

def split(self, x):
    return x.unflatten(2, (self.h, -1)).permute(0, 2, 1, 3)

def forward(self, hidden_states):
    q = self.split(self.q_proj(hidden_states)) * self.scale
    k, v = self.split(self.k_proj(hidden_states)), self.split(self.v_proj(hidden_states))
    w = torch.softmax(q @ k.transpose(-1, -2), -1)
    return self.out_proj((w @ v).permute(0, 2, 1, 3).flatten(2))
""",
            ),
        ],
        compare="the scale can be applied to the queries or to the scores, and "
        "F.scaled_dot_product_attention does the middle part in one call. Written out, each line is one "
        "line of the formula.",
    ),
    Exercise(
        name="MLP",
        file="vision_transformer",
        minutes=10,
        difficulty="easy",
        why="Attention only averages what patches carry; here each of them is worked on.",
        steps={
            "__init__": [
                "Make fc1, from hidden_size to intermediate_size, and fc2, back again, both with bias.",
            ],
            "forward": [
                "Widen each patch with fc1.",
                "Apply GELU by its tanh formula, not the exact one.",
                "Narrow with fc2.",
            ],
        },
        hints=(
            "Three calls, one inside the other. Which GELU is it?",
            "F.gelu takes an argument that chooses between the exact form and the tanh approximation.",
            'fc2(F.gelu(fc1(hidden_states), approximate="tanh")).',
        ),
        make=lambda m: m.MLP(SMALL),
        result="B N C",
        sizes=SIZES,
        cases=[
            Case("a batch of two", features(scale=1.5)),
            Case("bfloat16", features(dtype=bf16), dtype=bf16, tolerance=4e-2),
        ],
        mistakes=[
            Mistake(
                "with the exact GELU",
                {', approximate="tanh"': ""},
                "SigLIP was trained with the tanh formula; the two differ by up to 0.0005.",
            ),
            Mistake(
                "with ReLU",
                {'F.gelu(self.fc1(hidden_states), approximate="tanh")': "F.relu(self.fc1(hidden_states))"},
                "the activation is GELU, which is smooth.",
            ),
            Mistake(
                "with SiLU",
                {'F.gelu(self.fc1(hidden_states), approximate="tanh")': "F.silu(self.fc1(hidden_states))"},
                "the activation is GELU; SiLU is LLaMA's.",
            ),
            Mistake(
                "with x * sigmoid(1.702 x)",
                {
                    "F.gelu(self.fc1(hidden_states), "
                    'approximate="tanh")': "(lambda x: x * torch.sigmoid(1.702 * x))(self.fc1(hidden_states))"
                },
                "that is CLIP's rougher approximation of GELU; SigLIP uses the tanh formula.",
            ),
            Mistake(
                "without an activation",
                {'F.gelu(self.fc1(hidden_states), approximate="tanh")': "self.fc1(hidden_states)"},
                "two linear maps in a row are only one linear map.",
            ),
            Mistake(
                "with GELU at the end",
                {
                    "self.fc2(F.gelu(self.fc1(hidden_states), "
                    'approximate="tanh"))': 'F.gelu(self.fc2(self.fc1(hidden_states)), approximate="tanh")'
                },
                "it belongs between the two layers, where the vector is wide.",
            ),
            Mistake(
                "with GELU a second time at the end",
                {
                    "return self.fc2(F.gelu(self.fc1(hidden_states), "
                    'approximate="tanh"))': "return F.gelu(self.fc2(F.gelu(self.fc1(hidden_states), "
                    'approximate="tanh")), approximate="tanh")'
                },
                "nothing comes after fc2: the result is added to the residual as it is.",
            ),
            Mistake(
                "with the residual already added",
                {"return self.fc2(": "return hidden_states + self.fc2("},
                "EncoderLayer adds it.",
            ),
            Mistake(
                "without the biases",
                {
                    "intermediate_size)": "intermediate_size, bias=False)",
                    "intermediate_size, "
                    "config.hidden_size)": "intermediate_size, config.hidden_size, bias=False)",
                },
                "the tower's layers have biases; the Gemma decoder's do not.",
            ),
        ],
        right_ways=[
            RightWay(
                "GELU by its formula",
                """
def forward(self, hidden_states):
    x = self.fc1(hidden_states)
    inner = (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)
    return self.fc2(0.5 * x * (1 + torch.tanh(inner)))
""",
            ),
            RightWay(
                "nn.GELU",
                """
def __init__(self, config):
    super().__init__()
    self.act = nn.GELU(approximate="tanh")
    self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
    self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)

def forward(self, hidden_states):
    hidden_states = self.fc1(hidden_states)
    hidden_states = self.act(hidden_states)
    hidden_states = self.fc2(hidden_states)
    return hidden_states
""",
            ),
        ],
        compare="the Gemma decoder's GemmaMLP later: the same idea with a gate, and without biases.",
    ),
    Exercise(
        name="EncoderLayer",
        file="vision_transformer",
        minutes=15,
        difficulty="medium",
        why="Look around, then think: this pair, repeated, is the whole tower.",
        builds_on=("Attention", "MLP"),
        steps={
            "__init__": [
                "Make the two norms, layer_norm1 and layer_norm2, of hidden_size with the eps of the config.",
                "Make self_attn and mlp.",
            ],
            "forward": [
                "Add to the input what attention makes of the normalized input; leave the input itself as "
                "it was.",
                "Add to that what the MLP makes of it, after the second norm.",
            ],
        },
        hints=(
            "Two lines of the same form, one for each sublayer. What is normalized, and what is it added to?",
            "The norm is only on the way into the sublayer. Its result is added to the input as it was "
            "before the norm: x + f(norm(x)).",
            "x = x + self.self_attn(self.layer_norm1(x)), then the same with mlp and layer_norm2, on the "
            "new x.",
        ),
        make=lambda m: m.EncoderLayer(SMALL),
        result="B N C",
        sizes=SIZES,
        cases=[
            Case("a batch of two", features()),
            Case("small values, where eps counts", features(scale=0.3)),
            Case(
                "another eps, 0.02",
                features(scale=0.2),
                make=lambda m: m.EncoderLayer(replace(SMALL, layer_norm_eps=0.02)),
            ),
            Case("bfloat16", features(dtype=bf16), dtype=bf16, tolerance=6e-2),
        ],
        mistakes=[
            Mistake(
                "with the norm after adding (post-norm)",
                """
def forward(self, hidden_states):
    hidden_states = self.layer_norm1(hidden_states + self.self_attn(hidden_states))
    return self.layer_norm2(hidden_states + self.mlp(hidden_states))
""",
                "SigLIP normalizes what goes into a sublayer and leaves the path around it free (pre-norm).",
            ),
            Mistake(
                "without the first residual",
                {"hidden_states + self.self_attn(": "self.self_attn("},
                "attention's result is added to the input.",
            ),
            Mistake(
                "without the second residual",
                {"hidden_states + self.mlp(": "self.mlp("},
                "the MLP's result is added to what comes in.",
            ),
            Mistake(
                "without any residual",
                {
                    "hidden_states + self.self_attn(": "self.self_attn(",
                    "hidden_states + self.mlp(": "self.mlp(",
                },
                "both sublayers' results are added to what went in.",
            ),
            Mistake(
                "when the normalized input is added instead of the input",
                """
def forward(self, hidden_states):
    hidden_states = self.layer_norm1(hidden_states)
    hidden_states = hidden_states + self.self_attn(hidden_states)
    hidden_states = self.layer_norm2(hidden_states)
    return hidden_states + self.mlp(hidden_states)
""",
                "the norm is only on the way into the sublayer; its result is added to the input as it was.",
            ),
            Mistake(
                "with layer_norm1 in both places",
                {"self.layer_norm2(hidden_states)": "self.layer_norm1(hidden_states)"},
                "each sublayer has its own norm.",
            ),
            Mistake(
                "with the two norms swapped",
                {
                    "self.layer_norm1(hidden_states)": "self.layer_norm2(hidden_states)",
                    "self.mlp(self.layer_norm2(hidden_states))": "self.mlp(self.layer_norm1(hidden_states))",
                },
                "layer_norm1 comes before attention, layer_norm2 before the MLP.",
            ),
            Mistake(
                "with PyTorch's eps",
                {", eps=config.layer_norm_eps": ""},
                "LayerNorm's own default is 1e-5; the config says which one the tower was trained with.",
            ),
            Mistake(
                "with the MLP beside attention",
                """
def forward(self, hidden_states):
    attended = self.self_attn(self.layer_norm1(hidden_states))
    return hidden_states + attended + self.mlp(self.layer_norm2(hidden_states))
""",
                "the MLP works on what attention has gathered, so it comes after it.",
            ),
            Mistake(
                "with the MLP first",
                """
def forward(self, hidden_states):
    hidden_states = hidden_states + self.mlp(self.layer_norm2(hidden_states))
    return hidden_states + self.self_attn(self.layer_norm1(hidden_states))
""",
                "attention comes first.",
            ),
            Mistake(
                "without the norms",
                {
                    "self.layer_norm1(hidden_states)": "hidden_states",
                    "self.layer_norm2(hidden_states)": "hidden_states",
                },
                "each sublayer reads a normalized input.",
            ),
            Mistake(
                "with the input changed in place",
                {"hidden_states = hidden_states + self.self_attn(": "hidden_states += self.self_attn("},
                "`+=` on a tensor writes into it, so the caller's tensor changes too.",
            ),
        ],
        right_ways=[
            RightWay(
                "with a name for each residual",
                """
def forward(self, hidden_states):
    residual = hidden_states
    x = self.layer_norm1(hidden_states)
    x = self.self_attn(x)
    x += residual
    y = self.mlp(self.layer_norm2(x))
    return y.add_(x)
""",
            ),
            RightWay(
                "another order of creation",
                """
def __init__(self, config):
    super().__init__()
    C, eps = config.hidden_size, config.layer_norm_eps
    self.mlp, self.self_attn = MLP(config), Attention(config)
    self.layer_norm2, self.layer_norm1 = nn.LayerNorm(C, eps), nn.LayerNorm([C], eps)
""",
            ),
        ],
        compare="the rhythm of the two lines: GemmaDecoderLayer has the same, so the differences between "
        "the two models stand out.",
    ),
    Exercise(
        name="Encoder",
        file="vision_transformer",
        minutes=10,
        difficulty="easy",
        why="Each block sees a little further than the one before; 27 of them see the picture.",
        builds_on=("EncoderLayer",),
        steps={
            "__init__": [
                "Make layers: a list of num_hidden_layers blocks, each one new, in a container whose "
                "modules torch sees.",
            ],
            "forward": [
                "Send the features through the blocks, one after another.",
                "Return what the last one makes.",
            ],
        },
        hints=(
            "A loop. The list must be one that torch knows, or its weights are neither loaded nor trained.",
            "nn.ModuleList around a list comprehension; [layer] * n would be n times the same layer.",
            "for layer in self.layers: hidden_states = layer(hidden_states).",
        ),
        make=lambda m: m.Encoder(SMALL),
        result="B N C",
        sizes=SIZES,
        cases=[
            Case("three layers", features(), tolerance=3e-5),
            Case("no layers", features(), make=lambda m: m.Encoder(replace(SMALL, num_hidden_layers=0))),
            Case(
                "two layers, bfloat16",
                features(dtype=bf16),
                dtype=bf16,
                tolerance=8e-2,
                make=lambda m: m.Encoder(replace(SMALL, num_hidden_layers=2)),
            ),
        ],
        mistakes=[
            Mistake(
                "with a plain list",
                {
                    "nn.ModuleList([EncoderLayer(config) for _ in "
                    "range(config.num_hidden_layers)])": "[EncoderLayer(config) for _ in "
                    "range(config.num_hidden_layers)]"
                },
                "torch does not look into lists: no weights would be loaded or trained.",
            ),
            Mistake(
                "with one layer used again and again",
                {
                    "[EncoderLayer(config) for _ in "
                    "range(config.num_hidden_layers)]": "[EncoderLayer(config)] * config.num_hidden_layers"
                },
                "`[layer] * n` is n times the same object; each block has weights of its own.",
            ),
            Mistake(
                "with the layers in reverse",
                {"in self.layers:": "in reversed(self.layers):"},
                "layer 0 comes first.",
            ),
            Mistake(
                "with the first layer alone",
                {"in self.layers:": "in self.layers[:1]:"},
                "all blocks are needed; is a `return` inside the loop?",
            ),
            Mistake(
                "with the last layer left out",
                {"in self.layers:": "in self.layers[:-1]:"},
                "all blocks are needed.",
            ),
            Mistake(
                "when every layer reads the first input",
                {
                    "for layer in self.layers:\n            hidden_states = layer(hidden_states)\n        "
                    "return hidden_states": "result = hidden_states\n        for layer in self.layers:\n"
                    "            result = layer(hidden_states)\n        return result"
                },
                "each block reads what the one before it made.",
            ),
            Mistake(
                "with a residual around every block",
                {
                    "hidden_states = layer(hidden_states)": "hidden_states = hidden_states + "
                    "layer(hidden_states)"
                },
                "the residuals are already inside the block.",
            ),
            Mistake(
                "with one layer too few",
                {"range(config.num_hidden_layers)": "range(max(0, config.num_hidden_layers - 1))"},
                "the config says how many there are.",
            ),
        ],
        right_ways=[
            RightWay(
                "nn.Sequential",
                """
def __init__(self, config):
    super().__init__()
    self.layers = nn.Sequential(*(EncoderLayer(config) for _ in range(config.num_hidden_layers)))

def forward(self, hidden_states):
    return self.layers(hidden_states)
""",
            ),
            RightWay(
                "append and count",
                """
def __init__(self, config):
    super().__init__()
    self.layers = nn.ModuleList()
    for i in range(config.num_hidden_layers):
        self.layers.append(EncoderLayer(config))

def forward(self, hidden_states):
    for i in range(len(self.layers)):
        hidden_states = self.layers[i].forward(hidden_states)
    return hidden_states
""",
            ),
        ],
        compare="nn.Sequential would do as well; the loop shows what happens, and the decoder's blocks, "
        "which take more than one argument, need it.",
    ),
    Exercise(
        name="VisionTransformer",
        file="vision_transformer",
        minutes=10,
        difficulty="easy",
        why="The features that the language model will read: one vector per patch, at one scale.",
        builds_on=("VisionEmbeddings", "Encoder"),
        steps={
            "__init__": [
                "Make embeddings and encoder.",
                "Make post_layernorm, of hidden_size with the eps of the config.",
            ],
            "forward": [
                "Embed the pictures, and send the patches through the encoder.",
                "Normalize every patch that comes out, and return them all.",
            ],
        },
        hints=(
            "Three modules in a row. A pre-norm block does not normalize its result: what must follow at "
            "the end?",
            "embeddings, encoder, post_layernorm; its eps is not PyTorch's default.",
            "return self.post_layernorm(self.encoder(self.embeddings(pixel_values))).",
        ),
        make=lambda m: m.VisionTransformer(SMALL),
        result="B N C",
        sizes=SIZES,
        cases=[
            Case("a batch of two pictures", pictures(), tolerance=3e-5),
            Case(
                "no layers, dark pictures, where eps counts",
                pictures(scale=0.2),
                tolerance=3e-5,
                make=lambda m: m.VisionTransformer(replace(SMALL, num_hidden_layers=0, layer_norm_eps=5.0)),
            ),
            Case("weights in bfloat16, pictures in float32", pictures(), dtype=bf16, tolerance=8e-2),
        ],
        mistakes=[
            Mistake(
                "without post_layernorm",
                {"self.post_layernorm(hidden_states)": "hidden_states"},
                "the blocks are pre-norm, so nothing has normalized what the last one made.",
            ),
            Mistake(
                "with PyTorch's eps",
                {", eps=config.layer_norm_eps": ""},
                "LayerNorm's own default is 1e-5; the config says which one the tower was trained with.",
            ),
            Mistake(
                "with the norm before the encoder",
                {
                    "hidden_states = self.encoder(hidden_states)": "hidden_states = "
                    "self.encoder(self.post_layernorm(hidden_states))",
                    "return self.post_layernorm(hidden_states)": "return hidden_states",
                },
                "post_layernorm comes last.",
            ),
            Mistake(
                "with the first patch alone",
                {
                    "return "
                    "self.post_layernorm(hidden_states)": "return self.post_layernorm(hidden_states)[:, 0]"
                },
                "there is no [CLS] token here; PaliGemma reads every patch.",
            ),
            Mistake(
                "with the patches averaged",
                {
                    "return self.post_layernorm(hidden_states)": "return "
                    "self.post_layernorm(hidden_states).mean(dim=1)"
                },
                "PaliGemma reads every patch, not one vector for the picture.",
            ),
            Mistake(
                "without the encoder",
                {"hidden_states = self.encoder(hidden_states)": "pass"},
                "the blocks do the work.",
            ),
            Mistake(
                "with the norm applied twice",
                {
                    "self.encoder(hidden_states)": "self.post_layernorm(self.encoder(hidden_states))",
                },
                "once is enough, and twice gives something else, because the norm has a weight and a bias.",
            ),
        ],
        right_ways=[
            RightWay(
                "in one line, another order of creation",
                """
def __init__(self, config):
    super().__init__()
    self.post_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
    self.encoder = Encoder(config)
    self.embeddings = VisionEmbeddings(config)

def forward(self, pixel_values):
    return self.post_layernorm(self.encoder(self.embeddings(pixel_values)))
""",
            ),
            RightWay(
                "the norm by its formula",
                """
def forward(self, pixel_values):
    x = self.encoder(self.embeddings(pixel_values))
    x32 = x.float()
    centred = x32 - x32.mean(-1, keepdim=True)
    normed = centred / (centred.pow(2).mean(-1, keepdim=True) + self.post_layernorm.eps).sqrt()
    return (normed * self.post_layernorm.weight + self.post_layernorm.bias).to(x.dtype)
""",
            ),
        ],
        compare="what is missing next to a classifier: no [CLS] token, no pooling, no head. The decoder "
        "reads every patch.",
    ),
    Exercise(
        name="VisionModel",
        file="vision_transformer",
        minutes=5,
        difficulty="easy",
        why="The checkpoint's names begin with `vision_tower.vision_model.`: a level that only holds a name.",
        builds_on=("VisionTransformer",),
        steps={
            "__init__": [
                "Make the tower, under the name that the tensors in the checkpoint have.",
            ],
            "forward": [
                "Send the pictures through it.",
                "Return its features as they are.",
            ],
        },
        hints=(
            "Which attribute name do the tensor names require? The docstring says.",
            "self.vision_model, a VisionTransformer.",
            "return self.vision_model(pixel_values).",
        ),
        make=lambda m: m.VisionModel(SMALL),
        result="B N C",
        sizes=SIZES,
        cases=[
            Case("a batch of two pictures", pictures(), tolerance=3e-5),
            Case("weights in bfloat16, pictures in float32", pictures(), dtype=bf16, tolerance=8e-2),
        ],
        mistakes=[
            Mistake(
                "with another attribute name",
                {"self.vision_model": "self.model"},
                "the names of the weights come from the names of the attributes.",
            ),
            Mistake(
                "without the level in between",
                """
def __init__(self, config):
    super().__init__()
    self.embeddings = VisionEmbeddings(config)
    self.encoder = Encoder(config)
    self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

def forward(self, pixel_values):
    return self.post_layernorm(self.encoder(self.embeddings(pixel_values)))
""",
                "the checkpoint's tensors are called vision_model.embeddings..., so one module must hold "
                "that name.",
            ),
            Mistake(
                "with the patches averaged",
                {"self.vision_model(pixel_values)": "self.vision_model(pixel_values).mean(dim=1)"},
                "PaliGemma reads every patch.",
            ),
            Mistake(
                "with a tuple around the result",
                {"return self.vision_model(pixel_values)": "return (self.vision_model(pixel_values),)"},
                "the projector wants the tensor itself.",
            ),
            Mistake(
                "without the last norm",
                """
def forward(self, pixel_values):
    hidden_states = self.vision_model.embeddings(pixel_values)
    return self.vision_model.encoder(hidden_states)
""",
                "call the tower as a whole: its post_layernorm belongs to it.",
            ),
        ],
        right_ways=[
            RightWay(
                "with a name for the features",
                """
def forward(self, pixel_values):
    image_features = self.vision_model.forward(pixel_values=pixel_values)
    return image_features
""",
            ),
        ],
        compare="nothing much: it is one of the places where a file format shapes the code.",
    ),
]
