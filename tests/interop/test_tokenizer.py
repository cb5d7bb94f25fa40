"""Text in and out of ckpt-run beside the tokenizers package: byte-level BPE of a tokenizer.json."""
import json
import random

import pytest
from cli.measure import measure
from safetensors.numpy import load_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB = 3000
# The cuts of DeepSeek's tokenizers: digits by three, CJK and kana runs, then words.
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
SPECIAL = [BOS, EOS, "<｜User｜>", "<｜Assistant｜>"]
NORMAL = ["<think>", "</think>", "<think>>", "｜DSML｜"]

TEXTS = [
    "Hello, world! It's 12345.678 o'clock; don't panic.",
    "  leading,   inner \t and trailing blanks   ", "\n\n\r\n line\r\nbreaks \n \n", " ", "a", "\t",
    "def f(x):\n    return {'a': x**2, \"b\": [1, 22, 333, 4444]}  # comment\n",
    "Größe, naïve café, Ærøskøbing, ĳssel, ﬁne, ẞ", "e\u0301 und \u00e9, q\u0307\u0323",
    "Привет, мир! Съешь же ещё этих мягких французских булок.", "Γειά σου Κόσμε, ἄνθρωπος",
    "שלום עולם, עִבְרִית", "مرحبا بالعالم ١٢٣٤ اَلْعَرَبِيَّةُ", "नमस्ते दुनिया १२३ क्षत्रिय",
    "வணக்கம் உலகம்",
    "สวัสดีชาวโลก ๑๒๓", "안녕하세요 세계", "你好，世界！今天是2024年12月25日。",
    "こんにちは、カタカナとひらがな漢字ー。",
    "㐀㐁 𠀀𠀁 龦鿿", "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 ☃", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ½ ⅓ Ⅻ ①", "€ £ ¥ ₿ ∑∫√ → ⇒",
    "zero\u200bwidth\u200d\ufeff",
    "nbsp\u00a0thin\u2009em\u2003ideographic\u3000line\u2028par\u2029nel\u0085vt\x0b ff\x0c x",
    "\x01\x1f\x7f\x80 control", "\U0010ffff \ue000 \ufffd",
    BOS + "<｜User｜>hi<｜Assistant｜></think>",
    "<think>a</think><think>>b <think", "<｜User｜><｜User", "x<｜end▁of▁sentence｜>",
    "｜DSML｜ and ▁ and Ġ and Ċ", "!word #tag $var 'quoted' (paren) a.b.c",
    "a" * 200, " " * 100, "1" * 50,
]


def train(pre):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, show_progress=False, special_tokens=SPECIAL,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(TEXTS * 2 + [__doc__, DEEPSEEK[2]] * 3, trainer)
    t.add_tokens([AddedToken(n, normalized=n.startswith("<think>")) for n in NORMAL])
    t.add_tokens([f"<fill {i}>" for i in range(VOCAB - t.get_vocab_size())])
    return t


