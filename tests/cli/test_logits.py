"""ckpt-verify logits and ckpt-run --against: distances beside NumPy, refusals, broken models."""
import json
import re

import numpy
import pytest
from safetensors.numpy import load_file, save_file

from corrupt.files import Model

RNG_SEED = 20
VOCAB = 300
EXPERT = "layers.2.ffn.experts.{}.{}.{}"
UPPER = ["max-kl", "max-mean-kl", "max-p99-kl", "max-p50-kl", "max-abs", "max-mean-abs",
         "max-logprob", "max-mean-logprob"]


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - numpy.log(numpy.exp(x).sum(-1, keepdims=True))


def best(x, count):
    """Ids of the largest, ties by lower id."""
    return numpy.argsort(-x, axis=-1, kind="stable")[:, :count]


def pair(noise, count=40, seed=RNG_SEED):
    rng = numpy.random.default_rng(seed)
    a = (rng.standard_normal((count, VOCAB)) * 4).astype(numpy.float32)
    b = (a + rng.standard_normal(a.shape) * noise).astype(numpy.float32)
    return a, b


def save(path, logits, suffix="", name="logits", tokens=None, positions=True, **more):
    count = len(logits)
    tensors = {f"tokens{suffix}": numpy.arange(count, dtype=numpy.int32) if tokens is None
               else numpy.array(tokens, numpy.int32), f"{name}{suffix}": logits, **more}
    if positions:
        tensors[f"positions{suffix}"] = numpy.arange(count, dtype=numpy.int32)
    save_file(tensors, path)
    return path


def save_top(path, logits, count):
    ids = best(logits, count).astype(numpy.int32)
    x = logits.astype(numpy.float64)
    total = (x.max(-1) + numpy.log(numpy.exp(x - x.max(-1, keepdims=True)).sum(-1)))
    return save(path, numpy.take_along_axis(logits, ids, -1), name="top_logits",
                tokens=range(len(logits)), top_ids=ids, logsumexp=total.astype(numpy.float32))


@pytest.fixture
def logits(ckpt):
    def run(a, b, *options, check=(0, 1)):
        return ckpt("ckpt-verify", "logits", "--json", *options, a, b, check=check)
    return run


# ---- distances ----

@pytest.mark.parametrize("noise", [1e-6, 1e-3, 0.1, 3])
def test_measures_are_numpys(logits, tmp_path, noise):
    a, b = pair(noise)
    out = logits(save(tmp_path / "a.safetensors", a), save(tmp_path / "b.safetensors", b),
                 check=1).json
    x, y = (log_softmax(v.astype(numpy.float64)) for v in (a, b))
    kl = (numpy.exp(x) * (x - y)).sum(-1)
    distance = abs(a.astype(numpy.float64) - b)
    near = dict(rel=1e-9, abs=1e-14)
    expected = {"mean": kl.mean(), "p50": numpy.percentile(kl, 50),
                "p99": numpy.percentile(kl, 99), "max": kl.max()}
    assert {k: out["kl"][k] for k in expected} == pytest.approx(expected, **near)
    assert out["kl"]["worst"]["position"] == kl.argmax()
    assert out["logits"] == pytest.approx({"max_abs": distance.max(),
                                           "mean_abs": distance.mean()}, **near)
    assert out["logprobs"] == pytest.approx({"max_abs": abs(x - y).max(),
                                             "mean_abs": abs(x - y).mean()}, **near)
    assert out["top1"] == (best(a, 1) == best(b, 1)).mean()
    shared = [len(set(p) & set(q)) for p, q in zip(best(a, 5), best(b, 5))]
    assert out["top5"] == pytest.approx(sum(shared) / 5 / len(a))
    assert out["different"] == (a != b).sum() and out["values"] == a.size
    for i, p in enumerate(out["positions"]):
        assert p["position"] == i and p["kl"] == pytest.approx(kl[i], **near)
        assert p["max_abs"] == distance[i].max() and p["top5"] == shared[i] / 5
        assert p["mean_logprob"] == pytest.approx(abs(x - y)[i].mean(), **near)


def test_small_distances_do_not_drown(logits, tmp_path):
    """A KL of 1e-15 is seen, and none is negative."""
    a, _ = pair(0)
    b = numpy.nextafter(a, numpy.float32(numpy.inf))
    out = logits(save(tmp_path / "a.safetensors", a), save(tmp_path / "b.safetensors", b)).json
    x, y = (log_softmax(v.astype(numpy.longdouble)) for v in (a, b))
    kl = (numpy.exp(x) * (x - y)).sum(-1)
    got = [p["kl"] for p in out["positions"]]
    assert min(got) > 0 and got == pytest.approx(kl.astype(float), rel=1e-2)


