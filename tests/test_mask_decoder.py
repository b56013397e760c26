"""The mask codec against a second one, written here in NumPy from the table of its layers.

The second is channels-last, as in TensorFlow and Flax, where PaliGemma was trained: a convolution is a
sum over shifted pictures, and a transposed one is a convolution of the picture with zeros put in
between. The table of layers and the random arrays, in PyTorch's layout, are random_weights/masks.py's.
"""

import io
import pickle
import zipfile
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import mask_decoder_1
from inference import peak_memory
from load_weights import CheckpointError, load_mask_decoder
from mask_decoder_1 import MaskConfig, MaskVQVAE, mask_from_tokens, resize_shapes, tokens_from_mask
from random_weights.masks import DECODER, ENCODER, random_vae

SIZES = [(20, 3), (512, 2), (7, 16)]  # E and the hidden width


def codec(arrays: dict[str, np.ndarray]) -> MaskVQVAE:
    sizes = arrays["_vq_vae._embedding"].shape[1], arrays["decoder.12.weight"].shape[1]
    vqvae = MaskVQVAE(MaskConfig(*sizes))
    vqvae.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return vqvae.requires_grad_(False)


# -- The second codec ------------------------------------------------------------------------------


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """[h, w, in] with a kernel [kh, kw, in, out]: a sum over the places of the kernel."""
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    kh, kw = kernel.shape[:2]
    h, w = (x.shape[0] - kh) // stride + 1, (x.shape[1] - kw) // stride + 1
    return sum(
        x[i : i + stride * h : stride, j : j + stride * w : stride] @ kernel[i, j]
        for i in range(kh)
        for j in range(kw)
    )


def layer(arrays: dict, name: str, x: np.ndarray, stride: int = 1) -> np.ndarray:
    kernel = arrays[f"{name}.weight"].transpose(2, 3, 1, 0)
    padding = {1: 0, 3: 1, 4: 1}[len(kernel)]
    return convolve(x, kernel, stride, padding) + arrays[f"{name}.bias"]


def doubling_layer(arrays: dict, name: str, x: np.ndarray) -> np.ndarray:
    """A transposed convolution, as Flax says it: zeros in between, padding 2, the kernel turned round."""
    h, w, channels = x.shape
    spread = np.zeros((2 * h - 1, 2 * w - 1, channels))
    spread[::2, ::2] = x
    kernel = arrays[f"{name}.weight"].transpose(2, 3, 0, 1)[::-1, ::-1]
    return convolve(spread, kernel, stride=1, padding=2) + arrays[f"{name}.bias"]


def block(arrays: dict, name: str, x: np.ndarray) -> np.ndarray:
    inner = np.maximum(layer(arrays, f"{name}.net.0", x), 0)
    inner = np.maximum(layer(arrays, f"{name}.net.2", inner), 0)
    return x + layer(arrays, f"{name}.net.4", inner)


def run(arrays: dict, table: list, x: np.ndarray) -> np.ndarray:
    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    for name, kind, _, _ in table:
        if kind == "block":
            x = block(arrays, name, x)
        elif kind == "double":
            x = np.maximum(doubling_layer(arrays, name, x), 0)
        elif kind == "halve":
            x = np.maximum(layer(arrays, name, x, stride=2), 0)
        else:
            x = layer(arrays, name, x)
            x = np.maximum(x, 0) if kind == "point and relu" else x
    return x


def decoded(arrays: dict, tokens: np.ndarray) -> np.ndarray:
    return run(arrays, DECODER, arrays["_vq_vae._embedding"][tokens.reshape(4, 4)])[..., 0]


def encoded(arrays: dict, shape: np.ndarray) -> tuple[np.ndarray, float]:
    """The tokens, and by how much the second nearest codeword is farther away where it is closest."""
    features = run(arrays, ENCODER, 2.0 * (shape[..., None] - 0.5)).reshape(16, 1, -1)
    distances = np.square(features - arrays["_vq_vae._embedding"]).sum(axis=-1)
    nearest, second = np.sort(distances, axis=1)[:, :2].T
    return distances.argmin(axis=1), ((second - nearest) / second).min()


