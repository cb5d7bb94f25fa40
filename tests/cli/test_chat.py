"""Conversations of ckpt-run: texts as DeepSeek's own encoder makes them, answers as messages, the
loop on a terminal.

tests/data/chat-hashes.txt has the SHA-256 of what DeepSeek's encoding_dsv4.py gave for each
conversation of chats.py in each mode. With CKPT_ENCODER=FILE that file is run, too.
"""
import fcntl
import hashlib
import importlib.util
import json
import os
import pathlib
import pty
import signal
import subprocess

import pytest

from cli import chats
from cli.chats import BOS, EOS

COUNT = 200


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return chats.tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


@pytest.fixture
def encode(ckpt, golden_a, tokenizer):
    """encode(conversation, mode) -> text, or with check=2 the error."""
    def run(conversation, mode="chat", check=0):
        text = conversation if isinstance(conversation, str) else json.dumps(
            conversation, ensure_ascii=False)
        done = ckpt("ckpt-run", "--messages", "-", "--mode", mode, "--tokenizer", tokenizer,
                    "--dry-run", "--json", golden_a, input=text, check=check)
        return done.err if check else done.json["prompts"][0]["prompt"]
    return run


# ---- texts ----

@pytest.fixture(scope="module")
def official(data):
    """official(number) -> SHA-256 of the official texts: recorded, or of the encoder that is here.
    """
    hashes = (data / "chat-hashes.txt").read_text().split()
    assert len(hashes) == COUNT
    if "CKPT_ENCODER" not in os.environ:
        return hashes.__getitem__
    spec = importlib.util.spec_from_file_location("encoder", os.environ["CKPT_ENCODER"])
    encoder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(encoder)

    def live(number):
        found = sha256([encoder.encode_messages(chats.conversation(number), mode,
                                                reasoning_effort=effort)
                        for mode, effort in chats.MODES.values()])
        assert found == hashes[number]
        return found
    return live


def sha256(texts):
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


@pytest.mark.parametrize("part", range(10))
def test_texts_are_those_of_the_official_encoder(encode, official, part):
    for number in range(part, COUNT, 10):
        texts = [encode(chats.conversation(number), mode) for mode in chats.MODES]
        assert sha256(texts) == official(number), number


def test_what_the_conversations_contain():
    """The hashes are worth something only if the conversations have all there is."""
    text = json.dumps([chats.conversation(n) for n in range(COUNT)], ensure_ascii=False)
    for word in ["system", "developer", "user", "assistant", "tool", "latest_reminder"]:
        assert f'"role": "{word}"' in text
    for word in ["reasoning_content", "tool_calls", "response_format", "wo_eos", "task", "👩",
                 '"content": ""', '"content": null', "tool_call_id", "1180591620717411303424"]:
        assert word in text, word


def test_one_message_is_what_a_prompt_is(ckpt, golden_a, tokenizer, encode):
    for mode in chats.MODES:
        prompt = ckpt("ckpt-run", "--prompt=Why?", "--instructions", "Be brief.", "--mode", mode,
                      "--tokenizer", tokenizer, "--dry-run", "--json",
                      golden_a).json["prompts"][0]["prompt"]
        assert prompt == encode([{"role": "system", "content": "Be brief."},
                                 {"role": "user", "content": "Why?"}], mode)


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def test_tools_of_a_request_belong_to_its_system_message(encode):
    ask = {"role": "user", "content": "Why?"}
    format = {"type": "json_object"}
    request = {"model": "x", "messages": [ask], "tools": [TOOL], "response_format": format}
    system = {"role": "system", "content": "", "tools": [TOOL], "response_format": format}
    assert encode(request) == encode([system, ask])
    system["content"] = request["messages"][0:0] or "S."
    request["messages"] = [{"role": "system", "content": "S."}, ask]
    assert encode(request) == encode([system, ask])
    assert encode({"messages": [ask]}) == encode([ask])
    assert encode({"messages": [{**ask, "name": None, "audio": []}], "n": 0}) == encode([ask])


def call(arguments, **members):
    return {"role": "assistant", "tool_calls": [
        {"type": "function", "function": {"name": "f", "arguments": arguments}, **members}]}


