"""Main chains by what follows what: shortcuts, parallel paths, gates, sums and blocks of any names."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn import functional

from memloc.encoders import find_layers, layer_parts, load_encoder, tapped, unit_means
from memloc.errors import EncoderError, MemlocWarning

SHAPE = (3, 16, 16)


def rows_of(module, request="auto", shape=SHAPE):
    return {row.name: row for row in find_layers(module, request, shape)}


def chain_of(rows):
    """Name and predecessor of the main rows."""
    return [(row.name, row.predecessor) for row in rows.values() if row.main]


def conv(first, second):
    return nn.Conv2d(first, second, 3, padding=1)


class Functional(nn.Module):
    """A residual block in the style of many scripts for CIFAR: activations by functions, the shortcut's own convolution, sums in place."""

    def __init__(self, shortcut_first=False):
        super().__init__()
        self.stem, self.shortcut = conv(3, 8), nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.conv1, self.bn1 = conv(8, 8), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = conv(8, 8), nn.BatchNorm2d(8)
        self.last = conv(8, 4)
        self.shortcut_first = shortcut_first

    def block(self, x):
        aside = self.shortcut(x) if self.shortcut_first else None
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x) if aside is None else aside
        return functional.relu(out)

    def forward(self, x):
        return self.last(self.block(functional.gelu(self.stem(x))))


@pytest.mark.parametrize("shortcut_first", [False, True])
def test_activations_by_functions_and_shortcuts_in_any_order(shortcut_first):
    module = Functional(shortcut_first).eval()
    rows = rows_of(module)
    assert chain_of(rows) == [
        ("stem", None),
        ("conv1", "stem"),
        ("conv2", "conv1"),
        ("conv2 (sum)", "conv2"),
        ("last", "conv2 (sum)"),
    ]
    assert (rows["conv2 (sum)"].kind, rows["conv2 (sum)"].read_at) == ("residual", "last (input)")
    assert (rows["shortcut.0"].kind, rows["shortcut.0"].predecessor) == ("convolution (branch)", "stem")
    assert (rows["conv1"].read_at, rows["conv1"].signed) == ("conv2 (input)", False)
    assert rows["stem"].signed  # GELU may be negative
    images, found = torch.rand(2, *SHAPE), {}
    with tapped(module, list(rows.values()), lambda row, out: found.__setitem__(row.name, out.clone())) as run:
        run(images)
    with torch.no_grad():
        stem = functional.gelu(module.stem(images))
        assert torch.equal(found["stem"], stem)
        assert torch.allclose(found["conv1"], functional.relu(module.bn1(module.conv1(stem))))
    parts = layer_parts(load_encoder(module, shape=SHAPE), ["conv1"])["conv1"]
    assert parts.modules == ("conv1", "bn1")


class Gated(nn.Module):
    """Squeeze and excitation within a residual block whose sum is returned."""

    def __init__(self):
        super().__init__()
        self.before, self.reduce, self.expand, self.after = conv(8, 8), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1), conv(8, 8)  # fmt: skip

    def forward(self, x):
        out = self.before(x)
        factors = self.expand(functional.relu(self.reduce(functional.adaptive_avg_pool2d(out, 1)))).sigmoid()
        return x + self.after(out * factors)


@pytest.mark.parametrize("size", [16, 1])
def test_gates_are_no_part_of_the_main_chain(size):
    module, shape = nn.Sequential(conv(3, 8), Gated()), (3, size, size)
    rows = rows_of(module, shape=shape)
    assert chain_of(rows) == [("0", None), ("1.before", "0"), ("1.after", "1.before"), ("1", "1.after")]
    assert rows["1"].kind == "residual"
    assert not any("reduce" in name for name in rows)
    fine = rows_of(module, "fine", shape)
    assert (fine["1.reduce"].kind, fine["1.reduce"].predecessor) == ("convolution (gate)", "1.before")
    assert (fine["1.expand"].kind, fine["1.expand"].predecessor) == ("convolution (gate)", "1.reduce")


class Parallel(nn.Module):
    """Paths of one and two convolutions that are joined, as in GoogLeNet; `split` gives each half of the channels, as in ShuffleNet."""

    def __init__(self, split):
        super().__init__()
        width = 4 if split else 8
        self.short, self.one, self.two, self.split = conv(width, 4), conv(width, 4), conv(4, 4), split

    def forward(self, x):
        first, second = x.chunk(2, 1) if self.split else (x, x)
        return torch.cat([self.short(first), self.two(functional.relu_(self.one(second)))], 1)