def filter_matrix(before: int, after: int) -> np.ndarray:
    """[after, before]: bilinear interpolation, which becomes a wider mean where it shrinks."""
    scale = max(before / after, 1)
    middles = (np.arange(after) + 0.5) * before / after
    weights = 1 - np.abs(np.arange(before) + 0.5 - middles[:, None]) / scale
    weights = np.maximum(weights, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def resized(shape: np.ndarray, height: int, width: int) -> np.ndarray:
    return filter_matrix(len(shape), height) @ shape @ filter_matrix(shape.shape[1], width).T


def ellipse(height: int, width: int, box: tuple) -> np.ndarray:
    x1, y1, x2, y2 = box
    y, x = np.mgrid[0:height, 0:width] + 0.5
    return ((x - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1)) ** 2 < 0.25


# -- The tests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
def test_names_and_shapes_are_those_of_the_table(sizes):
    arrays = random_vae(*sizes)
    state = MaskVQVAE(MaskConfig(*sizes)).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        name: array.shape for name, array in arrays.items()
    }


def test_the_published_sizes():
    vqvae = MaskVQVAE(MaskConfig(embedding_dim=512, hidden_dim=16))
    assert vqvae._vq_vae._embedding.shape == (128, 512)
    assert vqvae.decoder[0].weight.shape == (128, 512, 1, 1)
    assert vqvae.encoder[6].weight.shape == (128, 64, 4, 4)
    assert vqvae.decoder[10].weight.shape == (32, 16, 4, 4)


@pytest.mark.parametrize("sizes", SIZES)
def test_decode(sizes):
    arrays = random_vae(*sizes)
    tokens = np.random.default_rng(1).integers(0, 128, (3, 16))
    shapes = codec(arrays).decode(torch.from_numpy(tokens))
    expected = np.stack([decoded(arrays, row) for row in tokens])
    assert shapes.shape == (3, 64, 64)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(shapes.numpy(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("sizes", SIZES)
def test_encode(sizes):
    arrays = random_vae(*sizes)
    shapes = np.stack([resized(ellipse(64, 64, box), 64, 64) for box in ((3, 5, 60, 50), (20, 0, 41, 64))])
    expected, margins = zip(*(encoded(arrays, shape) for shape in shapes), strict=True)
    assert min(margins) > 1e-5  # no tie that rounding decides
    tokens = codec(arrays).encode(torch.from_numpy(shapes).float())
    assert tokens.dtype == torch.int64
    assert tokens.tolist() == np.stack(expected).tolist()
    assert len(set(tokens.flatten().tolist())) > 3


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (1, 200), (37, 5), (130, 64), (333, 641)])
def test_resize_is_bilinear_and_antialiased(size):
    shape = np.random.default_rng(2).normal(size=(64, 64)).astype(np.float32)
    ours = resize_shapes(torch.from_numpy(shape)[None], *size)[0].numpy()
    np.testing.assert_allclose(ours, resized(shape, *size), atol=3e-5)
    pillows = Image.fromarray(shape).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_allclose(ours, np.asarray(pillows), atol=3e-5)


BOXES = {
    "in the picture": (10.2, 20.7, 90.0, 61.0),
    "as large as the picture": (0, 0, 120, 80),
    "smaller than 64 x 64": (30, 40, 47, 49),
    "one pixel": (5, 6, 6, 7),
    "one row": (5, 6, 77, 7),
    "over the right and lower edge": (100, 50, 150.4, 99),
    "over the left and upper edge": (-40, -13, 30, 20),
    "larger than the picture": (-30, -20, 170, 120),
}


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_mask_from_tokens(box):
    arrays, height, width = random_vae(20, 3), 80, 120
    tokens = np.random.default_rng(3).integers(0, 128, 16)
    x1, y1, x2, y2 = (round(edge) for edge in box)
    shape = decoded(arrays, tokens)
    assert 0.1 < (shape > 0).mean() < 0.9  # the border runs through it
    shape = resized(shape, y2 - y1, x2 - x1)
    # On a canvas so large that nothing is cut, then cut: another way than slices of both.
    canvas = np.full((height + 200, width + 200), -1.0)
    canvas[y1 + 100 : y2 + 100, x1 + 100 : x2 + 100] = shape
    expected = canvas[100:-100, 100:-100]
    mask = mask_from_tokens(codec(arrays), torch.from_numpy(tokens), box, height, width)
    assert (mask.dtype, mask.shape) == (torch.bool, (height, width))
    clear = np.abs(expected) > 1e-4 * np.abs(shape).max()  # the border itself may be rounded
    assert np.array_equal(mask.numpy()[clear], expected[clear] > 0)
    assert clear.mean() > 0.99


