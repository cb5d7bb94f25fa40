"""ckpt-inspect --for transformers against transformers: the parameters that its own code makes.

No GPU is needed: the model is built on the meta device, and its quantiser puts FP8 and FP4 modules
in. A checkpoint fits when every quantised or plain weight has the dtype of its parameter.
"""
import re

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from cli.test_inspect_for import TABLE  # noqa: E402
from corrupt.files import read_header  # noqa: E402

if not hasattr(transformers, "DeepseekV4ForCausalLM"):
    pytest.skip("this transformers has no DeepseekV4ForCausalLM", allow_module_level=True)

quantisers = pytest.importorskip("transformers.quantizers.auto")

DTYPES = {torch.int8: {"I8", "U8", "F4"}, torch.float8_e4m3fn: {"F8_E4M3"},
          torch.bfloat16: {"BF16"}, torch.float32: {"BF16", "F32"}}
# Native names -> parameters, where the library quantises.
NAMES = [(r"\.attn\.(wq_a|wq_b|wkv|wo_a|wo_b)\.weight$",
          {"wq_a": "q_a", "wq_b": "q_b", "wkv": "kv", "wo_a": "o_a", "wo_b": "o_b"},
          ".self_attn.{}_proj.weight"),
         (r"\.attn\.(indexer)\.wq_b\.weight$", {"indexer": "indexer"},
          ".self_attn.compressor.{}.q_b_proj.weight"),
         (r"\.ffn\.shared_experts\.(w1|w2|w3)\.weight$",
          {"w1": "gate", "w2": "down", "w3": "up"}, ".mlp.shared_experts.{}_proj.weight"),
         (r"\.ffn\.experts\.\d+\.(w1|w2|w3)\.weight$",
          {"w1": "gate_up_proj", "w2": "down_proj", "w3": "gate_up_proj"}, ".mlp.experts.{}")]
ROWS = ["official", "fp8", "fp8-e8m0", "bf16", "bf16-experts", "fp4, told nothing",
        "fp8, told nothing", "fp8, told fp4", "fp4, told fp8", "fp4, told inside", "unlisted",
        "listed", "listed above", "others listed", "stale quantization_config", "no block",
        "no activation_scheme", "no quantization_config"]


def parameters(path):
    """{name: dtype} of the library's model of this config."""
    config = transformers.AutoConfig.from_pretrained(path)
    config.dtype = torch.bfloat16
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    told = getattr(config, "quantization_config", None)
    if told is not None:
        quantiser = quantisers.AutoHfQuantizer.from_config(told, pre_quantized=True)
        model.config.quantization_config = quantiser.quantization_config
        quantiser._process_model_before_weight_loading(model)
    return {n: p.dtype for n, p in model.state_dict().items()}


def parameter_of(name):
    for pattern, words, to in NAMES:
        match = re.search(pattern, name)
        if match and name.startswith("layers."):
            return "model." + name[:match.start()] + to.format(words[match[1]])
    return None


@pytest.mark.parametrize("row", ROWS)
def test_the_verdict_is_what_its_parameters_say(ckpt, golden_a, tmp_path, row):
    TABLE[row][0](ckpt, golden_a, tmp_path / "out")
    expected = parameters(tmp_path / "out")
    headers = {n: h for p in (tmp_path / "out").glob("*.safetensors")
               for n, h in read_header(p)[0].items()}
    checked, misfits = 0, []
    for name, header in headers.items():
        parameter = parameter_of(name)
        if parameter is None:
            continue
        checked += 1
        if header["dtype"] not in DTYPES[expected[parameter]]:
            misfits.append((name, header["dtype"], expected[parameter]))
    assert checked == 4 * (5 + 3 + 3 * 16) + 2
    done = ckpt("ckpt-inspect", "--for", "transformers", tmp_path / "out", check=(0, 1))
    assert (done.status == 1) == bool(misfits), (misfits[:3], done.out)