@pytest.mark.parametrize("split", [False, True])
def test_the_longest_of_parallel_paths_is_main_and_others_follow_their_own(split):
    rows = rows_of(nn.Sequential(conv(3, 8), Parallel(split), conv(8, 8)))
    assert chain_of(rows) == [("0", None), ("1.one", "0"), ("1.two", "1.one"), ("2", "1.two")]
    assert (rows["1.short"].kind, rows["1.short"].predecessor) == ("convolution (branch)", "0")
    assert rows["1.one"].read_at == "1.two (input)"
    assert "1" not in rows  # joining is no sum


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.pool = nn.Linear(48, 8), nn.Linear(8, 8)

    def forward(self, x):
        hidden = self.body(x.flatten(1))
        return {"last_hidden_state": hidden, "pooled": self.pool(hidden)}


def test_what_the_output_does_not_come_from_is_a_branch():
    rows = rows_of(Unused(), shape=(3, 4, 4))
    assert rows["output"].predecessor == "body"
    assert rows["pool"].kind == "linear (branch)"


class Detour(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.numpy().copy())


def test_what_leaves_pytorch_is_followed_by_the_next_layer_in_time():
    rows = rows_of(nn.Sequential(conv(3, 4), Detour(), conv(4, 4), nn.Flatten(), nn.Linear(4 * 256, 2)))
    assert chain_of(rows) == [("0", None), ("2", "0"), ("4", "2")]


class Attending(nn.Module):
    """A transformer's block under names of its own; the class token is a weight to which the first block adds."""

    def __init__(self, *, tokens_alone=False):
        super().__init__()
        self.a, self.n1, self.n2 = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8), nn.LayerNorm(8)
        self.up, self.down, self.tokens_alone = nn.Linear(8, 16), nn.Linear(16, 8), tokens_alone

    def forward(self, x, context=None):
        asked = self.n1(x)
        given = asked if context is None else context
        x = x + self.a(asked, given, given, need_weights=False)[0]
        return x + self.down(functional.gelu(self.up(self.n2(x))))


class Transformer(nn.Module):
    def __init__(self, of_torch=None):
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.zeros(1, 1, 8))
        self.blocks = nn.ModuleList(of_torch or [Attending(), Attending()])
        self.reads = Attending()

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.reads(self.token.expand(len(x), -1, -1), x)


FOUR = ["attention", "residual", "fully-connected", "residual"]


def test_blocks_are_known_by_what_they_do():
    rows = rows_of(Transformer())
    kinds = [row.kind for row in rows.values()]
    assert kinds == ["patch embedding", *FOUR * 3, "output"]
    assert (rows["blocks.1 after attention"].read_at, rows["blocks.1 after attention"].predecessor) == ("blocks.1.n2 (input)", "blocks.0")  # fmt: skip
    assert (rows["blocks.1.down"].predecessor, rows["blocks.1"].predecessor) == ("blocks.1 after attention", "blocks.0")
    assert rows["reads.a"].predecessor == "blocks.1"  # the token it adds to comes from no image; what it reads does
    parts = layer_parts(load_encoder(Transformer(), shape=SHAPE), ["blocks.0.down"])["blocks.0.down"]
    assert (parts.modules, parts.makes) == (("blocks.0.up", "blocks.0.down"), "blocks.0.down")


@pytest.mark.parametrize("first", [True, False])
def test_pytorchs_own_blocks_with_the_norm_before_or_after(first):
    module = Transformer([nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=first) for _ in range(2)])
    rows = rows_of(module)
    block = [row for row in rows.values() if row.name.startswith("blocks.1")]
    assert [row.kind for row in block] == FOUR[: 4 if first else 3] + ([] if first else ["residual"])
    assert rows["blocks.1.self_attn"].predecessor == "blocks.0"
    middle = rows["blocks.1 after attention"]
    assert middle.read_at == ("blocks.1.norm2 (input)" if first else "blocks.1.norm1")
    assert rows["blocks.1.linear2"].predecessor == "blocks.1 after attention"


