"""foreign_maker.py OUT [KIND...]: tiny checkpoints of other packages, made by the packages.

Made once, for tests/data/foreign.tar.xz; tests do not run it. It needs what
tests/requirements-foreign.txt lists, beside torch and transformers, and no GPU.
"""
import hashlib
import json
import pathlib
import shutil
import sys
import warnings

warnings.filterwarnings("ignore")

import torch                                                                 # noqa: E402
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM   # noqa: E402

OUT = pathlib.Path(sys.argv[1])
UNUSED = "generation_config.json", "README.md"


def llama():
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
        dtype="bfloat16", tie_word_embeddings=True, architectures=["LlamaForCausalLM"])
    return LlamaForCausalLM(config).to(torch.bfloat16)


def plain():
    llama().save_pretrained(OUT / "plain")
    return OUT / "plain"


def bitsandbytes(out, **options):
    LlamaForCausalLM.from_pretrained(
        plain(), quantization_config=BitsAndBytesConfig(**options), device_map="cpu"
    ).save_pretrained(out)


def mlx(out, **options):
    from mlx_lm.utils import load_model, quantize_model, save_config, save_model
    model, config = quantize_model(*load_model(plain()), **options)
    out.mkdir()
    save_model(out, model)
    save_config(config, out / "config.json")


def lora(out):
    from peft import LoraConfig, get_peft_model
    get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(out)


def measure(module, scheme):
    """The scales that llm-compressor would find for these weights."""
    from compressed_tensors.quantization.utils import calculate_qparams
    weight = module.weight.data.float()
    options = {}
    if scheme.group_size:
        groups = weight.reshape(len(weight), -1, scheme.group_size)
        low, high = groups.amin(-1), groups.amax(-1)
    elif scheme.strategy == "channel":
        low, high = weight.amin(1, True), weight.amax(1, True)
    else:
        low, high = weight.amin().reshape(1), weight.amax().reshape(1)
    if hasattr(module, "weight_global_scale"):
        options["global_scale"] = torch.tensor([448.0 * 6.0]) / weight.abs().max()
        module.weight_global_scale.data.copy_(options["global_scale"])
    scale, zero = calculate_qparams(low, high, scheme, **options)
    module.weight_scale.data.copy_(scale)
    if hasattr(module, "weight_zero_point"):
        module.weight_zero_point.data.copy_(zero)


def compressed_tensors(out, form, preset):
    """expected.json has the SHA-256 of what the package decompresses again."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationConfig, apply_quantization_config, preset_name_to_scheme)
    model = llama()
    group = preset_name_to_scheme(preset, ["Linear"])
    if group.weights.group_size == 128:
        group.weights.group_size = 32
    apply_quantization_config(model, QuantizationConfig(
        config_groups={"group_0": group}, ignore=["lm_head"], quantization_status="frozen",
        format=form))
    for module in model.modules():
        if getattr(module, "quantization_scheme", None) is not None:
            measure(module, module.quantization_scheme.weights)
    compressor = ModelCompressor.from_pretrained_model(model, quantization_format=form)
    compressor.compress_model(model)
    model.save_pretrained(out)
    compressor.update_config(out)
    compressor.decompress_model(model)
    values = {name: p.data.to(torch.bfloat16).contiguous().view(torch.uint8).numpy().tobytes()
              for name, p in model.named_parameters() if name.endswith("_proj.weight")}
    (out / "expected.json").write_text(json.dumps(
        {name: hashlib.sha256(data).hexdigest() for name, data in values.items()}, indent=1))


def modelopt(out, name):
    import modelopt.torch.quantization as quantization
    from modelopt.torch.export import export_hf_checkpoint
    model = llama()
    quantization.quantize(model, getattr(quantization, name),
                          lambda model: model(torch.arange(8)[None]))
    export_hf_checkpoint(model, export_dir=out)


def diffusers(out):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
    torch.manual_seed(1)
    DDPMPipeline(UNet2DModel(
        sample_size=4, block_out_channels=(4, ), norm_num_groups=2, layers_per_block=1,
        attention_head_dim=2, down_block_types=("DownBlock2D", ), up_block_types=("UpBlock2D", )),
        DDPMScheduler()).save_pretrained(out)


KINDS = {
    "bitsandbytes-nf4": (bitsandbytes, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
    "bitsandbytes-nf4-twice": (bitsandbytes, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
                                              "bnb_4bit_use_double_quant": True}),
    "bitsandbytes-fp4": (bitsandbytes, {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}),
    "bitsandbytes-int8": (bitsandbytes, {"load_in_8bit": True}),
    "mlx-affine": (mlx, {"group_size": 32, "bits": 4}),
    "mlx-mxfp4": (mlx, {"group_size": 32, "bits": 4, "mode": "mxfp4"}),
    "mlx-nvfp4": (mlx, {"group_size": 16, "bits": 4, "mode": "nvfp4"}),
    "mlx-mxfp8": (mlx, {"group_size": 32, "bits": 8, "mode": "mxfp8"}),
    "peft-lora": (lora, {}),
    "diffusers": (diffusers, {}),
    **{f"compressed-tensors-{name}": (compressed_tensors, {"form": form, "preset": preset})
       for name, form, preset in (
           ("int4", "pack-quantized", "W4A16"), ("int4-asym", "pack-quantized", "W4A16_ASYM"),
           ("int8", "int-quantized", "W8A8"), ("fp8", "float-quantized", "FP8_DYNAMIC"),
           ("fp8-tensor", "float-quantized", "FP8"), ("mxfp4", "mxfp4-pack-quantized", "MXFP4A16"),
           ("nvfp4", "nvfp4-pack-quantized", "NVFP4A16"))},
    **{f"modelopt-{name.split('_')[0].lower()}": (modelopt, {"name": name})
       for name in ("NVFP4_DEFAULT_CFG", "FP8_DEFAULT_CFG", "MXFP8_DEFAULT_CFG",
                    "INT8_SMOOTHQUANT_CFG")},
}


def main():
    for kind in sys.argv[2:] or KINDS:
        make, options = KINDS[kind]
        shutil.rmtree(OUT / kind, ignore_errors=True)
        make(OUT / kind, **options)
        for name in UNUSED:
            (OUT / kind / name).unlink(missing_ok=True)
    shutil.rmtree(OUT / "plain", ignore_errors=True)


if __name__ == "__main__":
    main()