def cut(patterns):
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns] +
        [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


@pytest.fixture(scope="module", params=["deepseek", "gpt2", "strings"])
def tokenizer(request, tmp_path_factory):
    """(the package's tokenizer, its file)"""
    t = train(pre_tokenizers.ByteLevel(add_prefix_space=False) if request.param == "gpt2"
              else cut(DEEPSEEK))
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    content = json.loads(t.to_str())
    if request.param == "strings":                  # older files, and whole pieces first
        content["model"]["merges"] = [" ".join(m) for m in content["model"]["merges"]]
        content["model"]["ignore_merges"] = True
        t = Tokenizer.from_str(json.dumps(content))
    path.write_text(json.dumps(content), encoding="utf-8")
    return t, path


@pytest.fixture(scope="module")
def model(tmp_path_factory, data):
    """A model with a vocabulary for these tokenizers."""
    from conftest import run_tool
    folder = tmp_path_factory.mktemp("model")
    config = json.loads((data / "golden-a" / "config.json").read_text())
    config["vocab_size"] = VOCAB
    (folder / "config.json").write_text(json.dumps(config))
    run_tool("ckpt-synth", "--config", folder / "config.json", folder / "m")
    return folder / "m"


@pytest.fixture
def ids(ckpt, tokenizer, model):
    def run(text, *options, mode="raw"):
        out = ckpt("ckpt-run", "--tokenizer", tokenizer[1], "--mode", mode, f"--prompt={text}",
                   "--dry-run", "--json", *options, model).json
        return out["prompts"][0]["ids"]
    return run


# ---- in ----

def test_ids_are_those_of_the_package(tokenizer, ids):
    for text in TEXTS:
        assert ids(text) == tokenizer[0].encode(text, add_special_tokens=False).ids, repr(text)


def test_ids_of_random_mixtures(tokenizer, ids):
    random.seed(7)
    letters = sorted(set("".join(TEXTS))) + SPECIAL + NORMAL + [" ", "\n", "  ", "'s"] * 8
    for _ in range(25):
        text = "".join(random.choices(letters, k=random.randint(1, 400)))
        assert ids(text) == tokenizer[0].encode(text, add_special_tokens=False).ids, repr(text)


@pytest.mark.parametrize("letters", ["a", "ab", "abcdefghijklmnopqrstuvwxyz", "aé漢"])
def test_long_pieces_without_blanks(tokenizer, ids, letters):
    """Of one letter most pairs merge and tie; of many the merges come from all places."""
    random.seed(11)
    for length in (1000, 30000):
        text = "".join(random.choices(letters, k=length))
        assert ids(text) == tokenizer[0].encode(text, add_special_tokens=False).ids


def test_time_grows_with_a_piece_not_with_its_square(tokenizer, model, tmp_path):
    """Quadratic work on such a piece would take minutes, not a second."""
    random.seed(12)
    text = "".join(random.choices("etaoinshrdlu", k=120000))
    done = measure(tmp_path, "ckpt-run", "--tokenizer", tokenizer[1], "--mode", "raw",
                   f"--prompt={text}", "--dry-run", "--json", model)
    assert done.status == 0, done.err
    assert done.cpu_seconds < 20


def test_messages_are_put_as_the_model_knows_them(tokenizer, ids):
    effort = ("Reasoning Effort: Absolute maximum with no shortcuts permitted.\n", "unchecked.\n\n")
    ask = "<｜User｜>Why?<｜Assistant｜>"
    encode = lambda text: tokenizer[0].encode(text, add_special_tokens=False).ids
    assert ids("Why?", mode="chat") == encode(BOS + ask + "</think>")
    assert ids("Why?", mode="think") == encode(BOS + ask + "<think>")
    assert ids("Why?", "--instructions", "Be brief.", mode="chat") == \
        encode(BOS + "Be brief." + ask + "</think>")
    most = tokenizer[0].decode(ids("Why?", "--instructions", "S.", mode="think-max"),
                               skip_special_tokens=False)
    assert most.startswith(BOS + effort[0]) and most.endswith(effort[1] + "S." + ask + "<think>")
    assert len(most.encode()) == 476 + len((BOS + "S." + ask + "<think>").encode())


# ---- out ----

def test_what_is_generated_is_printed_as_text(ckpt, tokenizer, model, tmp_path):
    out = tmp_path / "out.safetensors"
    command = ["ckpt-run", "--tokenizer", tokenizer[1], "--prompt", "Привет, мир! 你好", "--generate",
               "12", "--numerics", "exact"]
    said = ckpt(*command, "--json", "--out", out, model).json["prompts"][0]
    assert said["ids"] == load_file(out)["tokens"].tolist()
    decoded = tokenizer[0].decode(said["generated"], skip_special_tokens=False)
    shorten = lambda text: text.replace("\ufffd", "")       # how many stand in is a free choice
    assert shorten(said["text"]) == shorten(decoded)
    assert ckpt(*command, model).out == said["text"] + "\n"


def test_the_checkpoints_own_tokenizer_is_used(ckpt, tokenizer, model, tmp_path):
    for p in model.iterdir():
        (tmp_path / p.name).symlink_to(p)
    assert "tokenizer.json" in ckpt("ckpt-run", "--prompt", "x", tmp_path, check=2).err
    (tmp_path / "tokenizer.json").write_bytes(tokenizer[1].read_bytes())
    assert ckpt("ckpt-run", "--prompt", "x", "--json", tmp_path).json["prompts"][0]["text"]


# ---- refusals ----

@pytest.mark.parametrize("change, says", [
    (lambda t: t.update(normalizer={"type": "NFC"}), "NFC"),
    (lambda t: t["model"].update(type="Unigram"), "Unigram"),
    (lambda t: t["model"].update(dropout=0.1), "dropout"),
    (lambda t: t["model"].update(byte_fallback=True), "byte_fallback"),
    (lambda t: t["model"].update(unk_token="?"), "unk_token"),
    (lambda t: t["model"]["vocab"].pop("Ġ"), "byte 32"),
    (lambda t: t["model"]["merges"].append(["q", "nothing"]), "merge"),
    (lambda t: t["model"]["merges"].append(t["model"]["merges"][0]), "the same pair"),
    (lambda t: t["added_tokens"][0].update(lstrip=True), "lstrip"),
    (lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), "Whitespace"),
    (lambda t: t.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(("},
                                       "behavior": "Isolated", "invert": False}), "(("),
    # It would cut characters into bytes.
    (lambda t: t.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": r"\C"},
                                       "behavior": "Isolated", "invert": False}), r"\C"),
    (lambda t: t.update(pre_tokenizer=None),
     "tokenizer's pre_tokenizer: expected ByteLevel, or Split with a Regex and the behavior "
     "Isolated, found nothing with a type"),
])
def test_what_is_not_supported_is_refused(ckpt, tokenizer, model, tmp_path, change, says):
    content = json.loads(tokenizer[1].read_text(encoding="utf-8"))
    change(content)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    err = ckpt("ckpt-run", "--tokenizer", path, "--prompt", "x", "--dry-run", model, check=2).err
    assert says in err and f"'{path}': " in err


def test_prompts_that_say_nothing_are_refused(ckpt, tokenizer, model):
    run = ["ckpt-run", "--tokenizer", tokenizer[1], "--mode", "raw", model]
    ckpt(*run, "--prompt", "", check=2)
    ckpt(*run, check=2)
    ckpt(*run, "--prompt", "x", "--tokens", "-", check=2)
    assert "UTF-8" in ckpt(*run, "--prompt", b"\xff".decode(errors="surrogateescape"), check=2).err