SMALL = "hidden_size=24,num_hidden_layers=2,num_attention_heads=3,intermediate_size=48"
FAMILIES = {  # name: rows of a block after its first, with what each follows
    f"hf:data2vec-vision,image_size=32,patch_size=8,{SMALL}": ("encoder.layer.{}", "attention", "layernorm_after (input)", "output"),
    f"hf:dpt,image_size=32,patch_size=8,{SMALL}": ("encoder.layer.{}", "attention", "layernorm_after (input)", "output.dense"),
    f"hf:yolos,{SMALL}": ("encoder.layer.{}", "attention", "layernorm_after (input)", "output.dense"),
    "hf:swinv2,image_size=32": ("encoder.layers.0.blocks.{}", None, "intermediate (input)", "output"),
}  # fmt: skip
VISION = {
    "torchvision:swin_v2_t": ("features.1.{}", "attn", "mlp (input)", "mlp"),
    "timm:hiera_tiny_224": ("blocks.{}", "attn", "norm2 (input)", "mlp"),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_of_families_of_transformers(name):
    check_block(name, *FAMILIES[name])


@pytest.mark.vision
@pytest.mark.parametrize("name", VISION)
def test_blocks_of_families_of_timm_and_torchvision(torchvision, name):
    check_block(name, *VISION[name])


def check_block(name, place, attention, middle, connected):
    encoder = load_encoder(name, weights="random")
    rows = {row.name: row for row in encoder.layers}
    before, block = place.format(0), place.format(1)
    assert (rows[f"{block} after attention"].read_at, rows[f"{block} after attention"].predecessor) == (f"{block}.{middle}", before)  # fmt: skip
    if attention is not None:
        assert (rows[f"{block}.{attention}"].kind, rows[f"{block}.{attention}"].predecessor) == ("attention", before)
        assert layer_parts(encoder, [f"{block}.{attention}"])[f"{block}.{attention}"].makes is not None
    assert (rows[f"{block}.{connected}"].kind, rows[f"{block}.{connected}"].predecessor) == ("fully-connected", f"{block} after attention")  # fmt: skip
    assert (rows[block].kind, rows[block].predecessor) == ("residual", before)
    parts = layer_parts(encoder, [f"{block}.{connected}"])[f"{block}.{connected}"]
    inside = [name for part in parts.modules for name in dict(encoder.module.get_submodule(part).named_modules(prefix=part))]  # fmt: skip
    assert len({name for name in inside if isinstance(encoder.module.get_submodule(name), nn.Linear)}) == 2
    check_reads(encoder)


@pytest.mark.vision
@pytest.mark.parametrize(
    ("name", "branch", "follows", "main", "gate"),
    [
        ("torchvision:regnet_y_400mf", "block1.block1-0.proj.0", "stem.0", "block1.block1-0.f.a.0", "block1.block1-0.f.se.fc1"),
        ("torchvision:maxvit_t", "blocks.1.layers.0.layers.MBconv.proj.1", "blocks.0.layers.1.layers.grid_attention", "blocks.1.layers.0.layers.MBconv.layers.conv_a.0", "squeeze_excitation.fc1"),
        ("torchvision:googlenet", "inception3b.branch1.conv", "inception3a.branch2.1.conv", "inception3b.branch2.0.conv", None),
        ("torchvision:shufflenet_v2_x0_5", "stage2.0.branch1.0", "conv1.0", "stage2.0.branch2.0", None),
    ],
)  # fmt: skip
def test_branches_and_gates_of_torchvision(torchvision, name, branch, follows, main, gate):
    encoder = load_encoder(name, weights="random")
    found = {row.name: row for row in find_layers(encoder.module, "fine", encoder.shape)}
    branch, follows, main = (next(row for row in found.values() if row.name.endswith(end) and row.kind.startswith(("conv", "res"))) for end in (branch, follows, main))  # fmt: skip
    assert (branch.kind, branch.predecessor) == ("convolution (branch)", follows.name)
    assert (main.kind, main.predecessor) == ("convolution", follows.name)
    assert all(found[row.predecessor].main for row in found.values() if row.main and row.predecessor)
    assert gate is None or all(row.kind.startswith(("convolution (gate)", "before")) for row in found.values() if gate in row.name)  # fmt: skip
    check_reads(encoder)


def check_reads(encoder):
    """Every row can be read, and has the units it says."""
    rows = find_layers(encoder.module, "fine", encoder.shape)
    widths = {}

    def reduce(row, out):
        widths[row.name] = unit_means(row, out, 1).shape

    with tapped(encoder.module, rows, reduce) as run:
        run(torch.rand(2, *encoder.shape))
    assert widths == {row.name: (2, row.units) for row in rows}


def test_units_of_linear_layers_over_maps_are_read_after_their_activation():
    class Channels(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.up, self.act = conv(3, 8), nn.Linear(8, 12), nn.GELU()

        def forward(self, x):
            return self.act(self.up(self.conv(x).permute(0, 2, 3, 1)))

    row = rows_of(Channels())["up"]
    assert (row.read_at, row.units, row.last) == ("act", 12, True)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24, bias=False), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        return self.out((q @ k.transpose(1, 2)).softmax(-1) @ v)


def mlp():
    return nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))