USER = {"role": "user", "content": "x"}
BAD = {
    "no-json": ("[{]", "byte 2"),
    "no-list": ("7", "expected an array of messages"),
    "empty": ("[]", "messages: expected at least one"),
    "no-messages": ("{}", "messages: expected an array, found nothing"),
    "no-object": ([USER, 7], "messages[1]: expected an object, found a number"),
    "no-role": ([{"content": "x"}], "messages[0].role: expected a string, found nothing"),
    "role": ([USER, {"role": "robot"}], "messages[1].role: expected system, developer"),
    "content-null": ([{"role": "user", "content": None}],
                     "messages[0].content: expected a string, found null"),
    "content-parts": ([{"role": "user", "content": [{"type": "text", "text": "x"}]}],
                      "messages[0].content: expected a string, found an array"),
    "developer-empty": ([{"role": "developer", "content": ""}], "messages[0].content: expected"),
    "result-part": ([{"role": "tool", "content": [{"text": "x"}]}],
                    "messages[0].content[0].type: expected a string, found nothing"),
    "reasoning": ([USER, {"role": "assistant", "reasoning_content": 1}],
                  "messages[1].reasoning_content: expected a string or null, found a number"),
    "calls": ([USER, {"role": "assistant", "tool_calls": {}}],
              "messages[1].tool_calls: expected an array or null, found an object"),
    "call": ([USER, {"role": "assistant", "tool_calls": [{"type": "function"}]}],
             "messages[1].tool_calls[0].function: expected an object, found nothing"),
    "arguments-object": ([USER, call({"a": 1})],
                         "messages[1].tool_calls[0].function.arguments: expected a string"),
    "arguments-list": ([USER, call("[1]")],
                       "messages[1].tool_calls[0].function.arguments: expected the JSON of an "),
    "arguments-nan": ([USER, call('{"a": NaN}')],
                      "messages[1].tool_calls[0].function.arguments: expected plain JSON"),
    "arguments-twice": ([USER, call('{"a": 1, "a": 2}')], "key 'a' occurs twice"),
    "id": ([USER, call("{}", id=7)], "messages[1].tool_calls[0].id: expected a string or null"),
    "tools": ([{"role": "system", "tools": [{"name": "f"}]}],
              "messages[0].tools[0].function: expected"),
    "tools-of-a-user": ([{**USER, "tools": [TOOL]}], "messages[0].tools: has no place"),
    "calls-of-a-user": ([{**USER, "tool_calls": [TOOL]}], "messages[0].tool_calls: has no place"),
    "tools-twice": ({"messages": [{"role": "system", "content": "", "tools": [TOOL]}, USER],
                     "tools": [TOOL]}, "tools: the system message has tools, too"),
    "task": ([{**USER, "task": "dance"}], "messages[0].task: expected action, query"),
    "twice": ('[{"role": "user", "role": "user", "content": ""}]', "key 'role' occurs twice"),
    "misspelt": ([{"role": "user", "contents": "x"}], "messages[0].contents: is not read: "),
    "not-read": ([{**USER, "name": "me"}], "messages[0].name: is not read"),
    "sampling": ({"messages": [USER], "temperature": 0.5}, "temperature: is not read"),
    "mesages": ({"messages": [USER], "mesages": [USER]}, "mesages: is not read"),
    "infinite": ('[{"role": "system", "response_format": 1e999}]', "beyond a double"),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_conversations_are_refused_by_index_and_field(encode, name):
    conversation, says = BAD[name]
    assert says in encode(conversation, check=2)


@pytest.mark.parametrize("options, says", [
    (["--mode", "raw"], "raw has no messages"), (["--instructions", "x"], "exclude each other"),
    (["--prompt", "x"], "exclude each other"), (["--chat"], "exclude each other"),
    (["--parse"], "--parse needs --generate"),
])
def test_options_that_contradict_a_conversation(ckpt, golden_a, tokenizer, options, says, tmp_path):
    (tmp_path / "m").write_text(json.dumps([USER]))
    assert says in ckpt("ckpt-run", "--messages", tmp_path / "m", "--tokenizer", tokenizer,
                        *options, golden_a, check=2).err


# ---- answers ----

def answer(ckpt, model, tokenizer, tokens, *options, check=0):
    return ckpt("ckpt-run", "--prompt=x", "--tokenizer", tokenizer, "--generate", tokens, *options,
                model, check=check)


def test_an_answer_that_ends_is_a_message(ckpt, golden_a, tokenizer, tmp_path):
    """Any token may be the one that ends an answer: take the fifth of a plain run."""
    plain = answer(ckpt, golden_a, tokenizer, 5, "--json").json["prompts"][0]
    config = json.loads((golden_a / "config.json").read_text())
    config["eos_token_id"] = plain["generated"][4]
    (tmp_path / "config.json").write_text(json.dumps(config))
    ends = ["--config", tmp_path / "config.json", "--parse"]
    short = answer(ckpt, golden_a, tokenizer, 4).out.removesuffix("\n")
    expected = {"role": "assistant", "content": short, "reasoning_content": "", "tool_calls": []}
    assert json.loads(answer(ckpt, golden_a, tokenizer, 9, *ends).out) == expected
    told = answer(ckpt, golden_a, tokenizer, 9, *ends, "--json").json["prompts"][0]
    assert told["message"] == expected and told["text"] == short


def test_an_answer_that_was_cut_is_no_message(ckpt, golden_a, tokenizer):
    said = answer(ckpt, golden_a, tokenizer, 2, "--parse", check=2)
    assert "prompt 0" in said.err and "cut after --generate" in said.err and not said.out


# ---- prompts ----

def test_prompts_are_cut_at_empty_lines(ckpt, golden_a, tokenizer, tmp_path):
    (tmp_path / "p").write_text("one\n\ntwo\nlines\n\nthree\n")
    run = ["--tokenizer", tokenizer, "--generate", "3", golden_a]
    told = ckpt("ckpt-run", "--prompts", tmp_path / "p", "--json", *run).json["prompts"]
    alone = [ckpt("ckpt-run", f"--prompt={p}", "--json", *run).json["prompts"][0]
             for p in ["one", "two\nlines", "three"]]
    assert told == alone
    shown = ckpt("ckpt-run", "--prompts", "-", *run, input=(tmp_path / "p").read_text()).out
    assert shown == "".join(f"Prompt: {p}\nCompletion: {a['text']}\n\n"
                            for p, a in zip(["one", "two\nlines", "three"], alone))


def test_lines_may_end_as_on_windows(ckpt, golden_a, tokenizer, tmp_path):
    run = ["--tokenizer", tokenizer, "--dry-run", "--json", golden_a]
    for text in (b"one\n\ntwo\nlines\n\nthree\n", b"one\n\ntw\ro\n"):
        (tmp_path / "unix").write_bytes(text)
        (tmp_path / "windows").write_bytes(text.replace(b"\n", b"\r\n"))
        unix, windows = [ckpt("ckpt-run", "--prompts", tmp_path / name, *run).json["prompts"]
                         for name in ("unix", "windows")]
        assert unix == windows and len(unix) == text.count(b"\n\n") + 1


def test_a_prompt_that_is_not_utf8_is_named(ckpt, golden_a, tokenizer, tmp_path):
    (tmp_path / "p").write_bytes(b"one\n\ntw\xffo\n")
    assert "prompt 1 is not UTF-8 at its byte 2" in ckpt(
        "ckpt-run", "--prompts", tmp_path / "p", "--tokenizer", tokenizer, golden_a, check=2).err


@pytest.mark.parametrize("text, says", [("", "prompt 0 is empty"), ("a\n\n\n\nb", "prompt 1 is"),
                                        ("a\n\nb\n\n\n", "prompt 2 is")])
def test_an_empty_prompt_is_refused(ckpt, golden_a, tokenizer, text, says):
    assert says in ckpt("ckpt-run", "--prompts", "-", "--tokenizer", tokenizer, golden_a,
                        input=text, check=2).err


# ---- the loop ----

def talk(ckpt, model, tokenizer, lines, *options):
    return ckpt("ckpt-run", "--chat", "--tokenizer", tokenizer, *options, model,
                input="".join(line + "\n" for line in lines)).out


@pytest.mark.parametrize("mode", ["chat", "think"])
def test_a_conversation_is_what_its_messages_are(ckpt, golden_a, tokenizer, mode, tmp_path):
    """Whether the state is kept or made anew, each answer is that to the whole history."""
    lines = ["hi", "Why so?", "", "And then?", "ok"]
    history = [{"role": "system", "content": "S."}]
    expected = ""
    for line in filter(None, lines):
        history.append({"role": "user", "content": line})
        (tmp_path / "m").write_text(json.dumps(history))
        text = ckpt("ckpt-run", "--messages", tmp_path / "m", "--mode", mode, "--tokenizer",
                    tokenizer, "--generate", "3", golden_a).out
        expected += text
        history.append({"role": "assistant", "content": text.removesuffix("\n")})
    assert talk(ckpt, golden_a, tokenizer, lines, "--mode", mode, "--generate", "3",
                "--instructions", "S.") == expected


def test_clear_forgets_and_exit_ends(ckpt, golden_a, tokenizer):
    first = talk(ckpt, golden_a, tokenizer, ["hi"], "--generate", "4")
    both = talk(ckpt, golden_a, tokenizer, ["hi", "/clear", "hi", "/exit", "hi"], "--generate", "4")
    assert both == first + first and first.strip()


def test_a_line_of_the_loop_may_end_as_on_windows(ckpt, golden_a, tokenizer):
    lines = ["hi", "/clear", "hi", "/exit", "hi"]
    assert talk(ckpt, golden_a, tokenizer, [line + "\r" for line in lines], "--generate", "4") == \
        talk(ckpt, golden_a, tokenizer, lines, "--generate", "4")


def read_until(terminal, end):
    out = b""
    while not out.endswith(end):
        out += os.read(terminal, 1000)
    return out


@pytest.mark.parametrize("how", ["/exit", "end", "SIGINT"])
def test_a_terminal_is_asked_and_a_signal_ends_the_loop(build, golden_a, tokenizer, how):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(build / "bin" / "ckpt-run", ["ckpt-run", "--chat", "--tokenizer", tokenizer,
                                              "--generate", "3", golden_a])
    read_until(terminal, b">>> ")
    os.write(terminal, b"hi\n")
    assert read_until(terminal, b"\r\n>>> ").count(b"\r\n") == 2
    if how == "SIGINT":
        os.kill(pid, signal.SIGINT)
    else:
        os.write(terminal, b"/exit\n" if how == "/exit" else b"\x04")
    status = os.waitpid(pid, 0)[1]
    os.close(terminal)
    assert status == (signal.SIGINT if how == "SIGINT" else 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("turn", [1, 2])
def test_a_signal_just_before_a_line_is_read_ends_the_loop(build, golden_a, tokenizer, fault, turn,
                                                           number):
    """It interrupts nothing: the process stands before the read, of a pipe into which nobody writes
    any more."""
    process = subprocess.Popen([build / "bin" / "ckpt-run", "--chat", "--tokenizer", tokenizer,
                                "--generate", "3", golden_a], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, **fault.env(f"getline:stop:{turn}")})
    if turn == 2:
        process.stdin.write(b"hi\n")
        process.stdin.flush()
    _, state = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(state) and fault.injected
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=60) == -number
    assert process.stdout.read().count(b"\n") == turn - 1
    assert process.stderr.read() == b"ckpt-run: interrupted\n"
    process.stdin.close()


