"""DeepSeek-V4 as others write it: config.json of transformers 5, prefixes of wrappers."""
import json

import pytest

from corrupt.files import Model

KINDS = {0: "sliding_attention", 4: "compressed_sparse_attention",
         128: "heavily_compressed_attention"}


def new_form(config):
    """The config as transformers 5 spells it: the entries of MTP blocks are gone."""
    config = dict(config)
    layers = config["num_hidden_layers"]
    ratios = config.pop("compress_ratios")[:layers]
    hashed = config.pop("num_hash_layers")
    config["layer_types"] = [KINDS[r] for r in ratios]
    config["compress_rates"] = {KINDS[4]: 4, KINDS[128]: 128}
    config["mlp_layer_types"] = ["hash_moe"] * hashed + ["moe"] * (layers - hashed)
    return config


def written(golden, path, change=lambda config: None):
    model = Model(golden)
    model.config = new_form(model.config)
    change(model.config)
    return model.write(path)


def test_the_new_spelling_is_read(ckpt, golden, digest, tmp_path):
    path = written(golden, tmp_path / "in")
    assert digest(path) == digest(golden)
    assert ckpt("ckpt-inspect", "--json", path).json["family"] == "deepseek_v4"


def test_a_conversion_keeps_the_spelling(ckpt, golden, digest, tmp_path):
    path = written(golden, tmp_path / "in")
    ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert "layer_types" in config and "compress_ratios" not in config
    assert "num_hash_layers" not in config
    assert digest(tmp_path / "out") == digest(golden)


@pytest.mark.parametrize("layout", ["torch_dist", "mp"])
def test_other_layouts_are_made_from_it(ckpt, golden_a, digest, tmp_path, layout):
    path = written(golden_a, tmp_path / "in")
    ckpt("ckpt-shard", "--layout", layout, *(["--mp", "2"] if layout == "mp" else []), path,
         tmp_path / "out")
    assert digest(tmp_path / "out", key="main") == digest(golden_a, key="main")


def without_rates(config):
    del config["compress_rates"]


def scalars(config):
    config["compress_rates"] = {KINDS[4]: 7, KINDS[128]: 9}
    config["compress_rate_csa"], config["compress_rate_hca"] = 4, 128


def both(config):
    config["compress_ratios"] = [next(r for r, k in KINDS.items() if k == kind)
                                 for kind in config["layer_types"]] + [0]


def window_in_the_table(config):
    config["compress_rates"][KINDS[0]] = 64


@pytest.mark.parametrize("change", [without_rates, scalars, both, window_in_the_table])
def test_spellings_that_mean_the_same(golden_a, digest, tmp_path, change):
    assert digest(written(golden_a, tmp_path / "in", change)) == digest(golden_a)


def drop(key):
    return lambda config: config.pop(key)


def kind(value):
    def change(config):
        config["layer_types"][1] = value
    return change


def disagree(config):
    both(config)
    config["compress_ratios"][1] ^= 4 ^ 128


def hash_late(config):
    config["mlp_layer_types"].append(config["mlp_layer_types"].pop(0))


WRONG = {
    "neither": (drop("layer_types"), "neither 'compress_ratios' nor 'layer_types'"),
    "unknown kind": (kind("full_attention"), "'full_attention'"),
    "a number": (kind(4), "is not a string"),
    "short": (lambda c: c["layer_types"].pop(), "elements for"),
    "disagreement": (disagree, "disagree"),
    "no rate": (lambda c: c["compress_rates"].pop(KINDS[4]), "'compress_rates'"),
    "hash layers late": (hash_late, "'mlp_layer_types'"),
}


@pytest.mark.parametrize("case", WRONG, ids=[c.replace(" ", "-") for c in WRONG])
def test_what_cannot_be_right_is_refused(ckpt, golden_a, tmp_path, case):
    change, says = WRONG[case]
    path = written(golden_a, tmp_path / "in", change)
    err = ckpt("ckpt-inspect", path, check=2).err
    assert f"'{path}'" in err and says in err


# ---- prefixes ----

@pytest.mark.parametrize("prefix", ["model.", "language_model.", "language_model.model.",
                                    "model.language_model."])
def test_a_prefix_of_all_names_is_read_through(ckpt, golden_a, digest, tmp_path, prefix):
    model = Model(golden_a)
    for name in model.names():
        model.rename(name, prefix + name)
    path = model.write(tmp_path / "in")
    assert digest(path) == digest(golden_a)
    ckpt("ckpt-convert", path, tmp_path / "kept")
    assert sorted(Model(tmp_path / "kept").names()) == sorted(model.names())
    assert digest(tmp_path / "kept") == digest(golden_a)
    done = ckpt("ckpt-convert", "--json", "--dtype", "bf16", "--names", "native", path,
                tmp_path / "native").json
    assert f"the prefix '{prefix}' is dropped from names" in done["notes"]
    assert not any(n.startswith(prefix) for n in Model(tmp_path / "native").names())
    assert digest(tmp_path / "native") == digest(golden_a)


def test_a_prefix_of_some_names_is_an_error(ckpt, golden_a, tmp_path):
    model = Model(golden_a)
    for name in model.names():
        if name.startswith("layers.0."):
            model.rename(name, "language_model." + name)
    err = ckpt("ckpt-inspect", model.write(tmp_path / "in"), check=2).err
    assert "unexpected tensor" in err
    assert "map" not in err.replace(str(tmp_path), "") and " line " not in err


def test_a_prefix_is_never_taken_off_twice(ckpt, golden_a, tmp_path):
    model = Model(golden_a)
    for name in model.names():
        model.rename(name, "language_model.language_model." + name)
    ckpt("ckpt-inspect", model.write(tmp_path / "in"), check=2)