def test_of_the_best_the_rest_counts_as_one(logits, tmp_path):
    a, b = pair(0.05)
    count = 20
    full = logits(save(tmp_path / "a.safetensors", a), save(tmp_path / "b.safetensors", b)).json
    tops = [save_top(tmp_path / "at.safetensors", a, count),
            save_top(tmp_path / "bt.safetensors", b, count)]
    out = logits(*tops).json
    assert out["kl"]["is_lower_bound"] and not full["kl"]["is_lower_bound"]
    pa, pb = (numpy.exp(log_softmax(v.astype(numpy.float64))) for v in (a, b))
    for i, p in enumerate(out["positions"]):
        ids = sorted(set(best(a, count)[i]) & set(best(b, count)[i]))
        known = [numpy.append(q[i][ids], 1 - q[i][ids].sum()) for q in (pa, pb)]
        assert p["kl"] == pytest.approx((known[0] * numpy.log(known[0] / known[1])).sum(),
                                        rel=2e-3, abs=1e-9)
        assert p["kl"] <= full["positions"][i]["kl"] + 1e-9
    assert out["unmatched"] == sum(len(set(p) - set(q)) for p, q in
                                   zip(best(a, count), best(b, count)))
    assert out["top1"] == full["top1"] and out["top5"] == full["top5"]
    assert logits(tops[0], tops[0], check=0).json["bit_identical"]
    mixed = logits(tmp_path / "a.safetensors", tops[0], check=0).json
    assert mixed["bit_identical"] and mixed["kl"]["max"] < 1e-9


def test_several_prompts_and_bf16(logits, tmp_path):
    from safetensors.torch import save_file as save_torch
    import torch
    rng = torch.Generator().manual_seed(RNG_SEED)
    rows = [torch.randn((n, 8), generator=rng).bfloat16() for n in (3, 5)]
    tensors = {}
    for i, r in enumerate(rows):
        tensors |= {f"tokens.{i}": torch.arange(len(r)), f"logits.{i}": r}
    save_torch(tensors, tmp_path / "a.safetensors")
    save_torch({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()},
               tmp_path / "b.safetensors")
    out = logits(tmp_path / "a.safetensors", tmp_path / "b.safetensors", check=0).json
    assert [(p["prompt"], p["position"]) for p in out["positions"]] == \
        [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3), (1, 4)]


# ---- verdicts ----

def test_each_limit_is_one(ckpt, logits, tmp_path):
    a, b = pair(0.01)
    paths = [save(tmp_path / "a.safetensors", a), save(tmp_path / "b.safetensors", b)]
    out = logits(*paths).json
    measures = [out["kl"]["max"], out["kl"]["mean"], out["kl"]["p99"], out["kl"]["p50"],
                out["logits"]["max_abs"], out["logits"]["mean_abs"], out["logprobs"]["max_abs"],
                out["logprobs"]["mean_abs"]]
    for name, value in zip(UPPER, measures):
        assert logits(*paths, f"--{name}", repr(value * 1.01), check=0).json["same"]
        tight = logits(*paths, f"--{name}", repr(value * 0.99), check=1).json
        assert [e["limit"] for e in tight["exceeded"]] == [name] and not tight["same"]
        assert "exceeded    --" + name in ckpt("ckpt-verify", "logits", *paths, f"--{name}",
                                                "0", check=1).out
    for name in ("top1", "top5"):
        assert logits(*paths, f"--min-{name}", repr(out[name] - 1e-9), check=0).json["same"]
        assert not logits(*paths, f"--min-{name}", "1", check=(0, 1)).json["same"] or \
            out[name] == 1


@pytest.mark.parametrize("value", ["x", "", "-1", "nan", "inf", "1e-9x"])
def test_a_limit_that_is_no_number_is_refused(logits, tmp_path, value):
    a = save(tmp_path / "a.safetensors", pair(0)[0])
    logits(a, a, f"--max-kl={value}", check=2)


def test_nan_never_passes(logits, tmp_path):
    a, _ = pair(0)
    a[3, 7] = numpy.nan
    path = save(tmp_path / "a.safetensors", a)
    for options in [[], ["--max-kl", "1e9"], ["--min-top1", "0"]]:
        out = logits(path, path, *options, check=1).json
        assert out["non_finite"] == 2 and out["kl"]["max"] is None and not out["same"]