WRITE_TO_STDOUT = "1 0x1 "       # a system call on x86-64


def test_a_signal_ends_the_wait_for_who_reads_the_answers(build, golden_a, tokenizer):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen([build / "bin" / "ckpt-run", "--chat", "--tokenizer", tokenizer,
                                "--generate", "9", golden_a], stdin=subprocess.PIPE, stdout=writer,
                               stderr=subprocess.PIPE)
    os.close(writer)
    process.stdin.write(b"hi\n/clear\n" * 600)
    process.stdin.flush()
    call = pathlib.Path(f"/proc/{process.pid}/syscall")
    while not call.read_text().startswith(WRITE_TO_STDOUT):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == -signal.SIGINT
    assert process.stderr.read() == b"ckpt-run: interrupted\n"
    os.close(reader)
    process.stdin.close()


@pytest.mark.parametrize("call", ["open", "read"])
@pytest.mark.parametrize("option", ["--messages", "--prompts"])
def test_a_signal_just_before_texts_are_read_ends_the_run(build, golden_a, tokenizer, fault, option,
                                                          call, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR) if call == "read" else None
    process = subprocess.Popen([build / "bin" / "ckpt-run", option, pipe, "--tokenizer", tokenizer,
                                golden_a], stderr=subprocess.PIPE,
                               env={**os.environ, **fault.env(f"{call}:stop:1", pipe)})
    _, state = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(state) and fault.injected
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGINT and err.count(b"\n") <= 1, err
    if writer is not None:
        os.close(writer)