class Stream(nn.Module):
    """Transformers whose blocks are no modules: each layer is added in one loop."""

    def __init__(self, layers, norm=True):
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), nn.LayerNorm(8) if norm else nn.Identity()

    def forward(self, x):
        for layer in self.layers:
            x = layer(x) + x
        return self.norm(x)


class Residual(Stream):
    def __init__(self, layer):
        super().__init__([layer], norm=False)


class Patches(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.patches, self.body = nn.Conv2d(3, 8, 4, 4), body

    def forward(self, x):
        return self.body(self.patches(x).flatten(2).transpose(1, 2))


def test_blocks_that_are_added_in_a_loop():
    rows = rows_of(Patches(Stream([Attention(), mlp(), Attention(), mlp(), Attention(), mlp()])))
    assert [row.kind for row in rows.values()] == ["patch embedding", *FOUR * 3, "output"]
    before = "patches"
    for at in (0, 2, 4):
        attention, after, connected, end = (f"body.layers.{at}", f"body.layers.{at} (sum)", f"body.layers.{at + 1}", f"body.layers.{at + 1} (sum)")  # fmt: skip
        followed = [rows[name].predecessor for name in (attention, after, connected, end)]
        assert followed == [before, before, after, before]
        before = end
    assert rows["body.layers.1 (sum)"].read_at == "body.layers.2 (input)"
    assert rows["body.layers.5 (sum)"].read_at == "body.norm (input)"  # the stream, not what the module makes of it


def test_blocks_of_residual_modules_in_a_row():
    rows = rows_of(Patches(nn.Sequential(*(Residual(layer) for layer in (Attention(), mlp(), Attention(), mlp())))))
    assert [row.kind for row in rows.values()] == ["patch embedding", *FOUR * 2, "output"]
    assert [rows[name].predecessor for name in ("body.2.layers.0", "body.2", "body.3.layers.0", "body.3")] == ["body.1", "body.1", "body.2", "body.1"]  # fmt: skip


class Macaron(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.attention, self.conv, self.last = mlp(), Attention(), nn.Conv1d(8, 8, 3, padding=1, groups=8), mlp()  # fmt: skip
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        x = x + 0.5 * self.first(x)
        x = x + self.attention(x)
        x = x + self.conv(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return x + 0.5 * self.last(x)


def test_after_attention_is_right_after_it_in_blocks_of_more_sums():
    module = Patches(nn.Sequential(Macaron(), Macaron()))
    rows = rows_of(module)
    assert rows["body.1.attention"].predecessor == "body.1.first (sum)"
    assert rows["body.1 after attention"].read_at == "body.1.norm (input)"
    assert rows["body.1.last"].predecessor == "body.1.conv (sum)"
    assert rows["body.1"].predecessor == "body.0"
    parts = layer_parts(load_encoder(module, shape=SHAPE), ["body.1.attention"])["body.1.attention"]
    assert parts.modules == ("body.1.attention",)


class Beside(nn.Module):
    def __init__(self, together):
        super().__init__()
        self.attention, self.mlp, self.together = Attention(), mlp(), together

    def forward(self, x):
        a, m = self.attention(x), self.mlp(x)
        return x + (a + m) if self.together else x + a + m


@pytest.mark.parametrize("together", [True, False])
def test_parallel_attention_and_fully_connected_part(together):
    rows = rows_of(Patches(nn.Sequential(Beside(together), Beside(together))))
    for name in ("body.1.attention", "body.1.mlp", "body.1"):
        assert rows[name].predecessor == "body.0"
    assert [row.kind for row in rows.values()] == ["patch embedding", *["attention", "fully-connected", "residual"] * 2, "output"]  # fmt: skip


class Context(nn.Module):
    """Global context: a softmax over positions pools them, and what is computed from that is added."""

    def __init__(self):
        super().__init__()
        self.score, self.change = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        weights = self.score(x).flatten(2).softmax(-1)
        pooled = x.flatten(2) @ weights.transpose(1, 2)
        return x + self.change(pooled[..., None])


class Convolved(nn.Module):
    def __init__(self, after):
        super().__init__()
        self.conv1, self.conv2, self.after = conv(8, 8), conv(8, 8), after

    def forward(self, x):
        return x + self.after(self.conv2(self.conv1(x)))


def test_a_softmax_is_no_transformer():
    rows = rows_of(nn.Sequential(conv(3, 8), nn.Sequential(Convolved(Context()), Convolved(nn.Identity()))))
    assert not {row.kind for row in rows.values()} & {"attention", "fully-connected"}
    assert {"1.0.conv1", "1.0.conv2", "1.1.conv1", "1.1.conv2", "1.0", "1.1"} <= {name for name in rows if rows[name].main}  # fmt: skip
    assert "1.0.after.score" not in rows


class Maps(nn.Module):
    """Attention over positions between convolutions."""

    def __init__(self):
        super().__init__()
        self.attention = Attention()

    def forward(self, x):
        return x + self.attention(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])


def test_attention_between_convolutions_leaves_them_as_they_are():
    rows = rows_of(nn.Sequential(conv(3, 8), nn.Sequential(Convolved(nn.Identity()), Maps(), Convolved(nn.Identity()))))
    assert not {row.kind for row in rows.values()} & {"attention", "fully-connected"}
    assert (rows["1.2.conv1"].predecessor, rows["1.1"].kind) == ("1.1", "residual")


class Spatial(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.score, self.channels = conv(8, 8), nn.Conv2d(8, 1, 1), nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x):
        h = self.conv(x)
        h = h * self.score(h).sigmoid()
        return h * self.channels(h.mean((2, 3))[:, None]).sigmoid().transpose(1, 2)[..., None]


def test_gates_of_one_channel_are_gates():
    fine = rows_of(nn.Sequential(conv(3, 8), Spatial(), conv(8, 8)), "fine")
    assert fine["1.score"].kind == "convolution (gate)"
    assert "1.channels" not in fine  # whose units, one, are not its last axis
    assert fine["2"].predecessor == "1.conv"


class Frozen(nn.Module):
    """A batch-norm whose statistics are buffers, as in detection."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.full((8,), 2.0))

    def forward(self, x):
        return x * self.scale[:, None, None] + 0.5


@pytest.mark.parametrize(
    ("after", "place"),
    [
        ((Frozen(), nn.ReLU()), "2"),
        ((nn.InstanceNorm2d(8), nn.PReLU(8)), "2"),
        ((nn.Tanh(),), "1"),
        ((nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.CELU()), "3"),
        ((nn.GroupNorm(2, 8), nn.Hardtanh()), "2"),
    ],
)
def test_norms_and_activations_of_any_kind_are_part_of_a_reading(after, place):
    rows = rows_of(nn.Sequential(conv(3, 8), *after, conv(8, 8)))
    assert rows["0"].read_at == place
    assert rows["4" if len(after) == 3 else str(len(after) + 1)].predecessor == "0"


class Poolers(nn.Module):
    """Activations by functions of which none has a name of its own."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = conv(3, 8), conv(8, 8), nn.Linear(8 * 64, 4)

    def forward(self, x):
        x = functional.relu(functional.max_pool2d(self.one(x), 2))
        x = self.two(x)
        return self.three((x * x.sigmoid()).flatten(1))


def test_activations_after_pooling_and_by_products():
    rows = rows_of(Poolers())
    assert (rows["one"].read_at, rows["one"].signed) == ("two (input)", False)
    assert rows["two"].signed


class Tries(nn.Module):
    def __init__(self, raises):
        super().__init__()
        self.fast, self.conv = raises, conv(8, 8)

    def forward(self, x):
        h = x
        with contextlib.suppress(RuntimeError):
            h = self.fast(h)
        return x + self.conv(h)


class Raises(nn.Module):
    def forward(self, x):
        raise RuntimeError("not here")


def test_a_module_that_raises_within_another_changes_nothing():
    rows = rows_of(nn.Sequential(conv(3, 8), Tries(Raises()), Tries(Raises())))
    assert chain_of(rows) == [("0", None), ("1.conv", "0"), ("1", "1.conv"), ("2.conv", "1"), ("2", "2.conv")]


class First(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.encoder = nn.Conv2d(3, 8, 4, 4), nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2)  # fmt: skip

    def forward(self, x):
        return self.encoder(self.patches(x).flatten(2).permute(2, 0, 1)).mean(0)


def test_attention_that_cannot_be_read_is_said():
    with pytest.warns(MemlocWarning, match=r"attention, such as 'encoder\.layers\.0\.self_attn'.*batch_first=True"):
        rows = rows_of(First())
    assert "patches" in rows


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.filters = nn.Parameter(torch.zeros(3, dtype=torch.complex64))
        self.gru, self.fc, self.out = nn.GRU(48, 8, 2, batch_first=True), nn.Linear(8, 4), nn.Linear(4, 4)

    def forward(self, x):
        _, state = self.gru(x.flatten(2).transpose(1, 2).reshape(len(x), 16, 48))
        return self.out(self.fc(state)[-1])


def test_what_has_layers_or_directions_first_is_not_read():
    rows = rows_of(Recurrent())
    assert list(rows) == ["out", "output"]


def test_scripted_parts_are_passed_through():
    rows = rows_of(nn.Sequential(conv(3, 8), torch.jit.script(nn.Sequential(conv(8, 8), nn.ReLU())), conv(8, 8)))
    assert chain_of(rows) == [("0", None), ("2", "0")]


def test_units_of_computed_weights_are_not_silenced_without_effect():
    from memloc.encoders import silence

    module = nn.Sequential(
        nn.utils.parametrizations.weight_norm(conv(3, 8)), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 2)
    )
    encoder = load_encoder(module, shape=SHAPE)
    with pytest.raises(EncoderError, match="computed from others"):
        silence(encoder, layer_parts(encoder, ["0"])["0"], [1])


def test_units_of_norms_without_scale_are_not_silenced_without_effect():
    from memloc.encoders import silence

    module = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8, affine=False), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 2))
    encoder = load_encoder(module, shape=SHAPE)
    with pytest.raises(EncoderError, match="no scale and shift"):
        silence(encoder, layer_parts(encoder, ["0"])["0"], [1])