def test_generated_tokens_count(logits, tmp_path):
    a, _ = pair(0)
    paths = [save(tmp_path / f"{i}.safetensors", a, generated=numpy.array([4, i], numpy.int32))
             for i in (1, 2)]
    assert logits(*paths, check=1).json["generated_same"] is False
    assert logits(paths[0], paths[0], check=0).json["generated_same"] is True


@pytest.mark.parametrize("other, says", [
    (dict(tokens=range(1, 41)), "different tokens"),
    (dict(cut=39), "different tokens"),
    (dict(cut=39, tokens=range(40)), "different positions"),
    (dict(width=299), "rows of different lengths"),
    (dict(cut=0, tokens=range(40)), "has no logits"),
    (dict(name="loggits"), "has no tensor 'logits'"),
    (dict(suffix=".0", more=1), "2 sets"),
    (dict(name="logits", as_type=numpy.float16), "F16"),
])
def test_what_cannot_be_compared_is_no_pass(logits, tmp_path, other, says):
    a, _ = pair(0)
    b = a[:other.get("cut"), :other.get("width")].astype(other.get("as_type", numpy.float32))
    b_path = tmp_path / "b.safetensors"
    more = {"logits.1": b, "tokens.1": numpy.arange(40, dtype=numpy.int32)} \
        if "more" in other else {}
    save(b_path, numpy.ascontiguousarray(b), tokens=other.get("tokens"),
         name=other.get("name", "logits"), suffix=other.get("suffix", ""), **more)
    a_path = save(tmp_path / "a.safetensors", a)
    for order in [(a_path, b_path), (b_path, a_path)]:
        assert says in logits(*order, "--max-kl", "1e9", check=2).err or says == "2 sets"


def test_a_missing_or_broken_file_is_no_pass(logits, tmp_path):
    a = save(tmp_path / "a.safetensors", pair(0)[0])
    (tmp_path / "short.safetensors").write_bytes(a.read_bytes()[:-1])
    for other in ["absent.safetensors", "short.safetensors"]:
        logits(a, tmp_path / other, check=2)


# ---- traces ----

def line(layer, point, digest=None, **more):
    values = {"sequence": 0, "layer": layer, "point": point}
    if digest is not None:
        values |= {"shape": [2, 4], "digest": digest * 32, "rms": 1.5, "values": {}}
    return values | more


def trace(path, changed=(), gap=0.5):
    lines = [line(0, "embed", "0"), line(0, "x", "1"), line(1, "q", "2"),
             line(1, "router", cuts=2, gap=gap, position=1), line(1, "gate.ids", "3"),
             line(1, "x", "4")]
    for i in changed:
        lines[i]["digest"] = "f" * 32
    path.write_text("".join(json.dumps(x) + "\n" for x in lines))
    return path


@pytest.mark.parametrize("changed, first, selection", [
    ([], None, None), ([2, 5], (1, "q"), None), ([4, 5], (1, "gate.ids"), (1, "gate.ids")),
    ([1, 2, 4, 5], (0, "x"), (1, "gate.ids"))])
@pytest.mark.parametrize("gap", [0.5, 1e-7])
def test_a_trace_says_where_it_begins(ckpt, logits, tmp_path, changed, first, selection, gap):
    a = save(tmp_path / "a.safetensors", pair(0)[0])
    traces = ["--trace-a", trace(tmp_path / "a.jsonl", gap=gap),
              "--trace-b", trace(tmp_path / "b.jsonl", changed)]
    out = logits(a, a, *traces, check=0).json["trace"]
    assert out["points"] == 5 and out["different"] == len(changed)
    for expected, got in [(first, out["first"]), (selection, out["first_selection"])]:
        assert (got and (got["layer"], got["point"])) == expected
    if selection:
        assert out["first_selection"]["near_tie"] == (gap < 1e-5)
        assert out["first_selection"]["gap"] == gap
    text = ckpt("ckpt-verify", "logits", *traces, a, a).out
    assert ("it starts at a near tie" in text) == bool(selection and gap < 1e-5)


def test_traces_that_cannot_be_compared_are_refused(logits, tmp_path):
    a = save(tmp_path / "a.safetensors", pair(0)[0])
    good = trace(tmp_path / "a.jsonl")
    logits(a, a, "--trace-a", good, check=2)
    for text in ["", "{}\n", "x\n", good.read_text().replace("[2, 4]", "[3, 4]")]:
        (tmp_path / "b.jsonl").write_text(text)
        logits(a, a, "--trace-a", good, "--trace-b", tmp_path / "b.jsonl", check=2)