@pytest.mark.parametrize(
    "box", [(10, 20, 10, 60), (10, 20, 60, 20), (10.4, 20, 9.6, 60), (60, 20, 10, 40), (-50, 0, -10, 60),
            (0, -9, 50, 0), (120, 10, 150, 60), (10, 80, 50, 200)],
)  # fmt: skip
def test_a_box_without_a_pixel_in_the_picture_has_no_mask(box):
    mask = mask_from_tokens(codec(random_vae(20, 3)), torch.arange(16), box, 80, 120)
    assert mask.shape == (80, 120)
    assert not mask.any()


@pytest.mark.parametrize("box", [(10.2, 20.7, 90.0, 61.0), (0, 0, 120, 80), (30, 40, 47, 49), (5, 6, 6, 7)])
def test_tokens_from_mask(box):
    arrays = random_vae(20, 3)
    mask = ellipse(80, 120, box) | ellipse(80, 120, (40, 10, 70, 50))
    x1, y1, x2, y2 = (round(edge) for edge in box)
    expected, margin = encoded(arrays, resized(mask[y1:y2, x1:x2].astype(float), 64, 64))
    assert margin > 1e-5
    tokens = tokens_from_mask(codec(arrays), torch.from_numpy(mask), box)
    assert (tokens.dtype, tokens.tolist()) == (torch.int64, expected.tolist())


@pytest.mark.parametrize(
    "box", [(10, 20, 10, 60), (10.4, 20, 9.6, 60), (-1, 0, 50, 60), (60, 20, 121, 40), (0, 10, 50, 81),
            (200, 9, 250, 60)],
)  # fmt: skip
def test_tokens_from_mask_refuses_a_box_that_is_not_in_the_picture(box):
    with pytest.raises(ValueError, match="holds no pixel, or does not lie in a picture of 120 x 80"):
        tokens_from_mask(codec(random_vae(20, 3)), torch.ones(80, 120, dtype=torch.bool), box)


def test_nothing_of_the_input_is_changed():
    vqvae = codec(random_vae(20, 3))
    mask, tokens = torch.ones(80, 120, dtype=torch.bool), torch.arange(16)
    tokens_from_mask(vqvae, mask, (3, 4, 50, 60))
    mask_from_tokens(vqvae, tokens, (3, 4, 50, 60), 80, 120)
    x = torch.randn(2, 24, 4, 4)
    before = x.clone()
    mask_decoder_1.ResidualBlock(24)(x)
    assert mask.all() and torch.equal(tokens, torch.arange(16)) and torch.equal(x, before)


# -- Files -----------------------------------------------------------------------------------------


@pytest.fixture
def arrays():
    return random_vae(20, 3)


def tokens_of(vqvae: MaskVQVAE) -> list:
    return vqvae.decode(torch.arange(32).reshape(2, 16)).flatten().tolist()


@pytest.mark.parametrize("sizes", SIZES)
def test_an_npz_loads(sizes, tmp_path):
    arrays = random_vae(*sizes)
    # The published file is a state dict, averages of its training included.
    np.savez(tmp_path / "vae-oid.npz", **arrays, **{"_vq_vae._ema_w": np.zeros((128, sizes[0]), np.float32)})
    vqvae = load_mask_decoder(tmp_path)
    assert not vqvae.training and not any(tensor.requires_grad for tensor in vqvae.parameters())
    assert tokens_of(vqvae) == tokens_of(codec(arrays))
    assert all(not tensor.is_meta for tensor in vqvae.state_dict().values())


def test_an_npz_loads_compressed_in_other_dtypes_and_orders(arrays, tmp_path):
    halved = {name: array.astype(np.float16) for name, array in arrays.items()}
    expected = tokens_of(codec({name: array.astype(np.float32) for name, array in halved.items()}))
    for kind in (np.float16, np.float64, ">f4"):
        stored = {name: np.asfortranarray(array.astype(kind)) for name, array in halved.items()}
        np.savez_compressed(tmp_path / "vae-oid.npz", **stored)
        assert tokens_of(load_mask_decoder(tmp_path)) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_safetensors_file_loads(dtype, arrays, tmp_path):
    tensors = {name: torch.from_numpy(array).to(dtype) for name, array in arrays.items()}
    save_file(tensors, tmp_path / "mask_decoder.safetensors", metadata={"format": "pt"})
    vqvae = load_mask_decoder(tmp_path)
    assert {tensor.dtype for tensor in vqvae.parameters()} == {torch.float32}
    expected = codec({name: tensor.float().numpy() for name, tensor in tensors.items()})
    assert tokens_of(vqvae) == tokens_of(expected)


