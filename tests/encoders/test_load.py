"""Loading encoders and checkpoints, layers of the built-in net, and messages."""

import pickle

import pytest
import torch

from memloc.encoders import ResNet9, load_encoder, load_weights, read_weights, same_architecture, save_weights
from memloc.errors import CheckpointError, DataNotFoundError, EncoderError, SpecError


def test_resnet9_has_the_published_chain():
    found = load_encoder("resnet9").layers
    names = [row.name for row in found]
    assert names == [
        "conv1",
        "conv2_0",
        "conv2_1",
        "conv2_2",
        "res2",
        "conv3",
        "conv4_0",
        "conv4_1",
        "conv4_2",
        "res6",
        "output",
    ]
    assert [row.predecessor for row in found] == [None, *names[:-1]]
    assert [row.units for row in found] == [32, 64, 64, 64, 64, 128, 256, 256, 256, 256, 256]
    assert found[0].read_at == "conv1.act"
    fine = load_encoder("resnet9", layers="fine").layers
    assert {row.kind for row in fine} == {
        "convolution",
        "residual",
        "before batch-norm",
        "batch-norm",
        "pooling",
        "output",
    }
    followed = {row.predecessor for row in fine}
    assert not followed & {row.name for row in fine if not row.main}  # fine rows are nobody's predecessor


def test_resnet9_by_hand():
    """The forward pass, written again from the description in REFERENCE A6."""
    net = ResNet9().eval()
    images = torch.rand(2, 3, 32, 32)
    pool = torch.nn.functional.max_pool2d

    def block(part, x):
        return torch.relu(part.norm(part.conv(x)))

    with torch.no_grad():
        x = pool(block(net.conv1, images), 2)
        x = pool(block(net.conv2_0, x), 2)
        x = block(net.conv2_2, block(net.conv2_1, x)) + x
        x = pool(block(net.conv3, x), 2)
        x = pool(block(net.conv4_0, x), 2)
        x = block(net.conv4_2, block(net.conv4_1, x)) + x
        expected = x.amax(dim=(2, 3))
        assert torch.allclose(net(images), expected, atol=1e-6)
        small = torch.rand(2, 3, 28, 28)
        assert torch.equal(net(small), net(torch.nn.functional.pad(small, (2, 2, 2, 2))))


def test_round_trip_keeps_bits_and_preprocessing(tmp_path):
    net = ResNet9()
    save_weights(
        tmp_path / "f.safetensors", net, {"encoder": "resnet9", "mean": "0.5", "std": "0.25", "augmentation": "weak"}
    )
    found = load_encoder(tmp_path / "f.safetensors")
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in found.module.state_dict().items())
    assert (found.preprocess.mean, found.preprocess.std, found.augmentation) == ((0.5,), (0.25,), "weak")
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, tmp_path / "f.pt")
    again = load_encoder("resnet9", weights=tmp_path / "f.pt")
    assert torch.equal(again.module.conv3.conv.weight, net.conv3.conv.weight)


def test_a_checkpoint_that_would_run_code_is_not_opened(tmp_path):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (ran.write_text, ("x",))

    with (tmp_path / "evil.pt").open("wb") as file:
        pickle.dump(Evil(), file)
    torch.save({"model": Evil()}, tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(CheckpointError):
            read_weights(tmp_path / name)
    with pytest.raises(CheckpointError, match="would run code"):
        read_weights(tmp_path / "evil2.pt")
    assert not ran.exists()


def test_checkpoint_messages(tmp_path, tiny):
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    for name in ("cut.safetensors", "cut.pt"):
        with pytest.raises(CheckpointError, match="no complete"):
            read_weights(tmp_path / name)
    with pytest.raises(DataNotFoundError, match="no checkpoint"):
        read_weights(tmp_path / "none.pt")
    state = tiny(0).state_dict()
    renamed = {key.replace("conv2", "conv3"): value for key, value in state.items()}
    with pytest.raises(
        CheckpointError, match=r"2 keys are missing and 2 unexpected, such as 'conv2.bias'. Nearest: 'conv3.bias'"
    ):
        load_weights(tiny(0), renamed, name="w.pt")
    with pytest.raises(CheckpointError, match=r"'conv1.weight' has shape \(6, 3, 3, 3\)"):
        load_weights(tiny(0), tiny(0, 3).state_dict(), name="w.pt")


def test_factories_from_files(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\ndef build():\n    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())\ndef wrong():\n    return 3\n"
    )
    assert [row.name for row in load_encoder(f"{path}:build").layers] == ["0", "output"]
    with pytest.raises(EncoderError, match="has no function 'biuld'. Nearest: 'build'"):
        load_encoder(f"{path}:biuld")
    with pytest.raises(EncoderError, match="returned a int"):
        load_encoder(f"{path}:wrong")
    with pytest.raises(DataNotFoundError, match="there is no file"):
        load_encoder("nowhere.py:build")


def test_other_messages(tiny):
    with pytest.raises(EncoderError, match="no encoder 'resnet10'. Nearest: 'resnet"):
        load_encoder("resnet10")
    with pytest.raises(SpecError, match="only one of mean and std"):
        load_encoder("resnet9", mean=[0.5])
    with pytest.raises(SpecError, match="do not match"):
        load_encoder("resnet9", mean=[0.5], std=[0.0])
    with pytest.raises(EncoderError, match="forward pass fails"):
        load_encoder(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(7, 2)))
    with pytest.raises(EncoderError, match="Expected one architecture"):
        same_architecture(load_encoder(tiny(0)), load_encoder("resnet9"))


def test_gray_images_are_repeated_for_an_rgb_encoder():
    encoder = load_encoder("resnet9", mean=[0.5], std=[0.5])
    prepared = encoder.prepare(torch.full((1, 1, 4, 4), 0.75))
    assert prepared.shape == (1, 3, 4, 4)
    assert prepared.unique().tolist() == [0.5]
    with pytest.raises(EncoderError, match="takes 1 channel and the images have 3"):
        load_encoder(ResNet9(1)).prepare(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_dense_product_on_small_maps_is_the_convolution(side):
    from memloc.encoders._resnet9 import MapConv2d

    torch.manual_seed(0)
    layer = MapConv2d(6, 5, kernel_size=3, padding=1).double()
    x = torch.randn(20, 6, side, side, dtype=torch.float64, requires_grad=True)
    found, expected = layer(x), torch.nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
    assert torch.allclose(found, expected, atol=1e-12)
    upstream = torch.randn_like(found)
    gradients = [torch.autograd.grad(out, (x, layer.weight, layer.bias), upstream) for out in (found, expected)]
    assert all(torch.allclose(one, two, atol=1e-12) for one, two in zip(*gradients, strict=True))


def test_a_checkpoint_cannot_name_code_to_run(tmp_path):
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    save_weights(tmp_path / "w.safetensors", ResNet9(), {"encoder": f"{tmp_path}/evil.py:build"})
    with pytest.raises(CheckpointError, match="could run code"):
        load_encoder(tmp_path / "w.safetensors")
    assert not ran.exists()
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(CheckpointError):
        read_weights(tmp_path / "text.pt")