# ---- models that are wrong ----

def swap(c, one, two):
    c[one], c[two] = c[two], c[one]


def swap_experts(c):
    for w in ("w1", "w2", "w3"):
        for part in ("weight", "scale"):
            swap(c, EXPERT.format(0, w, part), EXPERT.format(1, w, part))


def swap_gate_and_up(c):
    for expert in range(16):
        for part in ("weight", "scale"):
            swap(c, EXPERT.format(expert, "w1", part), EXPERT.format(expert, "w3", part))


def change_scale(c):
    name = "layers.1.attn.wo_b.scale"
    c[name] = c[name].changed(0, lambda code: code + 1)


def change_norm(c):
    name = "layers.3.ffn_norm.weight"
    c[name] = c[name].changed(10, lambda low: low ^ 1)


@pytest.fixture(scope="module")
def prompt(data, tmp_path_factory):
    """The golden file for its first 48 tokens."""
    golden = load_file(data / "golden-a.safetensors")
    path = tmp_path_factory.mktemp("prompt") / "golden.safetensors"
    save_file({k: golden[k][:48] for k in ("tokens", "logits_exact")}, path)
    return path


@pytest.fixture
def run_against(ckpt, prompt, tmp_path):
    def run(model, *options, check=0):
        return ckpt("ckpt-run", "--numerics", "exact", "--tokens", prompt, "--json", "--out",
                    tmp_path / "out.safetensors", "--against", prompt, "--against-tensor",
                    "logits_exact", *options, model, check=check)
    return run


def test_the_right_model_passes(run_against, golden_a):
    out = run_against(golden_a, "--max-kl", "1e-9", "--max-abs", "1e-4", "--min-top1", "1").json
    assert out["against"]["same"] and out["against"]["compared"] == 48


@pytest.mark.parametrize("change", [swap_experts, swap_gate_and_up, change_scale, change_norm])
def test_a_wrong_model_fails(ckpt, digest, run_against, logits, golden_a, tmp_path, change):
    model = Model(golden_a)
    change(model)
    wrong = model.write(tmp_path / "wrong")
    out = run_against(wrong, "--max-kl", "1e-9", check=1).json["against"]
    assert not out["same"] and [e["limit"] for e in out["exceeded"]] == ["max-kl"]
    assert digest(wrong) != digest(golden_a)
    ckpt("ckpt-verify", "compare", golden_a, wrong, check=1)
    ckpt("ckpt-run", "--numerics", "exact", "--tokens", tmp_path / "out.safetensors", "--out",
         tmp_path / "right.safetensors", "--trace", tmp_path / "right.jsonl", golden_a)
    ckpt("ckpt-run", "--numerics", "exact", "--tokens", tmp_path / "out.safetensors", "--out",
         tmp_path / "again.safetensors", "--trace", tmp_path / "wrong.jsonl", wrong)
    same = logits(tmp_path / "out.safetensors", tmp_path / "again.safetensors", check=0).json
    assert same["bit_identical"]
    out = logits(tmp_path / "right.safetensors", tmp_path / "again.safetensors", "--trace-a",
                 tmp_path / "right.jsonl", "--trace-b", tmp_path / "wrong.jsonl", check=1).json
    layer = {swap_experts: 2, swap_gate_and_up: 2, change_scale: 1, change_norm: 3}[change]
    assert out["trace"]["first"]["layer"] == layer


def test_the_digest_sees_what_logits_hardly_show(ckpt, digest, run_against, golden_a, tmp_path):
    """Twice a head's queries: the norm of the head takes it out again."""
    model = Model(golden_a)
    name = "layers.1.attn.wq_b.scale"
    model[name] = model[name].changed(0, lambda code: code + 1)
    wrong = model.write(tmp_path / "wrong")
    assert run_against(wrong, "--max-kl", "1e-9").json["against"]["same"]
    assert digest(wrong) != digest(golden_a)
    ckpt("ckpt-verify", "compare", golden_a, wrong, check=1)


def test_against_is_checked_before_the_run(ckpt, run_against, golden_a, prompt, tmp_path):
    err = run_against(golden_a, "--against", tmp_path / "absent", check=2).err
    assert re.search("absent", err) and not (tmp_path / "out.safetensors").exists()
    ckpt("ckpt-run", "--tokens", prompt, "--against", prompt, golden_a, check=2)