def test_a_folder_without_either_has_no_mask_decoder(tmp_path):
    assert load_mask_decoder(tmp_path) is None


def refuse(folder, *words) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_mask_decoder(folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    for word in words:
        assert word in message
    return message


def test_values_that_are_no_numbers_are_refused(arrays, tmp_path):
    for value in (np.nan, np.inf, 1e300):  # the last is too large for float32
        spoilt = arrays["encoder.4.bias"].astype(np.float64)
        spoilt[1] = value
        np.savez(tmp_path / "vae-oid.npz", **arrays | {"encoder.4.bias": spoilt})
        refuse(tmp_path, "encoder.4.bias holds values that are no numbers")


def without(name):
    return lambda arrays: arrays.pop(name)


def changed(name, change):
    return lambda arrays: arrays.update({name: change(arrays[name])})


CODEBOOK, BIAS = "_vq_vae._embedding", "decoder.0.bias"
WRONG_ARRAYS = {
    "no codebook": (without(CODEBOOK), [CODEBOOK, "not the file of a mask decoder"]),
    "no layer": (without("decoder.8.bias"), ["has no decoder.8.bias"]),
    "no encoder": (without("encoder.9.net.2.weight"), ["has no encoder.9.net.2.weight"]),
    "transposed": (
        changed("decoder.6.weight", lambda array: array.swapaxes(0, 1)),
        ["decoder.6.weight is [12, 24, 4, 4] instead of [24, 12, 4, 4]"],
    ),
    "64 codewords": (changed(CODEBOOK, lambda array: array[:64]), ["[64, 20] instead of [128, 20]"]),
    "codebook of one axis": (changed(CODEBOOK, np.ravel), ["the shape [2560]"]),
    "codewords of nothing": (changed(CODEBOOK, lambda array: array[:, :0]), ["the shape [128, 0]"]),
    "whole numbers": (changed(BIAS, lambda array: array.astype(np.int32)), [BIAS, "int32"]),
    "complex": (changed(BIAS, lambda array: array.astype(complex)), [BIAS, "complex128"]),
    "pickled": (changed(BIAS, lambda array: array.astype(object)), [BIAS, "object"]),
}


@pytest.mark.parametrize("case", WRONG_ARRAYS)
def test_wrong_arrays_are_refused(case, arrays, tmp_path):
    change, words = WRONG_ARRAYS[case]
    change(arrays)
    np.savez(tmp_path / "vae-oid.npz", **arrays)
    refuse(tmp_path, "vae-oid.npz", *words)


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_is_unpickled(arrays, tmp_path):
    trap = np.empty(24, dtype=object)
    trap[:] = Trap(tmp_path / "sprung")
    np.savez(tmp_path / "vae-oid.npz", **arrays | {"decoder.0.bias": trap})
    refuse(tmp_path, "decoder.0.bias holds object")
    (tmp_path / "vae-oid.npz").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    refuse(tmp_path, "damaged or not complete")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_truncated_npz_is_refused(save, share, arrays, tmp_path):
    path = tmp_path / "vae-oid.npz"
    save(path, **arrays)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refuse(tmp_path, "vae-oid.npz is damaged or not complete, get it again")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_npz_is_refused(save, arrays, tmp_path):
    """Every 4099th byte in turn; where the byte matters, in one line, and else the weights are right."""
    path, expected, refused = tmp_path / "vae-oid.npz", tokens_of(codec(arrays)), 0
    save(path, **arrays)
    whole = path.read_bytes()
    for place in range(0, len(whole), 4099):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            assert tokens_of(load_mask_decoder(tmp_path)) == expected
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 5


def head_of(shape: tuple, dtype: str = "<f4") -> bytes:
    """The head of a .npy file that says it holds so much, with nothing behind it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": dtype})
    return file.getvalue()


@pytest.mark.parametrize(
    "huge",
    [
        {"_vq_vae._embedding": (128, 10**12)},
        {"_vq_vae._embedding": (128, 10**6), "decoder.0.weight": (24, 10**6, 1, 1),
         "encoder.10.weight": (10**6, 24, 1, 1), "encoder.10.bias": (10**6,)},
        {"decoder.12.weight": (1, 10**12, 1, 1)},
        {"decoder.12.weight": (1, 10**5, 1, 1)},
    ],
)  # fmt: skip
def test_an_npz_that_claims_to_be_huge_is_refused_before_memory_is_taken(huge, arrays, tmp_path):
    with zipfile.ZipFile(tmp_path / "vae-oid.npz", "w") as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", head_of(huge.get(name, array.shape)))
    before = peak_memory()
    refuse(tmp_path, "vae-oid.npz")
    assert peak_memory() - before < 200e6


def test_a_small_npz_that_unpacks_to_far_more_than_a_decoder_is_refused(arrays, tmp_path):
    """NumPy would read the head of 200 MB whole before it says that it is too long."""
    np.savez(tmp_path / "vae-oid.npz", **arrays)
    with (
        zipfile.ZipFile(tmp_path / "vae-oid.npz", "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("not needed.npy", "w") as file,
    ):
        file.write(np.lib.format.magic(2, 0) + (2 * 10**8).to_bytes(4, "little"))
        for _ in range(200):
            file.write(bytes(10**6))
    refuse(tmp_path, "vae-oid.npz unpacks to 0.20 GB")


def test_what_an_npz_holds_besides_is_of_no_use_and_no_harm(arrays, tmp_path):
    """Neither a text nor an array whose name lacks .npy, which NumPy would take instead."""
    np.savez(tmp_path / "vae-oid.npz", **arrays)
    with zipfile.ZipFile(tmp_path / "vae-oid.npz", "a") as archive:
        archive.writestr("README.txt", "where this is from")
        archive.writestr("decoder.0.bias", head_of((7,)) + bytes(28))
    assert tokens_of(load_mask_decoder(tmp_path)) == tokens_of(codec(arrays))


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_versions_of_the_npy_format(version, arrays, tmp_path):
    with zipfile.ZipFile(tmp_path / "vae-oid.npz", "w") as archive:
        for name, array in arrays.items():
            file = io.BytesIO()
            np.lib.format.write_array(file, array, (min(version, 3), 0))
            data = file.getvalue()
            archive.writestr(f"{name}.npy", data[:6] + bytes([version]) + data[7:])
    if version == 4:
        refuse(tmp_path, "vae-oid.npz is damaged", ".npy has the npy format's version 4.0")
    else:
        assert tokens_of(load_mask_decoder(tmp_path)) == tokens_of(codec(arrays))


def test_a_wrong_safetensors_file_is_refused(arrays, tmp_path):
    path = tmp_path / "mask_decoder.safetensors"
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    save_file({name: tensor for name, tensor in tensors.items() if name != "decoder.2.net.4.bias"}, path)
    refuse(tmp_path, "mask_decoder.safetensors has no decoder.2.net.4.bias")
    save_file(tensors | {"encoder.0.bias": torch.zeros(3, dtype=torch.int64)}, path)
    refuse(tmp_path, "encoder.0.bias is I64")
    path.write_bytes(path.read_bytes()[:5000])
    refuse(tmp_path, "damaged or not complete")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    assert "hf download" not in refuse(tmp_path, "git-lfs pointer", "GET_THE_WEIGHTS.md, Masks")


def test_a_learners_decoder_that_does_not_fit_is_blamed_not_the_file(arrays, tmp_path):
    """But a file that is damaged is blamed whoever wrote the module."""

    class Wrong(MaskVQVAE):
        def __init__(self, config):
            super().__init__(config)
            self.decoder[0] = torch.nn.Conv2d(config.embedding_dim, 7, 1)
            self.decoder.append(torch.nn.Linear(1, 1))

    learners = ModuleType("mask_decoder_0")
    learners.MaskVQVAE, learners.MaskConfig = Wrong, MaskConfig
    path = tmp_path / "vae-oid.npz"
    np.savez(path, **arrays, **{"_vq_vae._ema_w": np.zeros(3)})
    with pytest.raises(CheckpointError, match=r"^your model and the checkpoint do not fit; ") as caught:
        load_mask_decoder(tmp_path, learners)
    assert "2 that only your model has" in str(caught.value) and "decoder.0.weight" in str(caught.value)
    np.savez(path, **{name: array for name, array in arrays.items() if name != "decoder.4.weight"})
    with pytest.raises(CheckpointError, match=r"vae-oid.npz has no decoder\.4\.weight"):
        load_mask_decoder(tmp_path, learners)