class Trunk(nn.Module):
    def __init__(self, end):
        super().__init__()
        self.stem, self.res, self.end = conv(3, 8), conv(8, 8), end

    def forward(self, x):
        x = self.stem(x)
        return self.end(self.res(x) + x)


@pytest.mark.parametrize("end", [nn.Flatten(), nn.MaxPool2d(4), nn.BatchNorm2d(8)])
def test_a_sum_is_read_before_what_a_module_makes_of_it(end):
    rows = rows_of(nn.Sequential(Trunk(end), nn.Flatten(), nn.LazyLinear(2)))
    assert (rows["0.res (sum)"].read_at, rows["0.res (sum)"].units) == ("0.end (input)", 8)


class Convnext(nn.Module):
    def __init__(self):
        super().__init__()
        self.depth, self.norm, self.up, self.down = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.LayerNorm(16), nn.Linear(16, 16), nn.Linear(16, 16)  # fmt: skip

    def forward(self, x):
        out = self.norm(self.depth(x).permute(0, 2, 3, 1))
        return x + self.down(functional.gelu(self.up(out))).permute(0, 3, 1, 2)


def test_axes_of_units_are_known_where_all_axes_are_alike():
    rows = rows_of(nn.Sequential(conv(3, 16), Convnext()))
    assert {name: row.last for name, row in rows.items()} == {"0": False, "1.depth": False, "1.up": True, "1.down": True, "1": False, "output": False}  # fmt: skip


class Decoded(nn.Module):
    """A query that is a weight, decoded from the features of a convolutional net."""

    def __init__(self):
        super().__init__()
        self.body, self.query = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8)), nn.Parameter(torch.zeros(1, 4, 8))
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2)

    def forward(self, x):
        return self.decoder(self.query.expand(len(x), -1, -1), self.body(x).flatten(2).transpose(1, 2))


def test_decoders_of_convolutional_features():
    module = Decoded()
    fine = find_layers(module, "fine", SHAPE)
    assert len({row.name for row in fine}) == len(fine)
    rows = {row.name: row for row in fine}
    assert [name for name in rows if rows[name].main][:2] == ["body.0", "body.2"]
    second = rows["decoder.layers.1.multihead_attn"]
    assert second.predecessor == "decoder.layers.1 after attention"
    assert rows["decoder.layers.1.self_attn"].predecessor == "decoder.layers.0"
    assert rows["decoder.layers.1"].predecessor == "decoder.layers.0"
    parts = layer_parts(load_encoder(module, shape=SHAPE), ["decoder.layers.0.multihead_attn"])
    assert parts["decoder.layers.0.multihead_attn"].modules == ("decoder.layers.0.multihead_attn",)