def test_what_cannot_be_read_is_not_the_end_of_a_conversation(build, golden_a, tokenizer, tmp_path):
    for given, said in ((None, "cannot read standard input: Is a directory"),
                        (b"caf\xe9\n", "a line of standard input is not UTF-8 at its byte 3"),
                        (b"hi\0there\n", "a line of standard input contains a NUL")):
        stdin = os.open(tmp_path, os.O_RDONLY) if given is None else None
        done = subprocess.run([build / "bin" / "ckpt-run", "--chat", "--tokenizer", tokenizer,
                               golden_a], capture_output=True, timeout=300,
                              **({"stdin": stdin} if given is None else {"input": given}))
        assert done.returncode == 2 and done.stdout == b""
        assert done.stderr.decode() == f"ckpt-run: {said}\n"


def test_a_conversation_that_is_too_long_is_refused(ckpt, golden_a, tokenizer, tmp_path):
    config = json.loads((golden_a / "config.json").read_text())
    config["max_position_embeddings"] = 40
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = ckpt("ckpt-run", "--chat", "--tokenizer", tokenizer, "--config",
                tmp_path / "config.json", "--generate", "8", golden_a, input="x" * 40 + "\n",
                check=2)
    assert "allows 40" in said.err and "/clear" in said.err


def test_special_words_are_single_tokens(ckpt, golden_a, tokenizer, encode):
    ids = ckpt("ckpt-run", "--messages", "-", "--tokenizer", tokenizer, "--dry-run", "--json",
               golden_a, input=json.dumps([USER, {"role": "assistant", "content": "y"}, USER])
               ).json["prompts"][0]["ids"]
    byte = 256
    assert ids == [0, 2, byte + ord("x"), 3, 5, byte + ord("y"), 1, 2, byte + ord("x"), 3, 5]
    assert BOS and EOS
